#include "lib/base/text.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace zx {
namespace {

struct Decoded {
  char32_t point;
  std::size_t bytes;  // 0: invalid
};

Decoded decode(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  std::size_t length = 0;
  char32_t point = 0;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
    point = lead & 0x1Fu;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    point = lead & 0x0Fu;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    point = lead & 0x07u;
  }
  if (length == 0 || text.size() < length) return {0, 0};
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0u) != 0x80u) return {0, 0};
    point = (point << 6) | (byte(i) & 0x3Fu);
  }
  const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
  if (overlong || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return {0, 0};
  return {point, length};
}

// East Asian Wide and Fullwidth blocks of Unicode's EastAsianWidth.txt, merged.
bool is_wide(char32_t c) {
  return (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0x303E) ||
         (c >= 0x3041 && c <= 0xA4CF) || (c >= 0xAC00 && c <= 0xD7A3) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFE30 && c <= 0xFE6F) ||
         (c >= 0xFF00 && c <= 0xFF60) || (c >= 0xFFE0 && c <= 0xFFE6) ||
         (c >= 0x1F300 && c <= 0x1FAFF) || (c >= 0x20000 && c <= 0x3FFFD);
}

bool is_zero_width(char32_t c) {
  return (c >= 0x300 && c <= 0x36F) || (c >= 0x1AB0 && c <= 0x1AFF) ||
         (c >= 0x1DC0 && c <= 0x1DFF) || (c >= 0x200B && c <= 0x200F) || c == 0x2060 ||
         (c >= 0x20D0 && c <= 0x20FF) || (c >= 0x302A && c <= 0x302D) || c == 0x3099 ||
         c == 0x309A || (c >= 0xFE00 && c <= 0xFE0F) || (c >= 0xFE20 && c <= 0xFE2F) ||
         c == 0xFEFF || (c >= 0xE0100 && c <= 0xE01EF);
}

}  // namespace

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const auto at = text.find(separator);
    parts.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string out;
  for (const auto& part : parts) {
    if (!out.empty() || &part != &parts.front()) out += separator;
    out += part;
  }
  return out;
}

std::string_view trim(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (auto& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

bool contains(const std::vector<std::string>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::size_t display_width(std::string_view utf8) {
  std::size_t width = 0;
  while (!utf8.empty()) {
    const auto [point, bytes] = decode(utf8);
    if (bytes == 0) {
      ++width;
      utf8.remove_prefix(1);
      continue;
    }
    if (!is_zero_width(point)) width += is_wide(point) ? 2 : 1;
    utf8.remove_prefix(bytes);
  }
  return width;
}

std::string clean_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto [point, bytes] = decode(text);
    if (bytes == 0) {
      out += "\xEF\xBF\xBD";
      text.remove_prefix(1);
      continue;
    }
    const bool is_control = (point < 0x20 && point != '\n' && point != '\t') || point == 0x7F ||
                            (point >= 0x80 && point < 0xA0);
    if (is_control)
      out += ' ';
    else
      out += text.substr(0, bytes);
    text.remove_prefix(bytes);
  }
  return out;
}

std::string first_line(std::string_view text) {
  // Cleaned first: what was a control character is a space at the end of a line.
  const auto clean = clean_utf8(text);
  const auto body = trim(clean);
  return std::string(trim(body.substr(0, body.find('\n'))));
}

std::string wrap(std::string_view text, std::size_t width, std::string_view indent) {
  std::string out;
  bool is_first = true;
  for (const auto& line : split(text, '\n')) {
    std::size_t column = 0;
    if (!std::exchange(is_first, false)) out += '\n';
    if (!line.empty() && line.front() == ' ') {  // preformatted
      out += indent;
      out += line;
      continue;
    }
    for (const auto& word : split(line, ' ')) {
      if (word.empty()) continue;
      const auto word_width = display_width(word);
      if (column != 0 && column + 1 + word_width > width) {
        out += '\n';
        column = 0;
      }
      if (column == 0) {
        out += indent;
        column = indent.size();
      } else {
        out += ' ';
        ++column;
      }
      out += word;
      column += word_width;
    }
  }
  return out;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  // Optimal string alignment: three rows of the usual table.
  const auto distance = [](std::string_view a, std::string_view b) {
    std::vector<std::size_t> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
      current[0] = i;
      for (std::size_t j = 1; j <= b.size(); ++j) {
        const std::size_t cost = a[i - 1] == b[j - 1] ? 0 : 1;
        current[j] = std::min({previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost});
        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
          current[j] = std::min(current[j], before[j - 2] + 1);
      }
      std::swap(before, previous);
      std::swap(previous, current);
    }
    return previous[b.size()];
  };
  std::string best;
  std::size_t least = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    const auto d = distance(word, candidate);
    // With every letter replaced nothing is left of the word.
    if (d < least && d < std::max(word.size(), candidate.size())) {
      least = d;
      best = candidate;
    }
  }
  if (best.empty() && word.size() >= 3) {  // a beginning is meant as the whole: "fail" → failover
    for (const auto& candidate : candidates)
      if (std::string_view(candidate).starts_with(word)) return candidate;
  }
  return best;
}

}  // namespace zx
