#include "lib/ha/turn.h"

#include <fmt/format.h>

#include "lib/ha/pg_watch.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

Error in_the_way(const run::Record& open) {
  return Error{
      Code::refused,
      fmt::format("run {} ({}) is unfinished", open.id, open.plan.command),
      open.no_return
          ? "finish it first: zx runs resume " + open.id
          : fmt::format(
                "finish it or take it back first: zx runs resume {0}, or zx runs abort {0}; "
                "with --as-is what it did stays",
                open.id),
      {},
      false};
}

// The turn among all hosts is given back first: whoever waits for it on this host finds it free.
class Turn final : public coord::Lease {
 public:
  Turn(std::unique_ptr<coord::Lease> here, std::unique_ptr<coord::Lease> everywhere,
       std::string alone_because)
      : here_(std::move(here)),
        everywhere_(std::move(everywhere)),
        alone_because_(std::move(alone_because)) {}
  Status check() override {
    ZX_TRY(here_->check());
    return everywhere_ ? everywhere_->check() : Status{};
  }
  bool is_wanted() const override { return everywhere_ && everywhere_->is_wanted(); }
  std::string alone_because() const override { return alone_because_; }

 private:
  std::unique_ptr<coord::Lease> here_, everywhere_;
  std::string alone_because_;
};

Status no_unfinished_run(const Ground& ground,
                         const std::function<bool(const run::Record&)>& supersedes) {
  ZX_ASSIGN(const auto open, run::unfinished_run(ground.state_dir, ground.lock));
  // What a standby that could not be repointed leaves must never keep the next failover from being
  // done.
  const bool may_pass = open && (has_only_leftovers(*open) || (supersedes && supersedes(*open)));
  if (open && !may_pass) return fail(in_the_way(*open));
  return {};
}

}  // namespace

Result<std::unique_ptr<coord::Lease>> take_lock(const Ground& ground, const TurnWish& wish) {
  const auto command = "zx " + wish.command;
  ZX_ASSIGN(auto here, coord::take_file_lock(ground.state_dir, ground.lock, command));
  if (ground.shared == nullptr) return here;
  auto everywhere = ground.shared->take_turn(ground.lock, command, wish.is_urgent);
  if (everywhere)
    return std::make_unique<Turn>(std::move(here), *std::move(everywhere), std::string());
  if (!wish.assume_alone || everywhere.error().code == Code::locked)
    return fail(everywhere.error());
  return std::make_unique<Turn>(std::move(here), nullptr, everywhere.error().message);
}

Result<std::unique_ptr<coord::Lease>> take_turn(const Ground& ground, const TurnWish& wish) {
  ZX_ASSIGN(auto lease, take_lock(ground, wish));
  ZX_TRY(no_unfinished_run(ground, wish.supersedes));
  return lease;
}

Status supersede(const Ground& ground, const std::string& command) {
  while (true) {
    ZX_ASSIGN(const auto open, run::unfinished_run(ground.state_dir, ground.lock));
    if (!open) return {};
    ZX_TRY(run::close_run(ground.state_dir, open->id, "superseded", "by " + command));
  }
}

Status may_take_lock(const Ground& ground, const TurnWish& wish) {
  ZX_TRY(coord::is_free(ground.state_dir, ground.lock));
  if (ground.shared != nullptr)
    if (const auto free = ground.shared->is_turn_free(ground.lock);
        !free && (!wish.assume_alone || free.error().code == Code::locked))
      return free;
  return {};
}

Status may_take_turn(const Ground& ground, const TurnWish& wish) {
  ZX_TRY(may_take_lock(ground, wish));
  return no_unfinished_run(ground, wish.supersedes);
}

run::Hooks with_signals(run::Hooks hooks, coord::Lease& lease, coord::Lease* claim) {
  hooks.alone_because = lease.alone_because();
  hooks.still_ours = [&lease, claim, also = std::move(hooks.still_ours)]() -> Status {
    if (also) ZX_TRY(also());
    if (claim != nullptr) ZX_TRY(claim->check());
    return lease.check();
  };
  hooks.interruption = [also = std::move(hooks.interruption)]() -> std::optional<Error> {
    if (auto signal = os::interruption()) return signal;
    return also ? also() : std::nullopt;
  };
  return hooks;
}

}  // namespace zx::ha
