// Who has the turn of a cluster, as the others read it.
#pragma once

#include <cstdint>
#include <string>

#include "lib/base/clock.h"
#include "lib/base/error.h"

namespace zx::coord {

struct TurnHolder {
  std::string command;  // "zx switchover pg"
  std::string host;
  std::int64_t pid = 0;
  std::string user;
  Wall since{};
  std::string id;  // no two turns have the same
};

// This process, from now on.
[[nodiscard]] TurnHolder turn_holder(const std::string& command);
[[nodiscard]] std::string write_turn(const TurnHolder& holder);
// Code::locked, naming whoever wrote `text`; that may be anything.
[[nodiscard]] Error turn_held(const std::string& name, const std::string& text, Wall now);

}  // namespace zx::coord
