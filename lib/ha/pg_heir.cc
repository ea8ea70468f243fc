#include "lib/ha/pg_heir.h"

#include <fmt/format.h>

#include "lib/ha/pg_directory.h"
#include "lib/ha/pg_watch.h"

namespace zx::ha {
namespace {

constexpr int kLooks = 3;

}  // namespace

Result<bool> must_fence_heir(PgWorld& world, const std::string& heir, View& view,
                             const std::function<void()>& unproved) {
  const auto& policy = world.cluster().policy;
  const auto& state_dir = world.config().platform.state_dir;
  const auto answer = world.on_host_of(heir, "pg-inspect", Json::object(), policy.fence_deadline);
  auto local = answer ? pg::local_from_json(*answer) : pg::LocalFacts{};
  auto seen = view.snapshot;
  for (auto& facts : seen.nodes)
    if (answer && facts.name == heir) facts.local = local;
  // A fence there would stop another node's server.
  if (const auto why = wrong_directory(seen, heir); !why.empty()) {
    local = {};
    local.problem = why;
  }
  if (local.is_empty || local.interrupted_rewind) return false;
  if (!local.is_data_directory) {
    if (!policy.require_fence) {
      unproved();
      return false;
    }
    return fail(
        Code::refused,
        fmt::format("{} may be a primary that does not answer, and its host cannot tell: {}", heir,
                    answer ? local.problem : answer.error().message),
        "make its host reachable, or zx failover ack when it is gone for good");
  }
  if (view.last && local.lineage.timeline > view.last->lineage.timeline) {
    ZX_TRY(write_last_seen(state_dir, world.cluster().name,
                           LastSeen{wall_now(),
                                    heir,
                                    local.lineage,
                                    local.checkpoint,
                                    local.sync_names,
                                    {},
                                    false,
                                    false}));
    view = see(world, std::move(view.snapshot));
    // Its fence is a step of the failover from it.
    if (view.verdict.primary == heir) return false;
  }
  return !local.fenced;
}

Result<ByHand> prepare_failover_by_hand(PgWorld& world, coord::Shared* shared,
                                        FailoverOptions options, bool alone, Prepared* why) {
  std::string unproved;
  for (int i = 0; i < kLooks; ++i) {
    ZX_ASSIGN(auto prepared, prepare_failover(world, options, why));
    // His word that nobody else accepts writes is about an heir too.
    if (shared == nullptr || options.assume_fenced)
      return ByHand{std::move(prepared), {}, unproved};
    const auto value = shared->get(watch_key(world.cluster().name));
    const auto record = value ? watch_record_from(value->text) : fail(value.error());
    if (!record && alone) return ByHand{std::move(prepared), {}, unproved};
    if (!record) return fail(record.error());
    const auto gone = prepared.view.verdict.primary;
    const auto heir = heir_of(*record, prepared.view.snapshot, gone);
    if (heir.empty()) {
      if (const auto missed = missed_successor(*record, prepared.view.snapshot, gone);
          !missed.empty())
        return fail(Code::refused, missed,
                    "let an agent that has seen it fail over, or make it answer; when it is gone "
                    "for good: zx failover ack");
      return ByHand{std::move(prepared), {}, unproved};
    }
    auto view = prepared.view;
    ZX_ASSIGN(const bool must_fence, must_fence_heir(world, heir, view, [&] { unproved = heir; }));
    if (must_fence) return ByHand{std::move(prepared), heir, {}};
    if (view.verdict.primary == gone) return ByHand{std::move(prepared), {}, unproved};
    options.view = std::move(view);  // the heir is the one that is missed
  }
  return fail(Code::refused, "whom an earlier failover promoted is not known for certain",
              "look again: zx status");
}

}  // namespace zx::ha
