#include "commands/run_report.h"

#include <algorithm>

#include <fmt/format.h>

#include "commands/fit.h"
#include "commands/restore/restore.h"
#include "lib/base/count.h"
#include "lib/base/log.h"
#include "lib/base/text.h"

namespace zx::commands {
namespace {

using run::StepReport;
using run::StepState;

std::string padded(const std::string& text, std::size_t width) {
  const auto has = display_width(text);
  return has < width ? text + std::string(width - has, ' ') : text;
}

// {"pg-b": "0/5A001F8"} → "pg-b 0/5A001F8, pg-c …"
std::string pairs(const Json& object, std::string_view between) {
  std::vector<std::string> parts;
  if (object.is_object())
    for (const auto& [key, value] : object.items())
      parts.push_back(value.is_string() ? key + std::string(between) + value.get<std::string>()
                                        : key);
  return join(parts, ", ");
}

std::string of_list(const Json& list, const std::string& otherwise) {
  std::vector<std::string> words;
  if (list.is_array())
    for (const auto& word : list)
      if (word.is_string()) words.push_back(word.get<std::string>());
  return words.empty() ? otherwise : join(words, ", ");
}

std::string of_fence(const StepReport& step) {
  const auto proof = get_string(step.seen, "proof");
  if (proof == "quorum")
    return step.subject + " can reach too few standbys to acknowledge a commit";
  if (proof == "guard") return step.subject + ": its guard has stopped it, its lease has run out";
  if (proof == "max_lag")
    return fmt::format("{} refuses writes by min-replicas-max-lag since {}", step.subject,
                       get_string(step.seen, "since"));
  if (proof == "operator") return step.subject + " by the operator's word";
  if (proof == "policy") return step.subject + " not proved gone (require_fence is off)";
  const bool ran = get_int(step.seen, "ended") > 0;
  return fmt::format("{} {}, will return as a {}", step.subject, ran ? "stopped" : "was down",
                     get_string(step.seen, "returns_as", "standby"));
}

std::string of_receipt(const Json& seen) {
  const auto bytes = static_cast<std::uint64_t>(get_int(seen, "bytes"));
  const bool exact = get_bool(seen, "exact");
  if (bytes == 0) return exact ? "nothing lost" : "nothing lost, as far as is known";
  return fmt::format("{}{} lost, {} to {}", exact ? "" : "about ", format_bytes(bytes),
                     get_string(seen, "from"), get_string(seen, "end"));
}

std::string of_keep(const Json& seen) {
  if (!get_bool(seen, "diverged")) return "it has nothing that the primary has not";
  const auto commits = get_int(seen, "commits", -1);
  return fmt::format(
      "{}{} kept in {}", format_bytes(static_cast<std::uint64_t>(get_int(seen, "bytes"))),
      commits < 0 ? "" : fmt::format(" with {} commit{}", commits, commits == 1 ? "" : "s"),
      get_string(seen, "directory"));
}

std::string clients_ended(const Json& seen) {
  return count_of(get_int(seen, "clients"), "client") + " ended";
}

// The steps that only plans for Redis have, or that say other things there. Empty: none of them.
std::string of_redis(const StepReport& step) {
  const auto& seen = step.seen;
  const auto node = get_string(seen, "node", step.subject);
  if (step.name == "fence" && get_string(seen, "proof") == "live")
    return step.subject + ", its writes are paused";
  if (step.name == "detach") return step.subject + " let go of it";
  if (step.name == "choose" && seen.contains("offset"))
    return fmt::format("{} at offset {}", get_string(seen, "candidate"), get_int(seen, "offset"));
  if ((step.name == "promote" || step.name == "hand over") && seen.contains("offset"))
    return fmt::format("{} is the master, from offset {}", node, get_int(seen, "offset"));
  if (step.name == "demote")
    return fmt::format("{} follows {}, {}", node, get_string(seen, "to"), clients_ended(seen));
  if (step.name == "cut") return fmt::format("{}, {}", node, clients_ended(seen));
  if (step.name == "repoint" && seen.contains("told"))
    return fmt::format("{} told to follow {}", of_list(get_object(seen, "told"), "nobody"),
                       get_string(seen, "to"));
  if (step.name == "follow")
    return fmt::format("{}, from {}", pairs(get_object(seen, "nodes"), " "),
                       get_string(seen, "from"));
  if (step.name == "check" && seen.contains("nodes"))
    return fmt::format("a write on {} has arrived at {}", get_string(seen, "from"), step.subject);
  if (step.name == "rewrite") {
    const auto without = pairs(get_object(seen, "without"), ": ");
    const auto kept = of_list(get_object(seen, "nodes"), "");
    return kept + (kept.empty() || without.empty() ? "" : "; ") +
           (without.empty() ? "" : "not " + without);
  }
  if (step.name == "prefer") return step.subject + " comes first for the Sentinels";
  if (step.name == "agree")
    return fmt::format("{} of {} Sentinels have {} as the master", get_int(seen, "agree"),
                       get_int(seen, "of"), node);
  if (step.name == "pause") return fmt::format("{} has every byte of {}", node, step.subject);
  if (step.name.starts_with("point "))
    return fmt::format("{} told to follow {}", node, get_string(seen, "to"));
  if (step.name.starts_with("sync ")) {
    const auto how = get_string(seen, "resync");
    return how == "none"
               ? fmt::format("{} in line with {}", node, get_string(seen, "from"))
               : fmt::format("{} in line with {}: a {} resync, {}", node, get_string(seen, "from"),
                             how, format_bytes(static_cast<std::uint64_t>(get_int(seen, "bytes"))));
  }
  return {};
}

// The steps of zx redis restore. Empty: none of them.
std::string of_restore(const StepReport& step) {
  const auto& seen = step.seen;
  const auto node = get_string(seen, "node", step.subject);
  const auto keys = count_of(get_int(seen, "keys"), "key");
  if (step.name == "file")
    return fmt::format("{}, {}, a server has loaded it",
                       format_bytes(static_cast<std::uint64_t>(get_int(seen, "bytes"))),
                       count_of(get_int(get_object(seen, "content"), "keys"), "key"));
  if (step.name == "calm")
    return fmt::format("{} will wait", count_of(get_int(seen, "sentinels"), "Sentinel"));
  if (step.name == "hold") return fmt::format("{} takes no writes, {}", step.subject, keys);
  if (step.name == "safety copy") return fmt::format("{} in {}", keys, get_string(seen, "file"));
  if (step.name == "load") return fmt::format("{} has {}", node, keys);
  if (step.name == "save" && get_string(seen, "how").empty())
    return node + " keeps nothing on its disk";
  if (step.name == "save")
    return fmt::format("{} on the disk of {}", get_string(seen, "how"), node);
  if (step.name == "place") return "as " + get_string(seen, "path");
  if (step.name == "start" && seen.contains("keys")) return fmt::format("{} has {}", node, keys);
  if (step.name == "replicas") return step.subject + " linked, with the same keys";
  if (step.name == "compare") {
    const auto why = get_string(seen, "not_compared");
    return why.empty() ? fmt::format("{}, the same digest", keys)
                       : fmt::format("{}; no digest: {}", keys, why);
  }
  if (step.name == "release") return node + " has its settings of before";
  if (step.name == "write") return node + " takes writes";
  if (step.name == "sentinels") return "every one sees " + node;
  return {};
}

std::string of_done(const StepReport& step) {
  const auto& seen = step.seen;
  if (auto words = get_string(seen, "words"); !words.empty()) return words;
  if (auto words = of_restore(step); !words.empty()) return words;
  const auto node = get_string(seen, "node", step.subject);
  if (auto words = of_redis(step); !words.empty()) return words;
  if (step.name == "freeze") return pairs(get_object(seen, "positions"), " ");
  if (step.name == "choose")
    return fmt::format("{} at {}", get_string(seen, "candidate"), get_string(seen, "position"));
  if (step.name == "fence") return of_fence(step);
  if (step.name == "promote")
    return fmt::format("{}, timeline {}", node, get_int(seen, "timeline"));
  if (step.name == "check") return "a write acknowledged by " + node;
  if (step.name == "slots")
    return fmt::format("{} on {}", of_list(get_object(seen, "wanted"), "none"), node);
  if (step.name == "slot") return fmt::format("{} on {}", get_string(seen, "slot"), step.subject);
  if (step.name == "repoint")
    return fmt::format("{} from {}", pairs(get_object(seen, "nodes"), " "), get_string(seen, "to"));
  if (step.name == "rule") {
    const auto after = get_string(seen, "after");
    if (const auto left = get_string(seen, "left"); !left.empty())
      return "left to the sync step: " + left;
    return after.empty() ? "commits will be asynchronous" : fmt::format("{} on {}", after, node);
  }
  if (step.name == "sync") {
    const auto after = get_string(seen, "after");
    const auto wanted = get_string(seen, "wanted");
    return (after.empty() ? "commits are asynchronous now" : after) +
           (wanted.empty() ? "" : fmt::format(", until there are enough for {}", wanted));
  }
  if (step.name == "seal") {
    const auto pending = get_string(seen, "pending");
    return pending.empty()
               ? node + " has a checkpoint on its timeline"
               : fmt::format("{} has no checkpoint on its timeline yet: {}", node, pending);
  }
  if (step.name == "receipt") return of_receipt(seen);
  if (step.name == "stop")
    return fmt::format("{} shut down at {}", step.subject, get_string(seen, "checkpoint"));
  if (step.name == "catch up")
    return fmt::format("{} has all, to {}", step.subject, get_string(seen, "replayed"));
  if (step.name == "return" || step.name == "start")
    return fmt::format("{} streaming from {}", step.subject, get_string(seen, "streaming_from"));
  if (step.name == "keep") return of_keep(seen);
  if (step.name == "rewind") {
    const auto said = split(trim(get_string(seen, "said")), '\n');
    return said.empty() ? step.subject : first_line(said.back());
  }
  return step.subject;
}

struct Mark {
  const char* text;
  Tone tone;
};
Mark mark_of(const StepReport& step) {
  switch (step.state) {
    case StepState::done: return {"✓", Tone::good};
    case StepState::skipped: return {"–", Tone::dim};
    case StepState::undone: return {"↺", Tone::warn};
    default: return {"✗", Tone::bad};
  }
}

std::size_t name_width(const run::Plan& plan) {
  std::size_t width = 0;
  for (const auto& step : plan.steps) width = std::max(width, display_width(step.name));
  return width;
}

// Where times stand when the words before them are short enough; fits 80 columns.
constexpr std::size_t kWordsWidth = 56;

std::string line_of(const StepReport& step, std::size_t width) {
  const auto head = fmt::format("{} {}  ", mark_of(step).text, padded(step.name, width));
  const auto indent = display_width(head);
  const bool is_timed = step.state != StepState::skipped;
  // A path stays in one piece.
  const auto room = is_timed ? kWordsWidth : std::max(kWordsWidth, kColumns - indent);
  auto lines = split(wrap(words_of(step), room, ""), '\n');
  if (is_timed)
    lines.front() = fmt::format("{}{:>8}", padded(lines.front(), kWordsWidth),
                                format_duration(Millis(step.ms)));
  return head + join(lines, "\n" + std::string(indent, ' '));
}

std::string promoted_by(const run::RunReport& report) {
  for (const auto* name : {"promote", "hand over"})
    if (const auto* step = report.step(name); step != nullptr && step->state == StepState::done)
      return get_string(step->seen, "node");
  return {};
}

// Known once the candidate's final position was compared with the old primary's end.
std::optional<std::uint64_t> lost_in(const run::RunReport& report) {
  if (promoted_by(report).empty()) return std::nullopt;
  if (report.plan.command == "switchover pg") return 0;    // the candidate replayed the last record
  if (get_bool(report.plan.context, "planned")) return 0;  // the replica had the last byte
  for (const auto& [name, key] : {std::pair{"receipt", "bytes"}, std::pair{"choose", "lost"}})
    if (const auto* step = report.step(name); step != nullptr && step->state == StepState::done)
      return static_cast<std::uint64_t>(get_int(step->seen, key));
  return std::nullopt;
}

bool is_restore(const run::Plan& plan) {
  return plan.lock == "restore" && plan.command != "restore undo";
}

Json step_json(const StepReport& step) {
  Json json{{"name", step.name},
            {"subject", step.subject},
            {"state", name_of(step.state)},
            {"ms", step.ms},
            {"error", step.error ? zx::to_json(*step.error) : Json()}};
  if (!step.why_skipped.empty()) json["why"] = step.why_skipped;
  if (!step.seen.is_null()) json["seen"] = step.seen;
  return json;
}

// Until a write was acknowledged: what comes after it costs no one an outage.
Millis until_serving(const run::RunReport& report) {
  Millis span{0};
  for (const auto& step : report.steps) {
    span += Millis(step.ms);
    if (step.name == "check") return span;
  }
  return report.took;
}

std::string summary_of(const run::RunReport& report, const std::optional<Millis>& looked) {
  const auto took = format_duration(report.took);
  const auto serving = format_duration(until_serving(report));
  const auto& context = report.plan.context;
  const auto promoted = promoted_by(report);
  if (get_bool(context, "planned"))
    return fmt::format("Moved the master from {} to {} in {}, nothing lost. Run {}.",
                       get_string(context, "old_master"), promoted, serving, report.id);
  if (report.plan.command == "failover pg" || report.plan.command == "failover redis") {
    const auto* receipt = report.step("receipt");
    const bool has_receipt = receipt != nullptr && receipt->state == StepState::done;
    return fmt::format("Promoted {} in {}{}, {}. Run {}.", promoted, serving,
                       looked ? fmt::format(" after {} of looking", format_duration(*looked)) : "",
                       has_receipt ? of_receipt(receipt->seen) : "loss not known", report.id);
  }
  if (report.plan.command == "switchover pg")
    return fmt::format("Moved the primary from {} to {} in {}, nothing lost. Run {}.",
                       get_string(context, "old_primary"), promoted, serving, report.id);
  if (report.plan.command == "rejoin pg")
    return fmt::format("{} is a standby of {} after {}. Run {}.", get_string(context, "node"),
                       get_string(context, "primary"), took, report.id);
  if (report.plan.command == "redis restore") {
    const auto target = get_string(context, "target");
    const auto* write = report.step("write");
    const auto master = write == nullptr ? target : get_string(write->seen, "node", target);
    return fmt::format(
        "{} has the data of {} after {}{}. Run {}.", target, get_string(context, "file"), took,
        master == target ? "" : fmt::format("; the master is {} now", master), report.id);
  }
  if (is_restore(report.plan)) return restore_summary(report);
  return fmt::format("Done in {}. Run {}.", took, report.id);
}

// Sentinels that somebody else told to fail over at the same moment may have promoted another.
Status is_as_named(Env& env, const run::RunReport& report) {
  const auto& context = report.plan.context;
  const auto named = get_string(context, "to");
  const auto promoted = promoted_by(report);
  if (!get_bool(context, "named") || promoted.empty() || promoted == named) return {};
  return fail(Code::failed,
              fmt::format("{} is the master now, and not {}: the Sentinels were failing over at "
                          "the same moment",
                          promoted, named),
              env.typed("failover redis --planned --to " + shell_word(named)));
}

std::string next_of(Env& env, const run::RunReport& report) {
  if (is_restore(report.plan) && report.ending == run::Ending::done)
    return env.typed("restore commit") + ", or " + env.typed("restore undo");
  if (report.plan.lock.starts_with("redis.")) return env.typed("redis status");
  if (report.plan.command != "failover pg" || report.ending == run::Ending::aborted)
    return env.typed("status");
  const auto old = get_string(report.plan.context, "old_primary");
  return old.empty() || report.step("fence") == nullptr ? env.typed("status")
                                                        : env.typed("rejoin pg " + shell_word(old));
}

}  // namespace

std::string words_of(const StepReport& step) {
  switch (step.state) {
    case StepState::done: return of_done(step);
    case StepState::skipped: return "not needed: " + step.why_skipped;
    case StepState::undone: return step.subject + " taken back";
    case StepState::unknown: return step.subject + " begun, the end is not known";
    case StepState::pending:
    case StepState::failed: break;
  }
  return step.error ? step.error->message : step.subject;
}

void show_steps(Screen& screen, const run::Plan& plan) {
  Table table;
  int number = 0;
  for (const auto& step : plan.steps)
    table.rows.push_back({std::to_string(++number), step.name, step.subject, step.why,
                          Cell("≤ " + format_duration(step.deadline), Tone::dim)});
  fit_steps(table);
  screen.table(table);
}

void fit_steps(Table& table) {
  constexpr std::size_t kSubject = 2, kMostSubject = 32, kWhy = 3;
  fit(table, kSubject, kMostSubject, kWhy);
}

Json steps_json(const run::Plan& plan) {
  auto steps = Json::array();
  for (const auto& step : plan.steps)
    steps.push_back({{"name", step.name},
                     {"subject", step.subject},
                     {"state", "planned"},
                     {"why", step.why},
                     {"deadline_ms", step.deadline.count()},
                     {"optional", step.optional}});
  return steps;
}

run::Hooks live_lines(Env& env, const run::Plan& plan) {
  run::Hooks hooks;
  auto* screen = &env.screen;
  const auto width = name_width(plan);
  hooks.on_start = [screen, width](const run::Step& step) {
    log::info(fmt::format("{}: {} ({})", step.name, step.subject, step.why));
    screen->progress(fmt::format("… {}  {}", padded(step.name, width), step.subject));
  };
  hooks.on_end = [screen, width, quiet = env.shared.quiet](const StepReport& step) {
    log::info(fmt::format("{}: {} after {}", step.name, name_of(step.state),
                          format_duration(Millis(step.ms))));
    if (quiet) return;
    screen->line(line_of(step, width),
                 step.state == StepState::done ? Tone::plain : mark_of(step).tone);
  };
  hooks.on_undo = [screen, width](const run::Step& step, const Status& undone) {
    screen->line(fmt::format("{} {}  {}", undone ? "↺" : "✗", padded(step.name, width),
                             undone ? "taken back on " + step.subject
                                    : "could not be taken back: " + undone.error().message),
                 undone ? Tone::warn : Tone::bad);
  };
  if (env.shared.timeout) {
    hooks.interruption = [until = Deadline::after(*env.shared.timeout),
                          span = *env.shared.timeout]() -> std::optional<Error> {
      if (!until.passed()) return std::nullopt;
      return Error{Code::timeout,
                   "not at the point of no return after " + format_duration(span),
                   "give it more time with --timeout",
                   {},
                   true};
    };
  }
  return hooks;
}

Json to_json(const run::RunReport& report) {
  const auto promoted = promoted_by(report);
  const auto lost = lost_in(report);
  Json json{{"run", report.has_journal ? Json(report.id) : Json()},
            {"command", report.plan.command},
            {"outcome", name_of(report.ending)},
            {"promoted", promoted.empty() ? Json() : Json(promoted)},
            {"lost_bytes", lost ? Json(*lost) : Json()},
            {"ms", report.took.count()}};
  auto steps = Json::array();
  for (const auto& step : report.steps) steps.push_back(step_json(step));
  json["steps"] = std::move(steps);
  json["error"] = report.error ? zx::to_json(*report.error) : Json();
  return json;
}

Result<int> conclude(Env& env, const run::RunReport& report, std::optional<Millis> looked) {
  env.has_acted = true;
  auto json = to_json(report);
  if (looked) json["looked_ms"] = looked->count();
  env.screen.json(json);
  if (report.ending == run::Ending::done || report.ending == run::Ending::aborted) {
    env.screen.line(report.ending == run::Ending::done
                        ? summary_of(report, looked)
                        : fmt::format("Run {} is taken back.", report.id));
    if (!env.shared.quiet) env.screen.line("next: " + next_of(env, report), Tone::dim);
    if (report.ending == run::Ending::done) ZX_TRY(is_as_named(env, report));
    return 0;
  }
  auto error = report.error.value_or(Error{Code::failed, "the run failed", {}, {}, false});
  // The exit status tells what became of the run, not what went wrong first.
  const bool by_signal = error.code == Code::interrupted || error.code == Code::terminated;
  if (report.ending == run::Ending::partial) error.code = Code::partial;
  if (report.ending == run::Ending::refused && error.code != Code::disk_full)
    error.code = Code::refused;
  if (report.ending == run::Ending::failed && !by_signal) error.code = Code::failed;
  error.trail.push_back(!report.has_journal ? std::string("nothing was changed")
                        : report.ending == run::Ending::partial
                            ? fmt::format("run {} is partly applied", report.id)
                            : fmt::format("run {}, everything it did is taken back", report.id));
  return fail(std::move(error));
}

void add_consent(CLI::App* leaf, Consent& consent, const std::string& what) {
  leaf->add_flag("-y,--yes", consent.yes, "do it without being asked (not in production)");
  leaf->add_option("--confirm", consent.confirm, "do it without being asked: names the " + what)
      ->type_name("NAME");
}

Status need_consent(Env& env, const config::Config& config, const Consent& consent,
                    const std::string& name, const std::string& question) {
  const bool production = config.platform.environment == "production";
  const auto flag = production ? "--confirm " + shell_word(name) : std::string("--yes");
  if (!consent.confirm.empty() && consent.confirm != name)
    return fail(
        Code::declined,
        fmt::format("--confirm names \"{}\", this is about {}", first_line(consent.confirm), name),
        "nothing was changed; --confirm " + shell_word(name));
  if (!consent.confirm.empty() || (consent.yes && !production)) return {};
  if (consent.yes)
    return fail(Code::declined, "environment is \"production\": --yes is not enough",
                "name what is meant: " + flag);
  return env.screen.confirm(question, flag);
}

}  // namespace zx::commands
