// What zx does to a Redis server on the host that has it: by its directory, its configuration file
// and its processes. Runs there, as root or as the directory's owner: from `zx node …`, or in this
// process when the host is this one.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/json.h"
#include "lib/config/config.h"
#include "lib/os/process.h"
#include "lib/redis/facts.h"

namespace zx::redis {

// Which server, and how it is started. From the configuration, or as the server last said itself;
// sent along with every request.
struct ServerDir {
  std::string node;
  std::string path;         // `dir` of the server
  std::string config_file;  // redis.conf; empty: not known
  std::string bin_dir;
  std::string address;  // where it listens
  int port = 0;
  std::string service;             // systemd unit, or
  std::vector<std::string> start;  // argv, or neither: zx starts `redis-server` itself
  std::vector<std::string> stop;
};
[[nodiscard]] ServerDir server_dir_of(const config::Config& config,
                                      const config::RedisDeployment& deployment,
                                      const config::RedisNode& node);
[[nodiscard]] Json to_json(const ServerDir& dir);
[[nodiscard]] Result<ServerDir> server_dir_from_json(const Json& json);

// Never fails: what could not be had is named in LocalFacts::problem.
[[nodiscard]] LocalFacts inspect(const ServerDir& dir);

// The server of this directory and port, with the processes it has forked.
[[nodiscard]] Result<std::vector<os::FoundProcess>> server_processes(const ServerDir& dir);

// Whom a configuration file says to follow. Pure; `text` is the whole file.
struct Follows {
  std::string host;
  int port = 0;
  bool operator==(const Follows&) const = default;
};
[[nodiscard]] std::optional<Follows> follows_in(std::string_view text);
// The same file with that in place of what it said; absent: of a master. Pure.
[[nodiscard]] std::string with_follows(std::string_view text,
                                       const std::optional<Follows>& follows);

// Fence: from here on a start of this server is a replica's of `to`, and no process that could have
// been started as a master is left. The configuration file is made durable first: a server reads it
// before it enters its directory, so one that is not seen there after that will find it. SIGKILL: a
// server that hangs or cannot save hears nothing else, and what it has that no replica has is given
// up by the failover. Code::config without a configuration file: a start could be a master's.
struct FenceReport {
  int ended = 0;            // processes that were there
  bool was_fenced = false;  // by an earlier call
};
[[nodiscard]] Result<FenceReport> fence(const ServerDir& dir, const Follows& to,
                                        const std::string& run, Deadline deadline);
// Takes back what fence() of `run` did to the files; does not start the server. Another run's fence
// stays.
[[nodiscard]] Status unfence(const ServerDir& dir, const std::string& run);
// The fence record goes, the configuration stays: the server is a replica for good.
[[nodiscard]] Status forget_fence(const ServerDir& dir);

// Stops it: through its supervisor, else SIGTERM, on which a server saves as it is configured to;
// SIGKILL at three quarters of the deadline. True when it ended by itself.
[[nodiscard]] Result<bool> stop(const ServerDir& dir, Deadline deadline);
// Starts it as configured and waits until it accepts connections; it may be loading still. An Error
// has the end of what it said.
[[nodiscard]] Status start(const ServerDir& dir, Deadline deadline);

}  // namespace zx::redis
