// A local lab: real PostgreSQL and Redis servers with replication, Sentinels and a zx.toml, in one
// directory, for demonstrations and for tests. It survives the process that made it.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/units.h"

namespace zx::lab {

inline constexpr int kDefaultNodes = 3;
inline constexpr int kDefaultRedis = 3;
inline constexpr int kDefaultSentinels = 3;
inline constexpr int kMostNodes = 8;  // of each kind

enum class Server { postgresql, redis, sentinel };
// Of a name such as pg-a, redis-a or sentinel-a.
[[nodiscard]] Server server_of(const std::string& name);

struct Options {
  std::string dir;                  // empty: default_dir()
  std::optional<int> pg;            // servers; absent: as many as there are, one an address, or 3
  std::optional<int> redis;         // absent: as many as there are, or 3, or none with addresses
  std::optional<int> sentinel;      // absent: as many as there are, or 3 where there is Redis
  std::vector<std::string> listen;  // numeric addresses of this host, one a server; empty: loopback
  // More lines of every Redis server's configuration file, in the place of its own of that name.
  std::string redis_settings;
  Millis deadline{60'000};
  std::function<bool()> cancelled;  // asked now and then, also by other threads
};
// Sentences for people, on the calling thread.
using Progress = std::function<void(const std::string&)>;

struct Node {
  std::string name;  // pg-a, pg-b, …, redis-a, …, sentinel-a, …
  std::string host;  // numeric address
  int port = 0;
  std::string data_dir;
  std::string log;
  pid_t pid = 0;           // of the postmaster, redis-server; 0: not running
  bool is_paused = false;  // by SIGSTOP
  // primary | standby, by standby.signal; master | replica, by redis.conf; sentinel; unknown when
  // its files are not there.
  std::string role;
  bool is_fenced = false;  // zx's fence record is there
  [[nodiscard]] bool is_running() const { return pid != 0; }
};

// A finished lab. Holds no resources: servers run on, and several processes may look at one lab.
class Lab {
 public:
  struct Member {
    std::string name;
    std::string host;
    int port = 0;
  };
  Lab(std::string dir, std::vector<Member> members)
      : dir_(std::move(dir)), members_(std::move(members)) {}

  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] const std::vector<Member>& members() const { return members_; }
  [[nodiscard]] std::string config_path() const;
  // The superuser's passfile, mode 0600, of the user that made the lab.
  [[nodiscard]] std::string passfile() const;
  // Files of mode 0600 with the password of the Redis servers, and of the Sentinels.
  [[nodiscard]] std::string redis_password_file() const;
  [[nodiscard]] std::string sentinel_password_file() const;
  // For libpq, as the superuser; names the passfile, holds no password. Empty for an unknown node.
  [[nodiscard]] std::string conninfo(const std::string& node,
                                     const std::string& database = "postgres") const;

  // As they are now, by /proc and the data directories: no connection is made.
  [[nodiscard]] Result<std::vector<Node>> nodes() const;
  [[nodiscard]] Result<Node> node(const std::string& name) const;

  // SIGKILL, SIGSTOP and SIGCONT go to the server and its children, SIGKILL until none is left; any
  // other signal goes to the server itself only, and its effect is not waited for. Returns how
  // many processes were signalled; 0: it was not running.
  [[nodiscard]] Result<int> kill(const std::string& node, int signal = SIGKILL) const;
  // As a supervisor would: the data directory as it is. True when it was started, false when it ran
  // already. Code::refused while it is paused, Code::locked while `up` or `down` is at work.
  [[nodiscard]] Result<bool> start(const std::string& node, Millis deadline = Millis(60'000)) const;

 private:
  std::string dir_;  // absolute
  std::vector<Member> members_;
};

// /tmp/zx-lab-UID.
[[nodiscard]] std::string default_dir();

struct Up {
  Lab lab;
  bool was_built = false;            // else it was there
  std::vector<std::string> started;  // names of the servers that this call started
  std::vector<std::string> were_running;
};
// Builds the lab, or starts what does not run of the one that is there; never deletes data of a
// finished lab. What a killed `up` left is swept first. Code::refused for a directory that is not a
// lab or a lab of another shape, Code::locked when another call is at work in it.
[[nodiscard]] Result<Up> up(const Options& options, const Progress& progress = {});

// Code::not_found when there is no lab, or an unfinished one.
[[nodiscard]] Result<Lab> open(const std::string& dir);

struct Down {
  std::string dir;                // absolute
  int ended = 0;                  // processes that were there
  bool was_there = false;         // there is a lab, finished or not
  bool is_removed = false;        // the directory is gone
  std::vector<std::string> kept;  // files in it that are none of the lab's, so that it was kept
};
// Ends every process of the lab at once, whoever started it and however broken the lab is. With
// `remove` its files go too. No error when there is no lab.
[[nodiscard]] Result<Down> down(const std::string& dir, bool remove,
                                Millis deadline = Millis(30'000));

}  // namespace zx::lab
