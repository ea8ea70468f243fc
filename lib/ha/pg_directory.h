// What a node's host found in its data directory, and whether zx may act on it. Pure.
#pragma once

#include <string>

#include "lib/config/config.h"
#include "lib/pg/facts.h"

namespace zx::ha {

// Why what the host found in data_dir cannot be the directory of the server that is meant; empty
// when nothing speaks against it.
[[nodiscard]] std::string wrong_directory(const pg::Snapshot& snapshot, const std::string& node);
// The part of it that needs no other node: a server of another port runs there.
[[nodiscard]] std::string another_server(const pg::NodeFacts& facts, const pg::LocalFacts& local);

// Before anything is stopped there: can zx look into the directory, is it one of PostgreSQL's, and
// are PostgreSQL's programs where zx.toml says?
[[nodiscard]] Status can_work_on(const config::PgCluster& cluster, const std::string& node,
                                 const pg::LocalFacts& local);

// Why only a fresh copy can make `node` a standby of `primary`; empty when a rewind may do: an
// interrupted rewind, an empty directory, WAL that the primary has removed, or two lines whose
// timelines have one number.
[[nodiscard]] std::string must_rebuild(const pg::NodeFacts& node, const pg::NodeFacts& primary);
// Two lines have begun timelines of one number: a standby of the one that ended would go on with
// the other where it stands, and the servers do not see it. So `node` comes back only when nobody
// follows it who is on its old line. Why not yet; empty when nothing speaks against it.
[[nodiscard]] std::string why_not_yet(const pg::Snapshot& snapshot, const pg::NodeFacts& node,
                                      const pg::NodeFacts& primary);
[[nodiscard]] std::string rebuild_hint(const std::string& node);

}  // namespace zx::ha
