// What this host's journals and events know of a cluster beside what its agent says.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/run/journal.h"

namespace zx::commands {

// The last time that the primary became another node.
struct Move {
  std::string command;  // "failover pg" | "switchover pg"
  std::string run, from, to;
  std::string agent;  // empty: a person began it, or it is not known
  Wall at{};
  bool is_at_work = false;  // its run has not ended yet
  bool is_here = false;     // its journal is on this host: the rest is known
  // From the first sign of trouble, or from when the old primary was told to stop.
  std::optional<Millis> until_promoted, until_write;
  std::optional<std::uint64_t> lost;  // bytes of WAL that the new primary has not
  bool is_exact = false;
  // Of those, what the old primary's return has put aside.
  std::optional<std::int64_t> commits;
  std::string directory;
};

struct OpenRun {
  run::Record record;
  bool is_at_work = false;
  bool is_optional = false;       // the cluster serves without what is left
  bool is_of_agent = false;       // an agent began it
  std::vector<std::string> left;  // steps that are not done, with their subjects
};

struct History {
  std::optional<Move> last;
  std::optional<OpenRun> open;
  std::optional<run::BrokenRun> broken;  // a journal that may be of an unfinished run
  std::vector<std::string> unknown;      // why something of it is not known
};
// `cluster` of the agent's status.
[[nodiscard]] History history_of(const config::Config& config, const Json& cluster);
[[nodiscard]] Json to_json(const Move& move);
[[nodiscard]] Json to_json(const OpenRun& open);

}  // namespace zx::commands
