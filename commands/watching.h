// --watch: the same look again and again.
#pragma once

#include <functional>
#include <string>

#include "commands/command.h"

namespace zx::commands {

struct Watching {
  bool is_on = false;
  std::string interval;
};
// `--watch` and `--interval`.
void add_watch_flags(CLI::App* leaf, Watching& watching);
// `look` once, or until interrupted or nobody reads any more.
[[nodiscard]] Result<int> watch(Env& env, const Watching& watching,
                                const std::function<Result<int>()>& look);

}  // namespace zx::commands
