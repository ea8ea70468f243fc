// What every chain shares, whatever kind of server it acts on: the turn, unfinished runs, signals.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lib/coord/coordinator.h"
#include "lib/coord/lock.h"
#include "lib/run/executor.h"

namespace zx::ha {

struct TurnWish {
  std::string command;  // "failover pg"
  // Of which unfinished runs it may take the place.
  std::function<bool(const run::Record&)> supersedes;
  // A person's word that nobody else, person or agent, is at work on the cluster: it counts when
  // the coordinator cannot be asked, not when it says otherwise.
  bool assume_alone = false;
  // A person's run about a standby on another host gives way.
  bool is_urgent = false;
};

// On what, and where it is written down.
struct Ground {
  std::string state_dir;
  std::string lock;                 // of the plans: "pg.main"
  coord::Shared* shared = nullptr;  // null: the lock of this host is all
};

// The turn: the lock of this host, and among all hosts what `shared` says. Code::locked at once
// when another run has it; Code::refused when an unfinished run is in the way, except one that has
// nothing but optional steps left, or which may be superseded; else the coordinator cannot be
// asked.
[[nodiscard]] Result<std::unique_ptr<coord::Lease>> take_turn(const Ground& ground,
                                                              const TurnWish& wish);
// The error that take_turn() would give now. Takes and changes nothing: for --dry-run.
[[nodiscard]] Status may_take_turn(const Ground& ground, const TurnWish& wish);
// The turn whatever is unfinished, for resume and abort.
[[nodiscard]] Result<std::unique_ptr<coord::Lease>> take_lock(const Ground& ground,
                                                              const TurnWish& wish);
[[nodiscard]] Status may_take_lock(const Ground& ground, const TurnWish& wish);
// Ends the unfinished runs that take_turn() let pass, right before another takes their place.
[[nodiscard]] Status supersede(const Ground& ground, const std::string& command);

// Hooks of a run that has `lease`, and `claim` when that is not null: signals undo it before its
// point of no return, as an error of `hooks.interruption` does. Both must outlive them.
[[nodiscard]] run::Hooks with_signals(run::Hooks hooks, coord::Lease& lease, coord::Lease* claim);

}  // namespace zx::ha
