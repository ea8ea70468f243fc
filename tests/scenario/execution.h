// Faults of execution: zx killed at a chosen line of its journal, and what is asked of a cluster
// afterwards.
#pragma once

#include <algorithm>
#include <atomic>
#include <thread>

#include "lib/pg/observe.h"
#include "lib/run/journal.h"
#include "tests/scenario/cluster.h"
#include "tests/scenario/faults.h"
#include "tests/scenario/traced.h"

namespace zx::test {

inline os::ProcessResult zx_under(const Cluster& cluster, const std::string& inject,
                                  const std::vector<std::string>& words) {
  return run_program(argv_under(cluster.config(), inject, words), traced());
}

// kill -9 of zx right after it has written line `line` of its journal: nothing but the journal
// calls fdatasync. A result without signal: it ended before that.
inline os::ProcessResult zx_killed_at(const Cluster& cluster, int line,
                                      const std::vector<std::string>& words) {
  return zx_under(cluster, fmt::format("fdatasync:signal=SIGKILL:when={}", line), words);
}

inline run::Record newest_run(const Cluster& cluster) {
  const auto runs = run::list_runs(cluster.state_dir(), 1)->runs;
  REQUIRE(!runs.empty());
  return runs.front();
}

inline std::string journal_path(const Cluster& cluster, const std::string& id) {
  return run::runs_directory(cluster.state_dir()) + "/" + id + ".jsonl";
}

inline std::vector<Json> journal(const Cluster& cluster, const std::string& id) {
  std::vector<Json> lines;
  for (const auto& line : lines_of(read(journal_path(cluster, id)))) {
    const auto json = parse_json(line, "a line of the journal");
    REQUIRE_MESSAGE(json.has_value(), line);
    lines.push_back(*json);
  }
  return lines;
}

// Where the newest run stands: "step-done fence".
inline std::string last_event(const Cluster& cluster) {
  const auto line = journal(cluster, newest_run(cluster).id).back();
  return get_string(line, "event") + " " + get_string(line, "step");
}

inline bool tells_of_an_effect(const std::string& event) {
  return event.starts_with("step-done") || event.starts_with("step-skipped") ||
         event.starts_with("end");
}

// As if zx had been killed while it wrote its last line: what the line tells was done.
inline void tear_last_line(const Cluster& cluster) {
  const auto path = journal_path(cluster, newest_run(cluster).id);
  auto text = read(path);
  REQUIRE(text.ends_with("\n"));
  const auto before = text.rfind('\n', text.size() - 2);
  REQUIRE(before != std::string::npos);
  text.resize(before + 1 + (text.size() - before) / 2);
  write(path, text);
}

inline int timeline_of(const Cluster& cluster, const std::string& primary) {
  const auto hex =
      cluster.sql(primary, "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)");
  return std::stoi(hex, nullptr, 16);
}

inline std::string the_primary(const Cluster& cluster) {
  const auto names = cluster.writable();
  REQUIRE_MESSAGE(names.size() == 1,
                  (std::to_string(names.size()) + " writable: " + join(names, " ")));
  return names.front();
}

inline std::vector<std::string> others_than(const Cluster& cluster, const std::string& name) {
  std::vector<std::string> names;
  for (const auto& member : cluster.lab().members())
    if (member.name != name) names.push_back(member.name);
  return names;
}

// All others receive from `primary`, as it sees it.
inline bool all_stream_from(const Cluster& cluster, const std::string& primary) {
  const auto wanted = std::to_string(cluster.lab().members().size() - 1);
  return eventually([&] {
    const auto result = psql(cluster.lab(), primary,
                             "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'");
    return result.ok() && trim(result.out) == wanted;
  });
}

// Replayed, not received: a standby that was restarted has received nothing until there is more.
inline bool has_replayed_all_of(const Cluster& cluster, const std::string& standby,
                                const std::string& primary) {
  const auto end = cluster.sql(primary, "SELECT pg_current_wal_flush_lsn()");
  const auto has = fmt::format("SELECT pg_last_wal_replay_lsn() >= '{}'", end);
  return eventually([&] { return cluster.sql(standby, has) == "t"; });
}

// A standby that has lost its primary asks again every five seconds; here at once.
inline void reconnect_at_once(const Cluster& cluster) {
  for (const auto& member : cluster.lab().members()) {
    cluster.sql(member.name, "ALTER SYSTEM SET wal_retrieve_retry_interval = '100ms'");
    cluster.sql(member.name, "SELECT pg_reload_conf()");
  }
}

// zx WORDS… beside the test; what it prints on stdout and stderr is one text.
inline os::Argv argv_of(const Cluster& cluster, const std::vector<std::string>& words) {
  os::Argv argv{ZX_BINARY, "-c", cluster.config()};
  argv.insert(argv.end(), words.begin(), words.end());
  return argv;
}
// The same, halted after line `line` of its journal; go_on() lets it go on.
class Halted {
 public:
  Halted(const Cluster& cluster, int line, const std::vector<std::string>& words)
      : cluster_(cluster),
        runs_before_(run::list_runs(cluster.state_dir(), 1000)->runs.size()),
        program_(env_argv(cluster, line, words),
                 {"HOME=/nonexistent",
                  traced().environment.front().first + "=" + traced().environment.front().second}) {
    REQUIRE(eventually([&] {
      if (run::list_runs(cluster_.state_dir(), 1000)->runs.size() <= runs_before_) return false;
      return std::ssize(lines_of(read(journal_path(cluster_, newest_run(cluster_).id)))) >= line;
    }));
    run_ = newest_run(cluster_);
  }
  [[nodiscard]] const run::Record& run() const { return run_; }
  void kill() const { REQUIRE(::kill(static_cast<pid_t>(run_.pid), SIGKILL) == 0); }
  void go_on() const { REQUIRE(::kill(static_cast<pid_t>(run_.pid), SIGCONT) == 0); }
  // After go_on().
  int finish() { return program_.finish(); }
  [[nodiscard]] const std::string& output() const { return program_.output(); }

 private:
  static os::Argv env_argv(const Cluster& cluster, int line,
                           const std::vector<std::string>& words) {
    auto argv =
        argv_under(cluster.config(), fmt::format("fdatasync:signal=SIGSTOP:when={}", line), words);
    argv.insert(argv.begin(), "/usr/bin/env");
    return argv;
  }
  const Cluster& cluster_;
  std::size_t runs_before_;
  Background program_;
  run::Record run_;
};

// `node` has commits that the cluster has not, and is down. pg_rewind needs the checkpoint.
inline void diverge(const Cluster& cluster, const std::string& node, int commits = 3) {
  REQUIRE(cluster.sql(node, "SELECT pg_promote()") == "t");
  cluster.sql(node, "CHECKPOINT");
  for (int i = 0; i < commits; ++i)
    cluster.sql(node, "CREATE TABLE abandoned" + std::to_string(i) + " ()");
  cluster.kill(node);
}

// The node streams from the primary and has nothing that the primary has not.
inline void check_rejoined(const Cluster& cluster, const std::string& primary,
                           const std::string& node) {
  CHECK(cluster.writable() == std::vector<std::string>{primary});
  REQUIRE(all_stream_from(cluster, primary));
  CHECK(has_replayed_all_of(cluster, node, primary));
  CHECK(cluster.sql(node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'abandoned%'") == "0");
  // It would be read as a primary's by whoever starts it next.
  CHECK(read(data_dir(cluster, node) + "/standby.signal").empty());
}

// Commits that a standby has acknowledged: none of them may be lost, whatever is killed when.
class Ledger {
 public:
  explicit Ledger(const Cluster& cluster) : cluster_(cluster) {
    cluster.sql(the_primary(cluster), "CREATE TABLE ledger (id int PRIMARY KEY)");
  }
  void commit(const std::string& primary) {
    std::vector<std::string> names;
    for (const auto& name : others_than(cluster_, primary)) names.push_back('"' + name + '"');
    cluster_.sql(primary, fmt::format("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ({})'",
                                      join(names, ", ")));
    cluster_.sql(primary, "SELECT pg_reload_conf()");
    CHECK(eventually([&] {
      return cluster_.sql(primary,
                          "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'") ==
             "2";
    }));
    cluster_.sql(primary, fmt::format("INSERT INTO ledger VALUES ({})", ++rows_));
  }
  [[nodiscard]] bool complete(const std::string& primary) const {
    return cluster_.sql(primary, "SELECT count(*) FROM ledger") == std::to_string(rows_);
  }

 private:
  const Cluster& cluster_;
  int rows_ = 0;
};

// Looks at every node without pause. Two nodes that accept writes in two looks one after the other
// did so at the same time, however long one look took.
class Sampler {
 public:
  explicit Sampler(const Cluster& cluster) {
    auto config = config::load(cluster.config());
    REQUIRE_MESSAGE(config.has_value(), why(config));
    auto targets = pg::targets_of(*config, config->pg.front());
    REQUIRE_MESSAGE(targets.has_value(), why(targets));
    targets_ = *std::move(targets);
    thread_ = std::thread([this] { look(); });
  }
  ~Sampler() { end(); }
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  // "pg-a pg-b" for every time that both were seen to accept writes; empty when all is well.
  std::string finish() {
    end();
    CHECK(looks_ > 10);
    return join(together_, "; ");
  }

 private:
  void end() {
    ended_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void look() {
    std::vector<std::string> before;
    while (!ended_) {
      std::vector<std::string> now;
      for (const auto& facts : pg::observe(targets_, Millis(300)).nodes)
        if (facts.answered() && facts.role == pg::Role::primary) now.push_back(facts.name);
      if (now.size() > 1 && now == before) together_.push_back(join(now, " "));
      before = std::move(now);
      ++looks_;
      pause_for(Millis(3));
    }
  }

  std::vector<pg::Target> targets_;
  std::vector<std::string> together_;
  std::atomic<int> looks_{0};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace zx::test
