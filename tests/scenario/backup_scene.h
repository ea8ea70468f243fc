// What tests of backups under faults do to a platform: servers that keep a dump waiting, disks that
// are small or read-only, and eyes on what every process shows of itself.
#pragma once

#include <sys/mount.h>
#include <sys/stat.h>

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/scenario/platform.h"

namespace zx::test {

inline bool has(const std::string& text, const std::string& words) {
  return text.find(words) != std::string::npos;
}

// While it is there, a dump of zx_rows waits.
class LockedTable {
 public:
  LockedTable(const Platform& platform, const std::string& database) : platform_(platform) {
    const auto deadline = Deadline::after(kPatience);
    auto client = pg::Client::open(platform.target(database), deadline);
    REQUIRE_MESSAGE(client.has_value(), (client ? "" : client.error().error.message));
    client_ = std::make_unique<pg::Client>(*std::move(client));
    const auto locked =
        client_->query("BEGIN; LOCK TABLE public.zx_rows IN ACCESS EXCLUSIVE MODE", deadline);
    REQUIRE_MESSAGE(locked.has_value(), (locked ? "" : locked.error().error.message));
  }
  // Until pg_dump stands before it.
  [[nodiscard]] bool is_waited_for() const {
    return eventually([&] {
      return platform_.sql(
                 "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type ="
                 " 'Lock' AND query LIKE 'LOCK TABLE%'") == "t";
    });
  }

 private:
  const Platform& platform_;
  std::unique_ptr<pg::Client> client_;
};

// Changes zx.toml, and takes that back.
class Configured {
 public:
  Configured(const Platform& platform, const std::string& from, const std::string& to)
      : path_(platform.config()), before_(read(path_)) {
    edit(path_, from, to);
  }
  ~Configured() { write(path_, before_); }
  Configured(const Configured&) = delete;
  Configured& operator=(const Configured&) = delete;

 private:
  std::string path_, before_;
};

inline std::string databases_in(const Platform& platform) {
  for (const auto& line : lines_of(read(platform.config())))
    if (line.starts_with("databases = ")) return line;
  FAIL("zx.toml names no databases");
  return {};
}

// As zx backup list tells of it.
inline Json listed(const Platform& platform, const std::string& id) {
  const auto json = platform.zx_json({"backup", "list"});
  for (const auto& set : json["sets"])
    if (set["id"] == id) return set;
  FAIL("no set " << id);
  return {};
}

// The run that has no end yet, of that command; empty: none.
inline std::string unfinished_run(const Platform& platform, const std::string& command = {}) {
  const auto json = platform.zx_json({"runs", "list"});
  for (const auto& run : json["runs"])
    if (run["outcome"] == "unfinished" && (command.empty() || run["command"] == command))
      return run["run"].get<std::string>();
  return {};
}

// Its id, after kill -9 once it has written that line of its journal.
inline std::string killed_at(const Platform& platform, int line,
                             const std::vector<std::string>& words) {
  REQUIRE(platform.zx_killed_in("fdatasync", line, words).signal == SIGKILL);
  const auto run = unfinished_run(platform);
  REQUIRE(run != "");
  return run;
}

inline Background in_background(const Platform& platform, std::vector<std::string> words) {
  words.insert(words.begin(), {ZX_BINARY, "-c", platform.config()});
  return Background(words, {"HOME=/nonexistent"});
}

inline std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);  // of /proc: it may be gone
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Programs of PostgreSQL that a zx of this platform has started.
inline std::vector<std::string> dumps_of(const Platform& platform) {
  const auto port = fmt::format("PGPORT={}", platform.target("postgres").port) + '\0';
  std::vector<std::string> pids;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const auto environment = content_of(entry.path() / "environ");
    if (has(environment, port) && has(environment, "PGAPPNAME=zx"))
      pids.push_back(entry.path().filename());
  }
  return pids;
}

// Nothing of a password is left for a later zx to clear away.
inline bool has_no_passfile(const Platform& platform) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(platform.state_dir()))
    if (has(entry.path().filename(), "pgpass")) return false;
  return true;
}

// Passwords of the lab: of each file of secrets/ the last field.
inline std::set<std::string> secrets_of(const Platform& platform) {
  std::set<std::string> words;
  for (const auto& entry : std::filesystem::directory_iterator(platform.lab().dir() + "/secrets"))
    for (const auto& line : lines_of(read(entry.path()))) {
      const std::string word(trim(line.substr(line.rfind(':') + 1)));
      if (word.size() >= 16) words.insert(word);
    }
  REQUIRE_FALSE(words.empty());
  return words;
}

// Reads the command lines of all processes again and again.
class Watcher {
 public:
  explicit Watcher(std::set<std::string> secrets)
      : secrets_(std::move(secrets)), thread_([this] { watch(); }) {}
  ~Watcher() { stop(); }
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  void stop() {
    done_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // After stop().
  [[nodiscard]] const std::set<std::string>& told() const { return told_; }
  [[nodiscard]] int dumps() const { return dumps_; }

 private:
  void watch() {
    while (!done_) {
      std::error_code ignored;
      for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
        const auto line = content_of(entry.path() / "cmdline");
        dumps_ += has(line, "pg_dump") ? 1 : 0;
        for (const auto& secret : secrets_)
          if (has(line, secret)) told_.insert(line);
      }
      pause_for(Millis(2));
    }
  }
  std::set<std::string> secrets_, told_;
  int dumps_ = 0;
  std::atomic<bool> done_{false};
  std::thread thread_;
};

// A command that fails must say `words` and what to do, and leave the repository as it was.
inline std::string makes_no_set(const Platform& platform, int exit,
                                const std::vector<std::string>& words,
                                const std::vector<std::string>& command = {"backup", "run"}) {
  const auto before = platform.ids();
  const auto result = platform.zx(command);
  CHECK_MESSAGE(result.exit == exit, (result.out + result.err));
  for (const auto& word : words) CHECK_MESSAGE(has(result.err, word), (word + ": " + result.err));
  CHECK(platform.leavings() == "");
  CHECK(platform.ids() == before);
  CHECK(platform.damage() == "");
  return result.err;
}

// As Platform::everything() tells it.
using State = std::map<std::string, std::string>;

// "zhi_xuan_user public.zx_rows" → "zhi_xuan_user", "/…/app/uploads/2026/a" → "/…/app/uploads"
inline std::string whole_of(const Platform& platform, const std::string& what) {
  const auto apps = platform.lab().dir() + "/app/";
  return what.starts_with(apps) ? what.substr(0, what.find('/', apps.size()))
                                : what.substr(0, what.find(' '));
}

// Databases, trees and keys, each with all that it has.
inline std::map<std::string, State> wholes(const Platform& platform, const State& all) {
  std::map<std::string, State> parts;
  for (const auto& [what, state] : all) parts[whole_of(platform, what)][what] = state;
  return parts;
}

// What is neither as it was nor as the set has it.
inline std::string mixed(const Platform& platform, const State& before, const State& good) {
  const auto now = wholes(platform, platform.everything());
  const auto old = wholes(platform, before), fresh = wholes(platform, good);
  std::string words;
  for (const auto& [part, state] : now)
    if ((!old.contains(part) || old.at(part) != state) &&
        (!fresh.contains(part) || fresh.at(part) != state))
      words += part + "\n";
  for (const auto& [part, state] : old)
    // Between two renames a tree has its other name.
    if (!now.contains(part) && !part.starts_with('/')) words += part + " is gone\n";
  return words;
}

// A mount that is gone at the end. Only root can have one: is_there() tells.
class Mount {
 public:
  static Mount of_memory(const std::string& at, const std::string& options) {
    std::filesystem::create_directories(at);
    return {at, mount("tmpfs", at.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()) == 0};
  }
  static Mount read_only(const std::string& at) {
    if (mount(at.c_str(), at.c_str(), nullptr, MS_BIND, nullptr) != 0) return {at, false};
    Mount made(at, true);
    REQUIRE(mount(nullptr, at.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0);
    return made;
  }
  Mount(Mount&& other) noexcept
      : at_(other.at_), is_there_(std::exchange(other.is_there_, false)) {}
  Mount& operator=(Mount&&) = delete;
  ~Mount() {
    if (is_there_) umount2(at_.c_str(), MNT_DETACH);
  }
  [[nodiscard]] bool is_there() const { return is_there_; }

 private:
  Mount(std::string at, bool is_there) : at_(std::move(at)), is_there_(is_there) {}
  std::string at_;
  bool is_there_;
};

}  // namespace zx::test
