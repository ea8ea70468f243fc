#include "cli/screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "lib/base/text.h"
#include "lib/os/signals.h"

namespace zx::cli {
namespace {

using commands::Tone;

// All of it, or the errno. A descriptor that a parent made non-blocking is waited for.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(fd, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      pollfd ready{fd, POLLOUT, 0};
      ::poll(&ready, 1, 1000);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

std::size_t terminal_width(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

// The beginning of `text` that is at most `width` columns wide.
std::string cut(std::string_view text, std::size_t width) {
  std::size_t end = 0;
  std::size_t used = 0;
  while (end < text.size()) {
    std::size_t next = end + 1;
    while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xC0u) == 0x80u) ++next;
    used += display_width(text.substr(end, next - end));
    if (used > width) break;
    end = next;
  }
  return std::string(text.substr(0, end));
}

// One cell: foreign text can hold a line break, which would tear the table.
std::string one_line(std::string_view text) {
  auto out = clean_utf8(text);
  std::replace(out.begin(), out.end(), '\n', ' ');
  std::replace(out.begin(), out.end(), '\t', ' ');
  out.erase(out.find_last_not_of(' ') + 1);
  return out;
}

const char* escape_of(Tone tone) {
  switch (tone) {
    case Tone::good: return "\033[32m";
    case Tone::bad: return "\033[31m";
    case Tone::warn: return "\033[33m";
    case Tone::dim: return "\033[2m";
    case Tone::plain: break;
  }
  return "";
}

// "message", its further lines indented below.
std::string indent_rest(std::string_view text) {
  std::string out;
  for (const auto& line : split(trim(text), '\n')) {
    if (!out.empty()) out += "\n  ";
    out += line;
  }
  return clean_utf8(out);
}

}  // namespace

TerminalScreen::TerminalScreen(const commands::Shared& shared)
    : shared_(shared), out_is_terminal_(::isatty(1) == 1), err_is_terminal_(::isatty(2) == 1) {
  const auto variable = [](const char* name) {
    const auto* value = std::getenv(name);
    return std::string_view(value == nullptr ? "" : value);
  };
  is_dumb_ = variable("TERM") == "dumb";
  no_color_variable_ = !variable("NO_COLOR").empty();
}

TerminalScreen::~TerminalScreen() { erase_progress(); }

void TerminalScreen::out(std::string_view text) {
  erase_progress();
  if (out_failure_ == 0) out_failure_ = write_all(1, text);
}

// Also before the next word: a command that watches may have nothing to say for hours.
bool TerminalScreen::is_broken() const {
  if (out_failure_ != 0) return true;
  pollfd reader{1, 0, 0};
  return ::poll(&reader, 1, 0) == 1 && (reader.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
}

// Nothing can be done about a stderr that is full or closed.
void TerminalScreen::err(std::string_view text) {
  erase_progress();
  (void)write_all(2, text);
}

void TerminalScreen::erase_progress() {
  if (!progress_shown_) return;
  progress_shown_ = false;
  (void)write_all(2, "\r\033[K");
}

bool TerminalScreen::colours(bool terminal) const {
  return terminal && !is_dumb_ && !no_color_variable_ && !shared_.no_color;
}

std::string TerminalScreen::paint(std::string_view text, Tone tone, bool terminal) const {
  if (tone == Tone::plain || text.empty() || !colours(terminal)) return std::string(text);
  return escape_of(tone) + std::string(text) + "\033[0m";
}

void TerminalScreen::line(std::string_view text, Tone tone) {
  if (shared_.format != commands::Format::table) return;
  out(paint(clean_utf8(text), tone, out_is_terminal_) + "\n");
}

void TerminalScreen::table(const commands::Table& table) {
  if (shared_.format != commands::Format::table) return;
  std::vector<std::vector<commands::Cell>> rows;
  if (!table.head.empty()) {
    auto& head = rows.emplace_back();
    for (const auto& name : table.head) head.emplace_back(name, Tone::dim);
  }
  rows.insert(rows.end(), table.rows.begin(), table.rows.end());

  std::vector<std::size_t> widths;
  for (auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) {
      row[i].text = one_line(row[i].text);
      widths[i] = std::max(widths[i], display_width(row[i].text));
    }
  }
  std::string text;
  for (auto& row : rows) {
    while (!row.empty() && row.back().text.empty()) row.pop_back();
    if (!row.empty()) text += table.indent;
    for (std::size_t i = 0; i < row.size(); ++i) {
      text += paint(row[i].text, row[i].tone, out_is_terminal_);
      if (i + 1 < row.size()) text += std::string(widths[i] - display_width(row[i].text) + 2, ' ');
    }
    text += '\n';
  }
  out(text);
}

void TerminalScreen::json(const Json& json) {
  if (!is_json()) return;
  Json whole{{"schema", 1}};
  if (json.is_object()) {
    for (const auto& [key, value] : json.items()) whole[key] = value;
  } else {
    whole["data"] = json;
  }
  json_printed_ = true;
  out(dump_pretty(whole) + "\n");
}

void TerminalScreen::raw(std::string_view text) { out(text); }

void TerminalScreen::note(std::string_view text) {
  if (!shared_.quiet) err(clean_utf8(text) + "\n");
}

void TerminalScreen::progress(std::string_view text) {
  if (!err_is_terminal_ || is_dumb_ || shared_.quiet) return;
  // One column stays free: a full line would wrap on some terminals and could not be erased.
  (void)write_all(2, "\r\033[K" + cut(one_line(text), terminal_width(2) - 1));
  progress_shown_ = true;
}

void TerminalScreen::clear() {
  if (out_is_terminal_ && !is_dumb_) out("\033[2J\033[H");
}

Status TerminalScreen::confirm(std::string_view question, std::string_view flag) {
  if (::isatty(0) != 1 || !err_is_terminal_)
    return fail(Code::declined, "not confirmed, and there is no terminal to ask on",
                "to go ahead without being asked: " + std::string(flag));
  err(clean_utf8(question) + " [y/N] ");
  std::string answer;
  while (true) {
    if (const auto interruption = os::interruption()) {
      err("\n");
      return fail(*interruption);
    }
    pollfd ready{0, POLLIN, 0};
    if (::poll(&ready, 1, 100) <= 0) continue;
    char c = 0;
    const auto count = ::read(0, &c, 1);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) {
      err("\n");
      break;
    }
    if (c == '\n') break;
    answer += c;
  }
  const auto word = lower(trim(answer));
  if (word == "y" || word == "yes") return {};
  return fail(Code::declined, "declined; nothing changed");
}

void TerminalScreen::error(const Error& error) {
  std::string text = paint("zx:", Tone::bad, err_is_terminal_) + " ";
  if (error.code != Code::failed) text += std::string(info(error.code).name) + ": ";
  text += indent_rest(error.message) + "\n";
  for (const auto& step : error.trail) text += "  " + indent_rest(step) + "\n";
  if (!error.hint.empty()) text += "hint: " + indent_rest(error.hint) + "\n";
  err(text);
  if (is_json() && !json_printed_) json(Json{{"error", to_json(error)}});
  // A plugin's answer is its first line on stdout; a "|" in it would begin the figures.
  if (shared_.format == commands::Format::nagios) {
    auto said = "UNKNOWN: " + first_line(error.message);
    std::replace(said.begin(), said.end(), '|', '/');
    out(said + "\n");
  }
}

Status TerminalScreen::finish() {
  erase_progress();
  if (out_failure_ == 0 || out_failure_ == EPIPE) return {};
  return fail(errno_error(Code::io, "cannot write the result to standard output", out_failure_));
}

}  // namespace zx::cli
