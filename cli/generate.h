// `zx __generate man DIR` and `zx __generate completions DIR`: what `scripts/dev man` calls.
// Hidden: they are for the build, not for people.
#pragma once

#include "commands/command.h"

namespace zx::cli {

void add_generate(commands::Tree& tree, const CLI::App& root);

}  // namespace zx::cli
