// What the parts of zx agent status have in common.
#pragma once

#include <optional>
#include <string>

#include "commands/command.h"

namespace zx::commands {

// "master_dead" → "master dead".
[[nodiscard]] std::string spaced(std::string name);
// A sentence that may be long, broken where a terminal ends.
void say(Screen& screen, const std::string& text, Tone tone = Tone::plain,
         const std::string& indent = "");
// Of a node in the agent's status.
[[nodiscard]] std::optional<Millis> silent_for(const Json& node);
[[nodiscard]] std::string answered(const Json& node);  // "now", "4 s ago", "never"
// Those of a cluster or deployment; `says_of` gives the last column.
void show_nodes(Screen& screen, const Json& all,
                Cell (*says_of)(const Json& all, const Json& node));

}  // namespace zx::commands
