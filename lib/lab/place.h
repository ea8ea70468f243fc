// The directory of a lab: whose it is, what lies where in it, and what runs in it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/error.h"
#include "lib/lab/lab.h"
#include "lib/os/file_lock.h"
#include "lib/os/process.h"
#include "lib/pg/data_dir.h"

namespace zx::lab {

// DIR/zx-lab.lock   makes the directory a lab, and is its lock
// DIR/lab.json      written last: the lab is finished
// DIR/zx.toml
// DIR/secrets/      0700, of the user that made the lab
// DIR/state/        zx's own
// DIR/logs/         what servers say before they have their own log
// DIR/backups/      the repository of zx backup
// DIR/app/          files of an application that backups hold: config/, uploads/
// DIR/pg-a/         of the servers' user: data/, server.log, replicator.pgpass
// DIR/redis-a/      of the servers' user: data/, server.log, redis.conf; DIR/sentinel-a/ likewise
struct Place {
  std::string dir;
  [[nodiscard]] std::string marker() const { return dir + "/zx-lab.lock"; }
  [[nodiscard]] std::string record() const { return dir + "/lab.json"; }
  [[nodiscard]] std::string config() const { return dir + "/zx.toml"; }
  [[nodiscard]] std::string secrets() const { return dir + "/secrets"; }
  [[nodiscard]] std::string secret(const std::string& name) const { return secrets() + "/" + name; }
  [[nodiscard]] std::string state() const { return dir + "/state"; }
  [[nodiscard]] std::string backups() const { return dir + "/backups"; }
  [[nodiscard]] std::string app() const { return dir + "/app"; }
  [[nodiscard]] std::string logs() const { return dir + "/logs"; }
  [[nodiscard]] std::string start_log(const std::string& node) const {
    return logs() + "/" + node + "-start.log";
  }
  // The process that `zx lab kill` has told to end.
  [[nodiscard]] std::string told_to_end(const std::string& node) const {
    return state() + "/" + node + ".ending";
  }
  [[nodiscard]] std::string home(const std::string& node) const { return dir + "/" + node; }
  [[nodiscard]] std::string data(const std::string& node) const { return home(node) + "/data"; }
  [[nodiscard]] std::string log(const std::string& node) const {
    return home(node) + "/server.log";
  }
  // Of a Redis server or a Sentinel; both rewrite it.
  [[nodiscard]] std::string redis_config(const std::string& node) const {
    return home(node) + (server_of(node) == Server::sentinel ? "/sentinel.conf" : "/redis.conf");
  }
  [[nodiscard]] std::string replication_passfile(const std::string& node) const {
    return home(node) + "/replicator.pgpass";
  }
  [[nodiscard]] pg::DataDir data_dir(const std::string& node) const;
};

inline constexpr const char* kSuperuser = "zx";
inline constexpr const char* kReplicator = "replicator";
inline constexpr const char* kSuperuserPassword = "zx.pass";
inline constexpr const char* kReplicatorPassword = "replicator.pass";
inline constexpr const char* kSuperuserPassfile = "zx.pgpass";

[[nodiscard]] std::string node_name(Server kind, int index);  // "pg-a", "redis-a", "sentinel-a"
[[nodiscard]] bool is_node_name(const std::string& name);
[[nodiscard]] std::string bin_dir();

// Absolute, without links in it, so that the same lab always has the same path.
[[nodiscard]] Result<Place> place_of(const std::string& dir);

enum class Kind { absent, empty, ours };
// Code::refused when something else is there, or when it belongs to another user.
[[nodiscard]] Result<Kind> look(const Place& place);

// Makes the directory when it is absent, and takes it: from here on it is a lab. Code::locked.
[[nodiscard]] Result<os::FileLock> take(const Place& place, const std::string& what);

// Whom servers run as. Nothing: as oneself, who is not root.
[[nodiscard]] Result<std::optional<os::User>> server_user();
// The user can enter the directory; else Code::auth with the parent that keeps it out.
[[nodiscard]] Status check_reachable(const std::string& dir, const std::optional<os::User>& user);

// Finished labs only: Code::not_found else.
[[nodiscard]] Result<std::vector<Lab::Member>> read_record(const Place& place);
[[nodiscard]] Status write_record(const Place& place, const std::vector<Lab::Member>& members);

// Ends servers and the tools of an interrupted `up`, by their working directory. Returns how many
// processes there were.
[[nodiscard]] Result<int> stop_everything(const Place& place, Deadline deadline);
// Removes all that a lab makes, but not the marker. Returns what else is there.
[[nodiscard]] Result<std::vector<std::string>> remove_contents(const Place& place);

}  // namespace zx::lab
