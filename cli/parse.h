// The words of one leaf through CLI11, and its errors in the words of zx.
#pragma once

#include <string>
#include <vector>

#include "cli/walk.h"

namespace zx::cli {

enum class Parsed { ready, help };

// Code::usage when the words do not fit. `leaf` is the app of `place`.
[[nodiscard]] Result<Parsed> parse_leaf(const commands::Tree& tree, const Place& place,
                                        CLI::App& leaf, const std::vector<std::string>& words);

// The errors of a walk that did not arrive.
[[nodiscard]] Error unknown_command(const Place& place, const std::string& word);
[[nodiscard]] Error unknown_front_flag(const commands::Tree& tree, const CLI::App& root,
                                       const Place& place, const std::string& word);
[[nodiscard]] Error needs_value(const CLI::Option& option);

}  // namespace zx::cli
