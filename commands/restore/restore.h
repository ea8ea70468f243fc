// What zx restore, its commit and undo, and the end of an unfinished restore share.
#pragma once

#include <memory>
#include <optional>

#include "commands/command.h"
#include "commands/run_report.h"
#include "commands/runs/runs.h"
#include "lib/backup/restore.h"
#include "lib/coord/etcd_shared.h"
#include "lib/ha/turn.h"
#include "lib/run/journal.h"

namespace zx::commands {

// A person's hand on a restore. Stays where it is made: its world refers to it.
class RestoreHand {
 public:
  // A way back does not read the repository.
  enum class Reads { repository, nothing };
  [[nodiscard]] static Result<std::unique_ptr<RestoreHand>> make(Env& env,
                                                                 const config::Config& config,
                                                                 Reads reads = Reads::repository);
  RestoreHand(const RestoreHand&) = delete;
  RestoreHand& operator=(const RestoreHand&) = delete;

  [[nodiscard]] backup::RestoreWorld& world() { return *world_; }
  [[nodiscard]] const backup::Repository& repository() const { return *repository_; }
  [[nodiscard]] ha::Ground ground() const {
    return {config_.platform.state_dir, backup::kRestoreLock, shared_.get()};
  }
  // A line for each step as it ends; signals take the run back.
  [[nodiscard]] run::Hooks hooks(Env& env, const run::Plan& plan, coord::Lease& lease) const {
    return ha::with_signals(live_lines(env, plan), lease, nullptr);
  }

 private:
  explicit RestoreHand(const config::Config& config) : config_(config) {}
  const config::Config& config_;
  std::optional<backup::Repository> repository_;
  std::optional<backup::RepositoryLock> reading_;  // nothing is deleted meanwhile
  std::unique_ptr<coord::Shared> shared_;
  std::unique_ptr<backup::RestoreWorld> world_;
};

// The run of Redis inside a restore.
[[nodiscard]] backup::RedisMeans redis_means(Env& env, const config::Config& config);
// Where what Redis had before such a run is now. Pure.
struct RedisBefore {
  enum class Kind {
    same,     // nothing was replaced, or it was taken back
    empty,    // it had no keys
    copy,     // in the safety copy `file`
    placed,   // beside its data: the server was stopped
    unknown,  // it was replaced, and the journal does not say
  };
  Kind kind = Kind::same;
  std::string file;
};
[[nodiscard]] RedisBefore redis_before(const run::Record& record);

// What zx knows against `primary`, the only one that answers as such. Code::refused.
[[nodiscard]] Status is_right_primary(const config::Config& config, coord::Shared* shared,
                                      const std::string& cluster, const std::string& primary);

// "Restored set … in 7m12s": what it cost, against the targets.
[[nodiscard]] std::string restore_summary(const run::RunReport& report);

// What its steps warn of.
void say_warnings(Env& env, const run::RunReport& report);

// Asks a person, or takes `confirm`, which is to be `name`.
[[nodiscard]] Status may_replace(Env& env, const std::string& confirm, const std::string& name);

// zx restore undo and commit.
void add_kept(Tree& tree, CLI::App* group);

[[nodiscard]] bool is_about_a_restore(const run::Record& record);
// zx runs resume|abort of a restore.
[[nodiscard]] Result<int> end_restore_run(Env& env, const config::Config& config,
                                          const run::Record& record, const EndOptions& given);

}  // namespace zx::commands
