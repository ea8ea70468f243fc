// Private to this room: the sessions in which a set is loaded. No timeout of the server ends them,
// and where the role may say so its words are English, as zx tells them apart.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/base/clock.h"
#include "lib/pg/connection.h"

namespace zx::backup {

using Settings = std::vector<std::pair<std::string, std::string>>;

struct LoadSession {
  pg::Client client;
  int version = 0;    // 150018
  Settings settings;  // that further sessions of this role may be given

  [[nodiscard]] static Result<LoadSession> open(const pg::Target& target, Deadline until);
  // No statement is written to the server's log from here on. Returns the settings that the role
  // may not change although the log may show statements by them.
  [[nodiscard]] Result<std::vector<std::string>> keep_out_of_log(const pg::Target& target,
                                                                 Deadline until);
};

// Why a statement was refused. Code::failed for what the server says of the statement itself, and
// of nothing else: config and disk_full when this host or server lacks something, timeout,
// unreachable, shutting_down, … when it could not be asked.
[[nodiscard]] Error refusal_of(const pg::Target& target, const pg::Failed& failed,
                               const std::string& what);

}  // namespace zx::backup
