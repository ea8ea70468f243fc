// Which of several agents may act, what the others see, and the few facts that they share.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/json.h"
#include "lib/base/units.h"
#include "lib/coord/lock.h"

namespace zx::coord {

struct Standing {
  enum class Role { leader, follower, cut_off };
  Role role = Role::cut_off;
  std::string leader;      // the leading agent's name; empty when nobody leads or it is not known
  std::int64_t token = 0;  // the fencing token of a leader: higher with every change of leader
  std::string why;         // of cut_off
};

// What another agent said last about what it sees.
struct Vote {
  std::string agent;
  std::string region;
  Json saw;
  Millis age{0};  // since it was seen to change, by our own clock; it was made a moment before
};

struct Value {
  std::string text;
  std::int64_t version = 0;  // 0: there is no such key
};

// The guard of a database host, as its lease tells. See guard_lease.h for what it proves.
struct GuardState {
  enum class Kind {
    unguarded,  // no guard ever registered for this node: its silence says nothing
    held,       // a guard renewed its lease less than a ttl ago
    run_out,    // a guard registered, and has not renewed for so long, or its lease is gone
  };
  Kind kind = Kind::unguarded;
  Millis since{0};  // on our own clock, since we first saw its last renewal, or the lease gone
  Millis ttl{0};    // as the guard registered them
  Millis stop_margin{0};
  Millis reply_within{0};
  bool barred = false;  // no guard of this node can get or renew a lease, see Coordinator::bar()

  // Whoever held the lease knows by now that it has run out, even if it was taken away before its
  // time: a whole ttl has passed since, with a hundredth for clocks that run apart.
  [[nodiscard]] bool has_passed() const { return since >= ttl + ttl / 100; }
  [[nodiscard]] bool is_proof() const { return kind == Kind::run_out && barred && has_passed(); }
};

// What agents and persons on all hosts share. All members may be called from any thread, and wait
// for the coordinator, within a short deadline.
class Shared {
 public:
  virtual ~Shared() = default;

  // For one run on `name`, such as "pg.main", by `command`: nobody else, person or agent, on any
  // host is at work on it. Beside the lock of this host, which the caller holds. Code::locked at
  // once, naming the holder, when somebody else has it; any other error: the coordinator could not
  // be asked. The lease's check() asks the coordinator itself whether the turn is still ours; it is
  // refused at once when our time has run out by the local clock, as in a process that was stopped
  // and continued; refused once, it stays so. check() of one lease belongs to one thread. Its end
  // gives the turn back; that of a process that was killed runs out. `is_urgent`: a person who has
  // it is told so, see Lease::is_wanted().
  [[nodiscard]] virtual Result<std::unique_ptr<Lease>> take_turn(const std::string& name,
                                                                 const std::string& command,
                                                                 bool is_urgent) = 0;
  // The error that take_turn() would give now; takes nothing.
  [[nodiscard]] virtual Status is_turn_free(const std::string& name) = 0;

  [[nodiscard]] virtual Result<Value> get(const std::string& key) = 0;
  // Only while the key is at `version` (0: while there is none), else Code::locked. After
  // Code::unreachable or timeout it may have been written, or may be yet: get() tells.
  [[nodiscard]] virtual Status put(const std::string& key, const std::string& text,
                                   std::int64_t version) = 0;

  // The guard of `node`, asked now.
  [[nodiscard]] virtual Result<GuardState> guard(const std::string& node) = 0;
  // From now on no guard of `node` gets or renews a lease: without it a guard could come back, and
  // its server serve, after guard() said run_out. Code::refused while it is held, or when neither
  // this agent leads nor this person has a turn; not_found when the node has no guard. Durable,
  // until unbar(); may be repeated.
  [[nodiscard]] virtual Status bar(const std::string& node) = 0;
  // After the node's server follows the new primary. Not an error when it was not barred.
  [[nodiscard]] virtual Status unbar(const std::string& node) = 0;
};

// Of an agent. Its take_turn() is lead() as well: Code::locked also when another agent leads.
class Coordinator : public Shared {
 public:
  // As known now; never waits.
  [[nodiscard]] virtual Standing standing() = 0;

  // For one run. Code::locked when another agent leads, Code::unreachable when the coordinator
  // cannot be asked. The lease's check() asks the coordinator itself, within a short deadline,
  // whether the fencing token still holds; it is refused at once when our time has run out by the
  // local clock, as in a process that was stopped and continued; refused once, it stays so. The
  // lease may outlive the coordinator, and is lost then. check() of one lease belongs to one
  // thread.
  [[nodiscard]] virtual Result<std::unique_ptr<Lease>> lead() = 0;

  // What this agent sees now, to be called after every look, also when nothing changed: a vote
  // that is not renewed fades. Its keys take the place of those of earlier votes; the others, of
  // other clusters, stay. Published in the background; never waits.
  virtual void vote(const Json& saw) = 0;
  // Of the other agents, as known now, only those renewed lately by our own clock; never waits.
  [[nodiscard]] virtual std::vector<Vote> votes() = 0;
};

// All agents run on one host: the leader is the one that holds state_dir/locks/agent.lock, which
// the kernel drops with its process. standing() takes it as soon as it is free. Shared facts are
// files in state_dir/shared. There are no votes and no guards of other hosts. The lock of this host
// is all the turn there is.
[[nodiscard]] Result<std::unique_ptr<Coordinator>> file_coordinator(const std::string& state_dir,
                                                                    const std::string& name);
// For a person on that host.
[[nodiscard]] std::unique_ptr<Shared> file_shared(const std::string& state_dir);

}  // namespace zx::coord
