// Changes to a running server over SQL. Each opens its own connection, acts, and reads the effect
// back before it reports success.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/pg/connection.h"
#include "lib/pg/facts.h"

namespace zx::pg {

// primary_conninfo as the server has it, without its password.
struct CurrentUpstream {
  std::string conninfo;
  std::string slot;
  bool had_password = false;
};
[[nodiscard]] Result<CurrentUpstream> current_upstream(const Target& target, Deadline deadline);

// Stops a standby from receiving and waits until its walreceiver is gone, so that its position is
// final: ALTER SYSTEM SET primary_conninfo = '' and a reload; no restart, and it can be promoted.
struct Frozen {
  Lsn position;
  std::uint32_t timeline = 0;
  bool is_end = true;  // false: it still replays WAL from before its start, see knows_its_end()
};
[[nodiscard]] Result<Frozen> freeze(const Target& target, Deadline deadline);

// Sets primary_conninfo and primary_slot_name and reloads. The statement is kept out of the
// server's log, as it may hold a password.
[[nodiscard]] Status set_upstream(const Target& target, const std::string& conninfo,
                                  const std::string& slot, Deadline deadline);

// Waits until the standby streams from `source`, on its timeline when that is known: a walreceiver
// says "streaming" for a moment also when it is about to be told that its timeline is not the
// primary's. Code::failed at once when it waits for WAL that `source` has removed.
[[nodiscard]] Result<Receiver> wait_streaming(const Target& target, const NodeFacts& source,
                                              Deadline deadline);

// Resumes a paused replay first (a promotion asked for while paused fires later), calls
// `before_asking` (an Error of it stops here, with nothing asked), asks for promotion and waits
// until the server has left recovery. Code::timeout: it has been asked and is still in recovery. A
// request that comes to the server late, as after a cut of the network, has no effect.
struct Promoted {
  std::uint32_t timeline = 0;
  bool replay_was_paused = false;
};
[[nodiscard]] Result<Promoted> promote(const Target& target,
                                       const std::function<Status()>& before_asking,
                                       Deadline deadline);
[[nodiscard]] Result<bool> is_in_recovery(const Target& target, Deadline deadline);

// A real commit that needs no table and waits for no standby: pg_logical_emit_message.
[[nodiscard]] Status write_canary(const Target& target, const std::string& text, Deadline deadline);

// Physical slots: makes those of `wanted` that are missing, removes the inactive ones of
// `unwanted`.
[[nodiscard]] Result<std::vector<std::string>> make_slots(const Target& target,
                                                          const std::vector<std::string>& wanted,
                                                          Deadline deadline);
[[nodiscard]] Result<std::vector<std::string>> drop_slots(const Target& target,
                                                          const std::vector<std::string>& unwanted,
                                                          Deadline deadline);
// The name of the slot for `node`. PostgreSQL accepts lower case letters, digits and '_': '-'
// becomes
// '_', anything else too, with a hash behind it, so that no two nodes share one.
[[nodiscard]] std::string slot_name_of(const std::string& node);

// Until who connects next sees it.
[[nodiscard]] Status set_sync_names(const Target& target, const std::string& names,
                                    Deadline deadline);
[[nodiscard]] Status checkpoint(const Target& target, Deadline deadline);

}  // namespace zx::pg
