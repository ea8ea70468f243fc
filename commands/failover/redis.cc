// zx failover redis: makes a replica the master, when the master is gone or on purpose.
#include <memory>
#include <tuple>

#include <fmt/format.h>

#include "commands/pg_cluster.h"
#include "commands/redis_deployment.h"
#include "commands/redis_hand.h"
#include "commands/run_report.h"
#include "lib/base/count.h"
#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/ha/redis_chain.h"

namespace zx::commands {
namespace {

constexpr const char* kCommand = "failover redis";

struct Options {
  std::string to, deployment, allow_loss;
  bool planned = false, dry_run = false, assume_fenced = false, assume_alone = false;
  Consent consent;
};

Tone tone_of(ha::RedisCandidate::Fate fate) {
  switch (fate) {
    case ha::RedisCandidate::Fate::promote: return Tone::good;
    case ha::RedisCandidate::Fate::follow: return Tone::plain;
    case ha::RedisCandidate::Fate::down: return Tone::bad;
    default: return Tone::warn;
  }
}

void show_candidates(Screen& screen, const ha::RedisChoice& choice) {
  Table table;
  table.head = {"NODE", "VERDICT", "WHY"};
  for (const auto& one : choice.candidates)
    table.rows.push_back(
        {one.node, Cell(name_of(one.fate), tone_of(one.fate)), join(one.reasons, ", ")});
  screen.table(table);
}

Json candidates_json(const ha::RedisChoice& choice) {
  auto list = Json::array();
  for (const auto& one : choice.candidates)
    list.push_back({{"node", one.node},
                    {"fate", name_of(one.fate)},
                    {"replid", one.lineage.replid},
                    {"offset", one.lineage.offset},
                    {"keys", one.keys},
                    {"lost_bytes", one.lost},
                    {"why", one.reasons}});
  return list;
}

std::string loss_of(const ha::RedisPrepared& prepared) {
  const auto& choice = prepared.choice;
  if (prepared.planned) return "nothing lost";
  if (choice.is_of_another_line) {
    const auto* facts = prepared.view.snapshot.node(choice.promote);
    return fmt::format("all that {} wrote on its line is lost, {} has {} of another",
                       prepared.view.verdict.master, choice.promote,
                       count_of(facts != nullptr ? facts->keys : 0, "key"));
  }
  if (!choice.reference.known) return "loss not known";
  const auto bytes = choice.lost == 0 ? "0 bytes" : format_bytes(choice.lost);
  return fmt::format("{}{} lost", choice.reference.exact || choice.lost == 0 ? "" : "about ",
                     bytes);
}

std::string evidence_of(const ha::RedisVerdict& verdict) {
  std::vector<std::string> others;
  for (const auto& one : verdict.evidence)
    if (!one.node.empty() && one.node != verdict.master)
      others.push_back(fmt::format("{} {}", one.node, one.text));
  return verdict.summary + (others.empty() ? "" : "; " + join(others, ", "));
}

void show_plan(Env& env, const ha::RedisPrepared& prepared) {
  auto& screen = env.screen;
  screen.line(fmt::format("Would {}. Expected: {}.", prepared.plan.summary, loss_of(prepared)));
  screen.line("");
  screen.line(wrap(evidence_of(prepared.view.verdict), 100, ""));
  show_candidates(screen, prepared.choice);
  const auto& reference = prepared.choice.reference;
  if (!prepared.planned && reference.known && !reference.source.empty())
    screen.line(fmt::format("Loss measured against {}: offset {}, {}", prepared.view.verdict.master,
                            reference.end, reference.source));
  if (prepared.through_sentinels)
    screen.line("Safe because: the Sentinels have a quorum, and do it themselves" +
                (prepared.planned ? std::string() : "; " + prepared.fence.why));
  else if (!prepared.planned)
    screen.line("Safe because: " + prepared.fence.why);
  screen.line("");
  show_steps(screen, prepared.plan);
  screen.line("");
}

Json plan_json(const ha::RedisPrepared& prepared) {
  const auto& choice = prepared.choice;
  const bool is_known = prepared.planned || (choice.reference.known && !choice.is_of_another_line);
  const std::uint64_t lost = prepared.planned ? 0 : choice.lost;
  return Json{{"run", Json()},
              {"command", kCommand},
              {"outcome", "planned"},
              {"promoted", Json()},
              {"would_promote", get_string(prepared.plan.context, "to", choice.promote)},
              {"sentinels_choose", get_bool(prepared.plan.context, "they_choose")},
              {"planned", prepared.planned},
              {"through_sentinels", prepared.through_sentinels},
              {"lost_bytes", is_known ? Json(lost) : Json()},
              {"loss_exact", prepared.planned || choice.reference.exact},
              {"verdict", verdict_json(prepared.view.verdict)},
              {"candidates", candidates_json(choice)},
              {"fence", {{"by", name_of(prepared.fence.kind)}, {"why", prepared.fence.why}}},
              {"steps", steps_json(prepared.plan)},
              {"error", Json()}};
}

std::string repeated(const Options& given) {
  std::string words = kCommand;
  if (!given.deployment.empty()) words += " --deployment " + shell_word(given.deployment);
  if (given.planned) words += " --planned";
  if (!given.to.empty()) words += " --to " + shell_word(given.to);
  if (!given.allow_loss.empty()) words += " --allow-data-loss " + shell_word(given.allow_loss);
  if (given.assume_fenced) words += " --assume-fenced";
  if (given.assume_alone) words += " --assume-alone";
  return words;
}

Result<int> not_begun(Env& env, const Error& error, const ha::RedisPrepared* why) {
  const bool is_refusal =
      error.code == Code::locked || info(error.code).exit == info(Code::refused).exit;
  Json json{
      {"run", Json()},      {"command", kCommand},  {"outcome", is_refusal ? "refused" : "failed"},
      {"promoted", Json()}, {"lost_bytes", Json()}, {"steps", Json::array()}};
  if (why != nullptr && !why->view.snapshot.nodes.empty()) {
    json["verdict"] = verdict_json(why->view.verdict);
    if (!why->choice.candidates.empty()) json["candidates"] = candidates_json(why->choice);
  }
  json["error"] = zx::to_json(error);
  env.screen.json(json);
  return fail(error);
}

Result<int> nothing_to_do(Env& env, const ha::RedisPrepared& prepared, const std::string& to) {
  env.screen.line(prepared.said + ", nothing to do");
  env.screen.json(Json{{"run", Json()},
                       {"command", kCommand},
                       {"outcome", "done"},
                       {"promoted", to},
                       {"lost_bytes", 0},
                       {"steps", Json::array()},
                       {"said", prepared.said},
                       {"error", Json()}});
  return 0;
}

// After the question, and with the turn: would it still do what was agreed to?
Status still_agreed(ha::RedisPrepared& prepared, Result<ha::RedisPrepared> now) {
  if (!now) return fail(now.error());
  const auto what = [](const ha::RedisPrepared& one) {
    const auto& context = one.plan.context;
    return std::tuple(one.plan.summary, get_string(context, "old_master"),
                      get_string(context, "fence"), one.nothing_to_do);
  };
  if (what(*now) != what(prepared) || now->choice.lost > prepared.choice.lost)
    return fail(Code::refused,
                "since you were asked it has changed what would be done: " +
                    (now->nothing_to_do ? now->said + ", nothing to do" : now->plan.summary),
                "nothing was changed; run it again");
  prepared = *std::move(now);
  return {};
}

std::string question_of(const ha::RedisPrepared& prepared) {
  const auto& context = prepared.plan.context;
  if (get_bool(context, "they_choose")) return "Let the Sentinels promote one?";
  return fmt::format("Promote {}?", get_string(context, "to", prepared.choice.promote));
}

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto* deployment, pick_deployment(*config, given.deployment));
  ZX_ASSIGN(auto hand, hand_on(*config, *deployment));
  ha::RedisFailoverOptions options;
  options.to = given.to;
  options.planned = given.planned;
  options.assume_fenced = given.assume_fenced;
  if (!given.allow_loss.empty()) options.allow_loss = parse_bytes(given.allow_loss);
  if (env.shared.timeout) options.give_up = Deadline::after(*env.shared.timeout);
  options.progress = [&env](const std::string& text) { env.screen.progress(text); };
  if (given.planned && (options.allow_loss || given.assume_fenced))
    return fail(Code::usage,
                "--planned loses nothing: it goes without --allow-data-loss and "
                "--assume-fenced");

  const ha::TurnWish wish{kCommand, ha::is_about_a_replica, given.assume_alone, !given.planned};
  auto lease = begin_turn(hand, wish, given.dry_run || is_asked(given.consent));
  if (!lease) return not_begun(env, lease.error(), nullptr);
  ha::RedisPrepared why;
  const auto prepare = [&] { return ha::prepare_redis_failover(*hand.world, options, &why); };
  auto prepared = prepare();
  log_evidence(why.view.verdict);
  if (!prepared) {
    // Why each node may not be promoted belongs to the answer.
    if (why.choice.refusal) show_candidates(env.screen, why.choice);
    return not_begun(env, prepared.error(), &why);
  }
  if (prepared->nothing_to_do) return nothing_to_do(env, *prepared, given.to);
  if (given.dry_run) {
    show_plan(env, *prepared);
    const bool production = config->platform.environment == "production";
    env.screen.line(
        fmt::format("Run it: {} {}", env.typed(repeated(given)),
                    production ? "--confirm " + shell_word(deployment->name) : "--yes"));
    env.screen.json(plan_json(*prepared));
    return 0;
  }
  if (is_asked(given.consent) && env.screen.is_terminal()) show_plan(env, *prepared);
  if (const auto agreed =
          need_consent(env, *config, given.consent, deployment->name, question_of(*prepared));
      !agreed)
    return not_begun(env, agreed.error(), &*prepared);
  if (!*lease) {
    lease = begin_turn(hand, wish, false);
    if (!lease) return not_begun(env, lease.error(), &*prepared);
    if (const auto same = still_agreed(*prepared, prepare()); !same)
      return not_begun(env, same.error(), &*prepared);
  }
  if (const auto closed = ha::supersede(hand.ground(), kCommand); !closed)
    return not_begun(env, closed.error(), &*prepared);
  return carry_out(env, hand, prepared->plan, **lease,
                   given.planned ? std::nullopt : std::optional(prepared->looked));
}

}  // namespace

void add_failover_redis(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("failover", "make a standby the primary when the primary is gone"), "redis",
      "fail a Redis deployment over, or move its master on purpose",
      {.description =
           "Looks at every node and Sentinel, and acts only when the master is proved dead or "
           "silent, or came back empty: refused while it is alive, loading, or reachable for "
           "anyone else. Chooses the replica of the master's line that has most of its stream, "
           "fences the old master on its host so that it can only return as a replica, promotes, "
           "checks a write, and makes the other replicas follow. Where that host is out of reach, "
           "it "
           "waits until the old master refuses writes by itself, if its min-replicas-to-write and "
           "min-replicas-max-lag make it do so.\n\n"
           "With --planned it moves a master that is alive: its writes are paused until the "
           "replica "
           "has every byte, and nothing is lost.\n\n"
           "Where Sentinels watch the deployment the old master is fenced first, then the failover "
           "goes through them; it is refused when they have no quorum, or no majority of them "
           "answers zx. Without --to they may choose the replica.\n\n"
           "Every step is journalled before it is done: killed anywhere, the run is finished with "
           "zx runs resume. Before the promotion a failure takes everything back.",
       .examples = {{"zx failover redis --dry-run",
                     "who would be promoted, why, and what it would cost"},
                    {"zx failover redis --yes", "do it"},
                    {"zx failover redis --planned --to redis-b --yes",
                     "move the master, losing nothing"},
                    {"zx failover redis --to redis-b --allow-data-loss '1 MiB' --yes",
                     "a replica that is far behind, knowingly"}},
       .exits = {Code::failed, Code::refused, Code::partial, Code::locked, Code::config,
                 Code::unreachable, Code::declined}},
      [given](Env& env) { return run(env, *given); });
  auto* to = leaf->add_option("--to", given->to, "promote this node or none");
  tree.complete(to, Complete::redis_node);
  to->check([](const std::string& name) {
    return name.empty() ? std::string("takes the name of a node") : std::string();
  });
  add_deployment_flag(tree, leaf, given->deployment);
  leaf->add_flag("--planned", given->planned, "the master is alive: move it, losing nothing");
  leaf->add_flag("--dry-run", given->dry_run, "print the plan and change nothing");
  add_consent(leaf, given->consent, "deployment");
  leaf->add_option("--allow-data-loss", given->allow_loss,
                   "promote a replica that lacks up to this much of the stream, such as 1MiB")
      ->type_name("BYTES")
      ->check([](const std::string& text) {
        return parse_bytes(text) ? std::string()
                                 : "takes a size such as 4096 or 1MiB, not \"" + text + "\"";
      });
  leaf->add_flag("--assume-fenced", given->assume_fenced,
                 "the old master cannot take writes any more: you made sure of it");
  add_alone_flag(leaf, given->assume_alone);
}

}  // namespace zx::commands
