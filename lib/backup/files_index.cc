#include "lib/backup/files_index.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <type_traits>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr std::string_view kHead = "zx-files";
constexpr std::size_t kLongestLine = 256 << 10;
constexpr std::size_t kDigits = 64;

Error broken(std::string what) {
  return Error{Code::failed, "no index of files: " + std::move(what), {}, {}, false};
}

template <class T>
void append_number(std::string& text, T value, int base = 10) {
  std::array<char, 24> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, base).ptr;
  text.append(digits.data(), end);
}

// A number and the tab behind it, which are taken off. The shortest spelling only, so that a line
// is what its entry writes again. By hand: an index has nine numbers a file.
template <unsigned kBase, class T>
bool take_number(std::string_view& line, T& value) {
  const bool is_negative = std::is_signed_v<T> && line.starts_with('-');
  std::size_t at = is_negative ? 1 : 0;
  const auto first = at;
  std::uint64_t number = 0;
  for (; at < line.size() && line[at] != '\t'; ++at) {
    const auto digit = static_cast<unsigned>(line[at] - '0');
    if (digit >= kBase || number > (UINT64_MAX - digit) / kBase) return false;
    number = number * kBase + digit;
  }
  if (at == first || at == line.size()) return false;
  if (line[first] == '0' && (at > first + 1 || is_negative)) return false;
  const auto most = static_cast<std::uint64_t>(std::numeric_limits<T>::max());
  if (number > most + (is_negative ? 1 : 0)) return false;
  value = static_cast<T>(is_negative ? 0 - number : number);
  line.remove_prefix(at + 1);
  return true;
}

// The same of a text that is nothing else.
template <class T>
bool read_number(std::string_view text, T& value) {
  auto line = std::string(text) + "\t";
  std::string_view rest = line;
  return take_number<10>(rest, value) && rest.empty();
}

constexpr auto kHexDigits = [] {
  std::array<bool, 256> is_digit{};
  for (const char letter : std::string_view("0123456789abcdef"))
    is_digit[static_cast<unsigned char>(letter)] = true;
  return is_digit;
}();

bool is_hex(std::string_view text) {
  bool is_all = true;
  for (const char letter : text) is_all &= kHexDigits[static_cast<unsigned char>(letter)];
  return is_all;
}

void append_escaped(std::string& text, std::string_view name) {
  for (const char letter : name) {
    switch (letter) {
      case '\t': text += "\\t"; break;
      case '\n': text += "\\n"; break;
      case '\\': text += "\\\\"; break;
      default: text += letter;
    }
  }
}

bool read_escaped(std::string_view text, std::string& name) {
  name.clear();
  for (auto at = text.find('\\'); at != std::string_view::npos; at = text.find('\\')) {
    name.append(text.substr(0, at));
    if (at + 1 == text.size()) return false;
    switch (text[at + 1]) {
      case 't': name += '\t'; break;
      case 'n': name += '\n'; break;
      case '\\': name += '\\'; break;
      default: return false;
    }
    text.remove_prefix(at + 2);
  }
  name.append(text);
  return name.find('\0') == std::string::npos;
}

// The text up to the next tab, which is taken off; the rest when there is none.
std::string_view next_field(std::string_view& line, bool& has_more) {
  const auto tab = line.find('\t');
  has_more = tab != std::string_view::npos;
  const auto field = line.substr(0, tab);
  line.remove_prefix(has_more ? tab + 1 : line.size());
  return field;
}

bool read_sum(std::string_view text, const IndexEntry& entry, std::string& sum) {
  if (entry.type != 'f') {
    sum.clear();
    return text == "-" && entry.size == 0;
  }
  sum = text;
  return text.size() == kDigits && is_hex(text);
}

std::string_view parent_in(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

}  // namespace

std::string index_head(std::int64_t begun_ns) {
  return fmt::format("{}\t{}\t{}\n", kHead, kIndexFormat, begun_ns);
}

Result<std::int64_t> read_index_head(std::string_view line) {
  bool more = false;
  if (next_field(line, more) != kHead || !more) return fail(broken("its first line is another"));
  int format = 0;
  if (!read_number(next_field(line, more), format) || format < 1)
    return fail(broken("its first line names no format"));
  if (format > kIndexFormat)
    return fail(
        Code::refused,
        fmt::format("an index of files has format {}, this zx knows {}", format, kIndexFormat),
        "use the zx that made the set, or a newer one");
  std::int64_t begun = 0;
  if (!more || !read_number(next_field(line, more), begun) || more)
    return fail(broken("its first line names no time"));
  return begun;
}

void append_line(std::string& text, const IndexEntry& entry) {
  text += entry.type;
  text += '\t';
  append_number(text, entry.mode, 8);
  for (const std::uint64_t number :
       {std::uint64_t{entry.uid}, std::uint64_t{entry.gid}, entry.size}) {
    text += '\t';
    append_number(text, number);
  }
  for (const auto time : {entry.mtime, entry.ctime}) {
    text += '\t';
    append_number(text, time);
  }
  text += '\t';
  append_number(text, entry.inode);
  text += '\t';
  text += entry.sha256.empty() ? std::string_view("-") : std::string_view(entry.sha256);
  text += '\t';
  text += entry.set;
  text += '\t';
  append_escaped(text, entry.path);
  if (entry.type == 'l') {
    text += '\t';
    append_escaped(text, entry.target);
  }
  text += '\n';
}

Status read_line(std::string_view line, IndexEntry& entry) {
  bool more = false;
  const auto field = [&] { return next_field(line, more); };
  const auto type = field();
  if (type != "f" && type != "d" && type != "l") return fail(broken("a type that is none"));
  entry.type = type.front();
  const bool has_numbers = more && take_number<8>(line, entry.mode) && entry.mode <= 07777 &&
                           take_number<10>(line, entry.uid) && take_number<10>(line, entry.gid) &&
                           take_number<10>(line, entry.size) &&
                           take_number<10>(line, entry.mtime) &&
                           take_number<10>(line, entry.ctime) && take_number<10>(line, entry.inode);
  if (!has_numbers) return fail(broken("a number that is none"));
  if (!read_sum(field(), entry, entry.sha256) || !more)
    return fail(broken("a sum or a size that does not fit"));
  entry.set = field();
  if (!is_run_id(entry.set) || !more) return fail(broken("a set that is none"));
  if (!read_escaped(field(), entry.path) || !is_tree_path(entry.path))
    return fail(broken("a path that is none"));
  entry.target.clear();
  if (more != (entry.type == 'l')) return fail(broken("a target too many or too few"));
  if (more && (!read_escaped(field(), entry.target) || entry.target.empty() || more))
    return fail(broken("a target that is none"));
  return {};
}

bool comes_before(std::string_view path, std::string_view other) {
  if (path == "." || other == ".") return path == "." && other != ".";
  const auto least = std::min(path.size(), other.size());
  std::size_t same = 0;
  while (same < least && path[same] == other[same]) ++same;
  if (same == least) return path.size() < other.size();
  const auto rank = [](char letter) {
    return letter == '/' ? 0 : 1 + static_cast<int>(static_cast<unsigned char>(letter));
  };
  return rank(path[same]) < rank(other[same]);
}

bool is_tree_path(std::string_view path) {
  if (path == ".") return true;
  if (path.find('\0') != std::string_view::npos) return false;
  while (true) {
    const auto slash = path.find('/');
    const auto part = path.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

std::string shown(std::string_view path) {
  auto text = clean_utf8(path);
  std::replace(text.begin(), text.end(), '\n', ' ');
  std::replace(text.begin(), text.end(), '\t', ' ');
  return text;
}

Result<bool> IndexReader::next_line(std::string_view& line) {
  bool is_begun = false;  // a line whose start is in rest_
  while (true) {
    const auto end = piece_.find('\n');
    if (end != std::string_view::npos) {
      text_ = piece_.substr(0, end + 1);
      piece_.remove_prefix(end + 1);
      if (is_begun) text_ = rest_.append(text_);
      line = text_.substr(0, text_.size() - 1);
      if (line.size() > kLongestLine) return fail(broken("a line that is too long"));
      ++line_;
      return true;
    }
    if (!is_begun) rest_.clear();
    is_begun = true;
    rest_.append(piece_);
    piece_ = {};
    if (rest_.size() > kLongestLine) return fail(broken("a line that is too long"));
    ZX_ASSIGN(piece_, more_());
    if (!piece_.empty()) continue;
    if (!rest_.empty()) return fail(broken("its last line has no end"));
    return false;
  }
}

Status IndexReader::in_order(const IndexEntry& entry) {
  const auto parent = parent_in(entry.path);
  if (last_.empty()) {
    if (entry.path != "." || entry.type != 'd') return fail(broken("it does not begin with \".\""));
  } else {
    if (!comes_before(last_, entry.path)) return fail(broken("a path out of order"));
    const bool is_listed = parent.empty() || directory_ == parent ||
                           (directory_.starts_with(parent) && directory_[parent.size()] == '/');
    if (!is_listed) return fail(broken("a path in a directory that it does not have"));
  }
  if (entry.type == 'd') directory_ = entry.path;
  last_ = entry.path;
  return {};
}

Result<bool> IndexReader::next(IndexEntry& entry) {
  std::string_view line;
  if (line_ == 0) {
    ZX_ASSIGN(const bool has_head, next_line(line));
    if (!has_head) return fail(broken("it is empty"));
    ZX_ASSIGN(begun_ns_, read_index_head(line));
  }
  ZX_ASSIGN(const bool has_line, next_line(line));
  if (!has_line) {
    if (last_.empty()) return fail(broken("it names nothing"));
    return false;
  }
  auto read = read_line(line, entry);
  if (read) read = in_order(entry);
  if (!read) return fail_while(read.error(), fmt::format("reading line {} of it", line_));
  return true;
}

Patterns::Patterns(const std::vector<std::string>& patterns) {
  for (std::string_view pattern : patterns) {
    const bool is_path = pattern.find('/') != std::string_view::npos;
    if (pattern.starts_with("./")) pattern.remove_prefix(2);
    while (pattern.starts_with('/')) pattern.remove_prefix(1);
    while (pattern.ends_with('/')) pattern.remove_suffix(1);
    if (!pattern.empty()) (is_path ? paths_ : names_).emplace_back(pattern);
  }
}

bool Patterns::match(const std::string& path) const {
  const auto is_like = [](const std::vector<std::string>& patterns, const char* name) {
    return std::any_of(patterns.begin(), patterns.end(), [name](const std::string& pattern) {
      return fnmatch(pattern.c_str(), name, 0) == 0;
    });
  };
  const auto slash = path.rfind('/');
  const char* const name = path.c_str() + (slash == std::string::npos ? 0 : slash + 1);
  return is_like(names_, name) || is_like(paths_, path.c_str());
}

}  // namespace zx::backup
