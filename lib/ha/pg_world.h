// Every effect that a plan for PostgreSQL can have, behind one seam: real servers and hosts in
// production, model nodes in a simulation.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/coord/coordinator.h"
#include "lib/ha/all_at_once.h"
#include "lib/pg/admin.h"
#include "lib/pg/facts.h"

namespace zx::ha {

class PgWorld {
 public:
  virtual ~PgWorld() = default;
  [[nodiscard]] virtual const config::Config& config() const = 0;
  [[nodiscard]] virtual const config::PgCluster& cluster() const = 0;

  // Only the named nodes; all when empty.
  [[nodiscard]] virtual pg::Snapshot observe(const std::vector<std::string>& nodes,
                                             Millis deadline) = 0;
  // A node operation (lib/pg/node_ops.h) on the node's host; "dir" is filled in.
  [[nodiscard]] virtual Result<Json> on_host_of(const std::string& node, const std::string& op,
                                                Json request, Millis deadline) = 0;
  // Looks at `node` from every host that has a `remote` of its own, all at once.
  [[nodiscard]] virtual std::vector<pg::Testimony> ask_around(const std::string& node,
                                                              Millis deadline) = 0;
  [[nodiscard]] virtual bool refuses(const std::string& node, int tries, Millis apart,
                                     Millis deadline) = 0;

  [[nodiscard]] virtual Result<pg::CurrentUpstream> current_upstream(const std::string& node,
                                                                     Deadline d) = 0;
  [[nodiscard]] virtual Result<pg::Frozen> freeze(const std::string& node, Deadline d) = 0;
  // `conninfo` without a password; with `add_password` the replication user's is added on the way:
  // in a passfile on the node's host, or, where nobody can write one, in the connection string.
  [[nodiscard]] virtual Status set_upstream(const std::string& node, const std::string& conninfo,
                                            const std::string& slot, bool add_password,
                                            Deadline d) = 0;
  [[nodiscard]] virtual Result<pg::Receiver> wait_streaming(const std::string& node,
                                                            const std::string& from,
                                                            Deadline d) = 0;
  [[nodiscard]] virtual Result<pg::Promoted> promote(const std::string& node,
                                                     const std::function<Status()>& before,
                                                     Deadline d) = 0;
  [[nodiscard]] virtual Status write_canary(const std::string& node, const std::string& text,
                                            Deadline d) = 0;
  [[nodiscard]] virtual Result<std::vector<std::string>> make_slots(
      const std::string& node, const std::vector<std::string>& slots, Deadline d) = 0;
  [[nodiscard]] virtual Result<std::vector<std::string>> drop_slots(
      const std::string& node, const std::vector<std::string>& slots, Deadline d) = 0;
  // What it sees it goes on seeing: it holds connections, as an agent does.
  [[nodiscard]] virtual bool watches() const { return false; }
  [[nodiscard]] virtual Status set_sync_names(const std::string& node, const std::string& names,
                                              Deadline d) = 0;
  [[nodiscard]] virtual Status checkpoint(const std::string& node, Deadline d) = 0;

  // That `command` is at work, said by `nodes` themselves, see pg_claim.h. Null: nobody says it.
  [[nodiscard]] virtual Result<std::unique_ptr<coord::Lease>> claim(const std::vector<std::string>&,
                                                                    const std::string&, Deadline) {
    return std::unique_ptr<coord::Lease>();
  }

  // What is shared with all hosts; null when this world shares nothing.
  [[nodiscard]] virtual coord::Shared* shared() { return nullptr; }

  // The lease of the node's guard, see lib/coord/coordinator.h. Without a coordinator no node has
  // one.
  [[nodiscard]] virtual Result<coord::GuardState> guard(const std::string&) {
    return coord::GuardState{};
  }
  [[nodiscard]] virtual Status bar(const std::string& node) {
    return fail(Code::not_found, node + " has no guard");
  }
};

// `holds`: it belongs to a process that goes on looking, observe() holds its connections, and is
// for one thread.
enum class Looking { once, holds };
// All must outlive it; `shared` may be null: then no guard is known.
[[nodiscard]] std::unique_ptr<PgWorld> real_world(const config::Config& config,
                                                  const config::PgCluster& cluster,
                                                  coord::Shared* shared = nullptr,
                                                  Looking looking = Looking::once);

// A connection string with which `node` follows `upstream`: `base` (may be empty) pointed there.
[[nodiscard]] std::string follow_conninfo(const config::Config& config,
                                          const config::PgCluster& cluster, const std::string& base,
                                          const std::string& node, const std::string& upstream);

}  // namespace zx::ha
