// A Config as a zx.toml for people: comments, and only what differs from the defaults.
#pragma once

#include <map>
#include <string>

#include "lib/config/config.h"

namespace zx::config {

// What the file says beyond its keys. Texts may have several lines and come from anywhere: they are
// written as comments.
struct Remarks {
  std::string head;  // in front of all
  // By spell_key() of a table or key, in front of it. That of a key which the file leaves out
  // stands in its place.
  std::map<std::string, std::string> at;
  std::string tail;
};

// load_text(render(c), c.path) gives c again, whatever the remarks. An empty state_dir is left to
// its default.
[[nodiscard]] std::string render(const Config& config, const Remarks& remarks = {});

}  // namespace zx::config
