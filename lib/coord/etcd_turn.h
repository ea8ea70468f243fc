// Private to this room: the turn of a cluster as a key in etcd.
#pragma once

#include <string>

#include "lib/coord/etcd_client.h"

namespace zx::coord {

// A key of ours; whoever still finds it with this create_revision knows that nobody else had it.
struct TurnKey {
  std::string key;
  std::string text;
  std::int64_t created = 0;
};

struct TurnAsk {
  std::string prefix, name, command;
  std::int64_t lease = 0;
  std::int64_t lead = 0;  // the token of the agent that asks; 0: of a person
  bool is_urgent = false;
};
// One transaction. Code::locked when somebody else has the turn, refused when the lead is lost.
// After any other error the key may be there, on that lease: `maybe` has it then. What an earlier
// run of the same lease has left is taken away.
[[nodiscard]] Result<TurnKey> create_turn(EtcdClient& client, const TurnAsk& ask, Deadline deadline,
                                          TurnKey* maybe);
// Tells whoever has it to give way.
[[nodiscard]] Status want_turn(EtcdClient& client, const TurnAsk& ask, Deadline deadline);
// Was that said since this turn was taken?
[[nodiscard]] Result<bool> is_turn_wanted(EtcdClient& client, const std::string& prefix,
                                          const std::string& name, const TurnKey& turn,
                                          Deadline deadline);
// Only the one with that text. Not an error when it has gone.
[[nodiscard]] Status drop_turn(EtcdClient& client, const TurnKey& turn, Deadline deadline);
// Code::locked when somebody has it.
[[nodiscard]] Status is_turn_free(EtcdClient& client, const std::string& prefix,
                                  const std::string& name, Deadline deadline);

}  // namespace zx::coord
