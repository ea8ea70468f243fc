#include "commands/fit.h"

#include <algorithm>

#include "lib/base/text.h"

namespace zx::commands {
namespace {

constexpr std::size_t kGap = 2;
constexpr std::size_t kNarrowest = 24;

// "/a/b/c" → "/a/b/", "c": each as long as fits, and longer only without a slash.
std::vector<std::string> pieces_of(const std::string& word, std::size_t width) {
  std::vector<std::string> pieces;
  std::string piece;
  std::size_t from = 0;
  while (from < word.size()) {
    const auto slash = word.find('/', from);
    const auto end = slash == std::string::npos ? word.size() : slash + 1;
    const auto part = word.substr(from, end - from);
    if (!piece.empty() && display_width(piece) + display_width(part) > width) {
      pieces.push_back(piece);
      piece.clear();
    }
    piece += part;
    from = end;
  }
  pieces.push_back(piece);
  return pieces;
}

std::vector<std::size_t> widths_of(const Table& table) {
  std::vector<std::size_t> widths;
  const auto add = [&](std::size_t column, const std::string& text) {
    widths.resize(std::max(widths.size(), column + 1));
    widths[column] = std::max(widths[column], display_width(text));
  };
  for (std::size_t i = 0; i < table.head.size(); ++i) add(i, table.head[i]);
  for (const auto& row : table.rows)
    for (std::size_t i = 0; i < row.size(); ++i) add(i, row[i].text);
  return widths;
}

std::size_t sum_of(const Table& table, const std::vector<std::size_t>& widths) {
  std::size_t sum = display_width(table.indent);
  for (const auto width : widths) sum += width + kGap;
  return sum - kGap;
}

}  // namespace

std::vector<std::string> lines_within(std::string_view text, std::size_t width) {
  std::vector<std::string> lines;
  std::string line;
  for (const auto& word : split(text, ' ')) {
    if (word.empty()) continue;
    const auto pieces = pieces_of(word, width);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const std::string_view between = i == 0 && !line.empty() ? " " : "";
      if (!line.empty() &&
          display_width(line) + between.size() + display_width(pieces[i]) > width) {
        lines.push_back(line);
        line = pieces[i];
      } else {
        line += std::string(between) + pieces[i];
      }
    }
  }
  if (!line.empty() || lines.empty()) lines.push_back(line);
  return lines;
}

void fit(Table& table, std::size_t first, std::size_t most, std::size_t last) {
  auto widths = widths_of(table);
  if (widths.size() <= std::max(first, last) || sum_of(table, widths) <= kColumns) return;
  widths[first] = std::min(widths[first], most);
  const auto others = sum_of(table, widths) - widths[last];
  widths[last] = std::max(kNarrowest, kColumns - std::min(kColumns, others));
  std::vector<std::vector<Cell>> rows;
  for (const auto& row : table.rows) {
    const auto at = rows.size();
    rows.push_back(row);
    for (const auto column : {first, last}) {
      if (column >= row.size()) continue;
      const auto lines = lines_within(row[column].text, widths[column]);
      for (std::size_t i = 0; i < lines.size(); ++i) {
        if (at + i == rows.size()) rows.emplace_back(column + 1);
        auto& below = rows[at + i];
        if (below.size() <= column) below.resize(column + 1);
        below[column] = Cell(lines[i], row[column].tone);
      }
    }
  }
  table.rows = std::move(rows);
}

}  // namespace zx::commands
