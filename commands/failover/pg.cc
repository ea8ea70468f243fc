// zx failover pg: makes a standby the primary when the primary is gone.
#include <memory>

#include <fmt/format.h>

#include "commands/pg_cluster.h"
#include "commands/run_report.h"
#include "lib/base/text.h"
#include "lib/ha/pg_heir.h"

namespace zx::commands {
namespace {

constexpr const char* kCommand = "failover pg";

struct Options {
  std::string to, cluster, allow_loss;
  bool dry_run = false, assume_fenced = false, assume_alone = false;
  Consent consent;
};

Tone tone_of(ha::Candidate::Fate fate) {
  switch (fate) {
    case ha::Candidate::Fate::promote: return Tone::good;
    case ha::Candidate::Fate::follow: return Tone::plain;
    case ha::Candidate::Fate::down: return Tone::bad;
    default: return Tone::warn;
  }
}

void show_candidates(Screen& screen, const ha::Choice& choice) {
  Table table;
  table.head = {"NODE", "VERDICT", "WHY"};
  for (const auto& one : choice.candidates)
    table.rows.push_back(
        {one.node, Cell(name_of(one.fate), tone_of(one.fate)), join(one.reasons, ", ")});
  screen.table(table);
}

std::string loss_of(const ha::Choice& choice) {
  const auto bytes = choice.lost == 0 ? "0 bytes" : format_bytes(choice.lost);
  if (!choice.reference.known) return "loss not known";
  return fmt::format("{}{} lost", choice.reference.exact || choice.lost == 0 ? "" : "about ",
                     bytes);
}

std::string evidence_of(const ha::PgVerdict& verdict) {
  std::vector<std::string> others;
  for (const auto& one : verdict.evidence)
    if (one.node != verdict.primary) others.push_back(fmt::format("{} {}", one.node, one.text));
  return verdict.summary + (others.empty() ? "" : "; " + join(others, ", "));
}

void show_plan(Env& env, const ha::Prepared& prepared) {
  auto& screen = env.screen;
  const auto expected = ha::expected_duration(prepared.view.snapshot);
  screen.line(fmt::format("Would promote {}. Expected: {}, {}.", prepared.choice.promote,
                          format_duration(expected), loss_of(prepared.choice)));
  screen.line("");
  screen.line(wrap(evidence_of(prepared.view.verdict), 100, ""));
  show_candidates(screen, prepared.choice);
  if (prepared.choice.reference.known && !prepared.choice.reference.source.empty())
    screen.line(fmt::format("Loss measured against {}: {}, {}", prepared.view.verdict.primary,
                            to_string(prepared.choice.reference.end),
                            prepared.choice.reference.source));
  screen.line("Safe because: " + prepared.fence.why);
  screen.line("");
  show_steps(screen, prepared.plan);
  screen.line("");
}

Json plan_json(const ha::Prepared& prepared) {
  return Json{{"run", Json()},
              {"command", kCommand},
              {"outcome", "planned"},
              {"promoted", Json()},
              {"would_promote", prepared.choice.promote},
              {"lost_bytes", prepared.choice.reference.known ? Json(prepared.choice.lost) : Json()},
              {"loss_exact", prepared.choice.reference.exact},
              {"expected_ms", ha::expected_duration(prepared.view.snapshot).count()},
              {"verdict", to_json(prepared.view.verdict)},
              {"candidates", to_json(prepared.choice)},
              {"fence", {{"by", name_of(prepared.fence.kind)}, {"why", prepared.fence.why}}},
              {"steps", steps_json(prepared.plan)},
              {"error", Json()}};
}

std::string repeated(const Options& given) {
  std::string words = kCommand;
  if (!given.cluster.empty()) words += " --cluster " + shell_word(given.cluster);
  if (!given.to.empty()) words += " --to " + shell_word(given.to);
  if (!given.allow_loss.empty()) words += " --allow-data-loss " + shell_word(given.allow_loss);
  if (given.assume_fenced) words += " --assume-fenced";
  if (given.assume_alone) words += " --assume-alone";
  return words;
}

std::string will_stop(const std::string& heir) {
  return fmt::format(
      "{} may have been promoted by an earlier failover, and does not answer: it is "
      "stopped on its host first",
      heir);
}

// In a run of its own: it is not a step of the failover, which is planned once it cannot serve.
Status stop_heir(Env& env, Hand& hand, const std::string& heir, coord::Lease& lease) {
  env.screen.note(will_stop(heir));
  const auto plan = ha::plan_fence(hand.world->cluster(), heir, "");
  ZX_TRY(ha::supersede(*hand.world, plan.command));
  ZX_ASSIGN(const auto report, ha::carry_out(*hand.world, plan, lease, live_lines(env, plan)));
  if (report.ending == run::Ending::done) return {};
  auto error = report.error.value_or(Error{Code::failed, "it failed", {}, {}, false});
  error.trail.push_back("while stopping " + heir + " in run " + report.id);
  return fail(std::move(error));
}

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto* cluster, pick_cluster(*config, given.cluster));
  ZX_ASSIGN(auto hand, hand_on(*config, *cluster));
  ha::FailoverOptions options;
  options.to = given.to;
  options.assume_fenced = given.assume_fenced;
  if (!given.allow_loss.empty()) options.allow_loss = parse_bytes(given.allow_loss);
  if (env.shared.timeout) options.give_up = Deadline::after(*env.shared.timeout);
  options.progress = [&env](const std::string& text) { env.screen.progress(text); };

  const ha::TurnWish wish{kCommand, ha::is_about_a_standby, given.assume_alone, true};
  auto lease = begin_turn(hand, wish, given.dry_run || is_asked(given.consent));
  if (!lease) return not_begun(env, kCommand, lease.error(), nullptr);
  ha::Prepared why;
  const auto prepare = [&]() -> Result<ha::Prepared> {
    const bool is_alone = *lease && !(*lease)->alone_because().empty();
    const auto once = [&] {
      return ha::prepare_failover_by_hand(*hand.world, is_alone ? nullptr : hand.shared.get(),
                                          options, given.assume_alone, &why);
    };
    ZX_ASSIGN(auto found, once());
    if (!found.unproved.empty())
      env.screen.note(found.unproved + " may be a primary unseen; require_fence is off");
    if (found.fence_first.empty()) return std::move(found.prepared);
    if (!*lease) {
      env.screen.note(will_stop(found.fence_first));
      return std::move(found.prepared);
    }
    ZX_TRY(stop_heir(env, hand, found.fence_first, **lease));
    ZX_ASSIGN(found, once());
    if (found.fence_first.empty()) return std::move(found.prepared);
    return fail(Code::refused, found.fence_first + " was stopped, and may be a primary again",
                "look with zx status");
  };
  auto prepared = prepare();
  if (!prepared) {
    // Why each node may not be promoted belongs to the answer.
    if (why.choice.refusal) show_candidates(env.screen, why.choice);
    return not_begun(env, kCommand, prepared.error(), &why);
  }
  if (given.dry_run) {
    show_plan(env, *prepared);
    const bool production = config->platform.environment == "production";
    env.screen.line(fmt::format("Run it: {} {}", env.typed(repeated(given)),
                                production ? "--confirm " + shell_word(cluster->name) : "--yes"));
    env.screen.json(plan_json(*prepared));
    return 0;
  }
  if (!given.consent.yes && given.consent.confirm.empty() && env.screen.is_terminal())
    show_plan(env, *prepared);
  if (const auto agreed = need_consent(env, *config, given.consent, cluster->name,
                                       fmt::format("Promote {}?", prepared->choice.promote));
      !agreed)
    return not_begun(env, kCommand, agreed.error(), &*prepared);
  if (!*lease) {
    lease = begin_turn(hand, wish, false);
    if (!lease) return not_begun(env, kCommand, lease.error(), &*prepared);
    if (const auto same = still_agreed(*prepared, prepare()); !same)
      return not_begun(env, kCommand, same.error(), &*prepared);
  }
  if (const auto closed = ha::supersede(*hand.world, kCommand); !closed)
    return not_begun(env, kCommand, closed.error(), &*prepared);
  return carry_out(env, hand, *prepared, **lease, prepared->looked);
}

}  // namespace

void add_failover_pg(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("failover", "make a standby the primary when the primary is gone"), "pg",
      "fail a PostgreSQL cluster over",
      {.description =
           "Looks at every node, and acts only when the primary is proved dead or silent: refused "
           "while it is alive, overloaded, restarting, or reachable for anyone else. Freezes the "
           "standbys so that their positions are final, chooses the one that has most, fences the "
           "old primary on its host so that it can only return as a standby, promotes, checks a "
           "write, and points the other standbys at the new primary.\n\n"
           "Every step is journalled before it is done: killed anywhere, the run is finished with "
           "zx runs resume. Before the promotion a failure takes everything back.",
       .examples = {{"zx failover pg --dry-run",
                     "who would be promoted, why, and what it would cost"},
                    {"zx failover pg --yes", "do it"},
                    {"zx failover pg --to pg-b --allow-data-loss '1 GiB' --yes",
                     "a standby that is far behind, knowingly"},
                    {"zx failover pg --assume-fenced --yes",
                     "the old primary's machine is switched off for certain"}},
       .exits = {Code::failed, Code::refused, Code::partial, Code::locked, Code::config,
                 Code::unreachable, Code::declined}},
      [given](Env& env) { return run(env, *given); });
  tree.complete(leaf->add_option("--to", given->to, "promote this node or none"),
                Complete::pg_node);
  add_cluster_flag(tree, leaf, given->cluster);
  leaf->add_flag("--dry-run", given->dry_run, "print the plan and change nothing");
  add_consent(leaf, given->consent, "cluster");
  leaf->add_option("--allow-data-loss", given->allow_loss,
                   "promote a standby that lacks up to this much, such as 64MiB; 0: nothing")
      ->type_name("BYTES")
      ->check([](const std::string& text) {
        return parse_bytes(text) ? std::string()
                                 : "takes a size such as 4096 or 64MiB, not \"" + text + "\"";
      });
  leaf->add_flag("--assume-fenced", given->assume_fenced,
                 "the old primary cannot accept writes any more: you made sure of it");
  add_alone_flag(leaf, given->assume_alone);
}

}  // namespace zx::commands
