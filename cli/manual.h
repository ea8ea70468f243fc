// Pages of the manual in troff's man macros. They hold no date and no commit, so that the same
// source gives the same bytes.
#pragma once

#include <string>
#include <vector>

#include "cli/describe.h"

namespace zx::cli {

struct Page {
  std::string file;  // "zx-failover-pg.1"
  std::string text;
};

// zx(1), one page a visible leaf, and zx.toml(5).
[[nodiscard]] std::vector<Page> manual_pages(const commands::Tree& tree, const CLI::App& root);

// Text as troff prints it: hyphens that can be copied, no escapes, no requests at a line's start.
[[nodiscard]] std::string troff(std::string_view text);

}  // namespace zx::cli
