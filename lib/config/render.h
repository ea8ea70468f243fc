// A Config as a zx.toml for people: comments, and only what differs from the defaults.
#pragma once

#include <string>

#include "lib/config/config.h"

namespace zx::config {

// load_text(render(c), c.path) gives c again. An empty state_dir is left to its default.
[[nodiscard]] std::string render(const Config& config);

}  // namespace zx::config
