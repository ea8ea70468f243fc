// Text: UTF-8 width, cleaning of foreign text, nearest names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace zx {

[[nodiscard]] std::vector<std::string> split(std::string_view text, char separator);
[[nodiscard]] std::string join(const std::vector<std::string>& parts, std::string_view separator);
[[nodiscard]] std::string_view trim(std::string_view text);
[[nodiscard]] std::string lower(std::string_view text);
[[nodiscard]] bool contains(const std::vector<std::string>& words, std::string_view word);

// Columns on a terminal: wide East Asian characters count two, combining marks none.
[[nodiscard]] std::size_t display_width(std::string_view utf8);
// Broken UTF-8 becomes U+FFFD, control characters (but not newline and tab) become spaces, so that
// a server's message can neither break JSON nor move a terminal's cursor.
[[nodiscard]] std::string clean_utf8(std::string_view text);
// The first line of a message, trimmed and cleaned.
[[nodiscard]] std::string first_line(std::string_view text);
// Breaks text at spaces so that no line is wider than `width`; keeps its newlines.
[[nodiscard]] std::string wrap(std::string_view text, std::size_t width, std::string_view indent);

// The candidate at the least edit distance (with transpositions), if it is near
// enough to be meant: at most a third of the length, at least one. Empty else.
[[nodiscard]] std::string nearest(std::string_view word,
                                  const std::vector<std::string>& candidates);

}  // namespace zx
