// Private to lib/ha: what an agent says once although the words change with the clock.
#pragma once

#include <string>

#include "lib/base/text.h"

namespace zx::ha {

// A sentence without how long something still takes. Pure.
[[nodiscard]] inline std::string without_times(const std::string& text) {
  std::string out;
  for (const auto& word : split(text, ' '))
    if (word.empty() || word.find_first_not_of("0123456789.dhms,:") != std::string_view::npos ||
        word.find_first_of("0123456789") == std::string_view::npos)
      out += std::string(word) + " ";
  return out;
}

}  // namespace zx::ha
