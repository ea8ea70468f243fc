// A child whose output is taken, or whose input is given, piece by piece: more than fits in memory
// goes through it.
#pragma once

#include <functional>
#include <string_view>

#include "lib/os/process.h"

namespace zx::os {

// An Error of it ends the child and is what is returned.
using Take = std::function<Status(std::string_view)>;
// The next piece, good until the next call; empty: the end.
using Give = std::function<Result<std::string_view>()>;

// What the child writes to stdout goes to `take`; `out` of the result stays empty. Of `options`
// input and output_limit (of stderr) count as in run(). Interrupted when zx is.
[[nodiscard]] Result<ProcessResult> run_reading(const Argv& argv, const ProcessOptions& options,
                                                const Take& take);
// What the child reads comes from `give`. A child that ends, or closes its stdin, before it has all
// of it is no Error by itself: its exit tells.
[[nodiscard]] Result<ProcessResult> run_feeding(const Argv& argv, const ProcessOptions& options,
                                                const Give& give);

// Both at once: what it reads comes from `give`, what it writes goes to `take`.
[[nodiscard]] Result<ProcessResult> run_through(const Argv& argv, const ProcessOptions& options,
                                                const Give& give, const Take& take);

}  // namespace zx::os
