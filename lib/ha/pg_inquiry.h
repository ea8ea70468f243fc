// What hosts say of a primary that does not answer here: other hosts whether they reach it, its own
// what is in its data directory.
#pragma once

#include <string>
#include <vector>

#include "lib/ha/pg_world.h"

namespace zx::ha {

// What the node's own host says, within the deadline, into `facts`.
void look_on_host(PgWorld& world, pg::NodeFacts& facts, const std::optional<Lsn>& wal_from,
                  Millis deadline);
// The same of a primary that does not answer: how far its WAL goes beyond what the standbys of the
// snapshot have, and whether the directory there is its own.
void look_at_old_primary(PgWorld& world, const pg::Snapshot& snapshot, pg::NodeFacts& old,
                         Millis deadline);

struct Inquiry {
  std::string node;
  Monotonic began{};
  std::vector<pg::Testimony> testimonies;
  pg::NodeFacts old;  // `local`, or `local_error`
};
// Asks all of them at once. Has no effect.
[[nodiscard]] Inquiry inquire(PgWorld& world, const pg::Snapshot& snapshot, const std::string& node,
                              Millis deadline);
// Into what was seen since; it is to be judged anew.
void add(pg::Snapshot& snapshot, const Inquiry& inquiry);

}  // namespace zx::ha
