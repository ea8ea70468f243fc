#include "lib/backup/dump_script.h"

#include <algorithm>

#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr std::string_view kEnd = "\\.\n";
// A statement holds at most a piece of a large object: 16 KiB, in hexadecimal.
constexpr std::size_t kLongest = 16u << 20;

}  // namespace

void DumpScript::read_quotes(std::string_view text) {
  for (const char c : text) {
    if (in_quotes_) {
      if (c == quote_) in_quotes_ = false;  // a doubled one opens it again at once
    } else if (c == '\'' || c == '"') {
      in_quotes_ = true;
      quote_ = c;
    }
  }
}

Status DumpScript::line(std::string_view text) {
  if (statement_.empty()) {
    if (text == "\n" || text.starts_with("--")) return {};
    // psql would obey them. These two, which pg_dump writes against others, say nothing here.
    if (text.starts_with("\\restrict ") || text.starts_with("\\unrestrict ")) return {};
    if (text.starts_with('\\'))
      return fail(Code::failed, "the dump has a command of psql: " + first_line(text));
  }
  statement_ += text;
  if (statement_.size() > kLongest) return fail(Code::failed, "the dump has an endless statement");
  read_quotes(text);
  if (in_quotes_ || !text.ends_with(";\n")) return {};
  const auto sql = std::exchange(statement_, {});
  in_rows_ = sql.starts_with("COPY ") && sql.ends_with(" FROM stdin;\n");
  return in_rows_ ? events_.copy(sql) : events_.statement(sql);
}

// All whole lines of the piece at once, up to the end of the rows.
Status DumpScript::rows(std::string_view& piece) {
  std::size_t end = 0;
  while (true) {
    const auto newline = piece.find('\n', end);
    if (newline == std::string_view::npos) break;
    const auto text = piece.substr(end, newline + 1 - end);
    if (text == kEnd) {
      if (end > 0) ZX_TRY(events_.rows(piece.substr(0, end)));
      piece.remove_prefix(newline + 1);
      in_rows_ = false;
      return events_.copied();
    }
    end = newline + 1;
  }
  if (end > 0) ZX_TRY(events_.rows(piece.substr(0, end)));
  piece.remove_prefix(end);
  return {};
}

Status DumpScript::feed(std::string_view piece) {
  if (!rest_.empty()) {
    // The line that ended in the middle, with its end.
    const auto newline = piece.find('\n');
    if (newline == std::string_view::npos) {
      rest_ += piece;
      return {};
    }
    rest_ += piece.substr(0, newline + 1);
    piece.remove_prefix(newline + 1);
    const auto whole = std::exchange(rest_, {});
    std::string_view one = whole;
    ZX_TRY(in_rows_ ? rows(one) : line(one));
  }
  while (!piece.empty()) {
    if (in_rows_) {
      ZX_TRY(rows(piece));
      if (in_rows_) break;  // what is left is no whole line
      continue;
    }
    const auto newline = piece.find('\n');
    if (newline == std::string_view::npos) break;
    ZX_TRY(line(piece.substr(0, newline + 1)));
    piece.remove_prefix(newline + 1);
  }
  rest_ = piece;
  return {};
}

Status DumpScript::finish() {
  if (in_rows_ || !rest_.empty() || !statement_.empty())
    return fail(Code::failed, "the script of the dump ends in the middle");
  return {};
}

}  // namespace zx::backup
