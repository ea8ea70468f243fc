// How many of something, in words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace zx {

// "1 key", "0 keys": the plural of `noun` takes an s.
[[nodiscard]] inline std::string count_of(std::int64_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

}  // namespace zx
