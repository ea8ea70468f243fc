// zx backup list: the sets, how far each is trusted, and why it is kept.
#include "commands/backup/list.h"

#include <algorithm>

#include <fmt/format.h>

#include "commands/backup/backup.h"
#include "commands/backup/sets.h"
#include "commands/fit.h"
#include "lib/backup/metrics.h"
#include "lib/backup/run.h"
#include "lib/base/count.h"
#include "lib/base/text.h"

namespace zx::commands {
namespace {

using backup::Decision;
using backup::Entry;
using backup::Trust;

enum Nagios { kOk = 0, kWarning = 1, kCritical = 2 };

std::string nagios_text(std::string text) {
  // What follows a "|" is figures.
  std::replace(text.begin(), text.end(), '|', '/');
  return first_line(text);
}

std::string figures(const std::vector<Entry>& entries, const std::vector<const Entry*>& good,
                    std::optional<Millis> age, Millis rpo) {
  std::string out;
  if (age)
    out = fmt::format("age={}s;{};{};0 ", age->count() / 1000, rpo.count() / 1000,
                      2 * (rpo.count() / 1000));
  out += fmt::format("sets={} good={} size={}B", entries.size(), good.size(),
                     backup::stored_bytes(entries));
  if (!good.empty())
    if (const auto rto = backup::believed(*good.front()->set, good.front()->checks).restore_ms)
      out += fmt::format(" rto={:.3f}s", static_cast<double>(*rto) / 1000);
  return out;
}

std::vector<Cell> row_of(const Entry& entry, const Decision& decision, Wall now, bool with_parts,
                         bool with_label) {
  const auto trust =
      entry.set ? std::optional(backup::believed(*entry.set, entry.checks)) : std::nullopt;
  std::vector<Cell> row{entry.id, entry.set ? short_age(entry.set->begun, now) : "–",
                        entry.set ? format_bytes(entry.set->bytes()) : "–", trust_cell(entry, now)};
  row.emplace_back(decision.brief(),
                   decision.is_kept && decision.is_counted ? Tone::plain : Tone::warn);
  row.emplace_back(trust && trust->restore_ms ? format_duration(Millis(*trust->restore_ms)) : "–");
  if (with_parts) row.emplace_back(entry.set ? entry.set->parts() : "–");
  if (with_label) row.emplace_back(entry.set ? entry.set->label : "");
  return row;
}

bool all_hold_the_same(const std::vector<Entry>& entries) {
  std::string parts;
  for (const auto& entry : entries) {
    if (!entry.set) continue;
    if (!parts.empty() && entry.set->parts() != parts) return false;
    parts = entry.set->parts();
  }
  return true;
}

void show_table(Env& env, const std::vector<Entry>& entries, const std::vector<Decision>& decisions,
                Wall now) {
  const bool with_parts = !all_hold_the_same(entries);
  const bool with_label = std::any_of(entries.begin(), entries.end(), [](const Entry& entry) {
    return entry.set && !entry.set->label.empty();
  });
  Table table{{"SET", "AGE", "SIZE", "TRUST", "KEPT AS", "RTO"}, {}};
  if (with_parts) table.head.emplace_back("HOLDS");
  if (with_label) table.head.emplace_back("LABEL");
  for (std::size_t i = 0; i < entries.size(); ++i)
    table.rows.push_back(row_of(entries[i], decisions[i], now, with_parts, with_label));
  if (with_label) fit(table, table.head.size() - 1);
  env.screen.table(table);
}

// What is to be done first about these sets; empty: nothing.
std::string next_of(Env& env, const std::vector<Entry>& entries,
                    const std::vector<Decision>& decisions, const std::vector<const Entry*>& good) {
  if (good.empty()) return env.typed("backup run");
  for (std::size_t i = 0; i < entries.size(); ++i)
    if (entries[i].set && !entries[i].trust_problem.empty())
      return env.typed("backup verify " + entries[i].id);
  const auto& newest = *good.front();
  if (backup::believed(*newest.set, newest.checks).trust != Trust::restored)
    return env.typed(verify_restore_of(newest, entries));
  const bool has_more = std::any_of(decisions.begin(), decisions.end(),
                                    [](const Decision& decision) { return !decision.is_kept; });
  return has_more ? env.typed("backup prune") : std::string();
}

std::optional<Wall> oldest_point(const std::vector<const Entry*>& good) {
  std::optional<Wall> oldest;
  for (const auto* entry : good) {
    const auto point = entry->set->point();
    oldest = oldest ? std::min(*oldest, point) : point;
  }
  return oldest;
}

std::vector<std::string> warnings_of(const std::vector<Entry>& entries,
                                     const std::vector<Decision>& decisions) {
  std::vector<std::string> warnings;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    auto problem = problem_of(entries[i]);
    if (problem.empty() && entries[i].set)
      problem = backup::believed(*entries[i].set, entries[i].checks).doubt;
    if (!problem.empty())
      warnings.push_back(entries[i].id + ": " + problem);
    else if (decisions[i].is_odd)
      warnings.push_back(entries[i].id + ": " + decisions[i].reasons.front());
  }
  return warnings;
}

Json set_json(const Entry& entry, const Decision& decision) {
  Json json{{"id", entry.id}};
  const bool is_newer = !entry.set && entry.set.error().code == Code::refused;
  if (entry.set) {
    const auto& set = *entry.set;
    const auto trust = backup::believed(set, entry.checks);
    json["trust"] = backup::name_of(trust.trust);
    json["trusted_at"] = format_utc(trust.at);
    json["bytes"] = set.bytes();
    json["new_bytes"] = set.new_bytes();
    json["label"] = set.label;
    json["begun"] = format_utc(set.begun);
    json["ended"] = format_utc(set.ended);
    json["point"] = format_utc(set.point());
    json["parts"] = backup::candidate_of(entry).parts;
    json["host"] = set.host;
    json["platform"] = set.platform;
    json["rto_ms"] = trust.restore_ms ? Json(*trust.restore_ms) : Json();
    json["warnings"] = set.warnings;
  } else {
    json["trust"] = is_newer ? Json() : Json(backup::name_of(Trust::corrupt));
  }
  json["counted"] = decision.is_counted;
  json["kept"] = decision.is_kept;
  json["kept_as"] = decision.is_kept ? Json(decision.reasons) : Json::array();
  json["expires"] = decision.expires ? Json(backup::format_day(*decision.expires)) : Json();
  const auto problem = problem_of(entry);
  json["problem"] = problem.empty() ? Json() : Json(problem);
  return json;
}

void show(Env& env, const backup::Repository& repository, const std::vector<Entry>& entries,
          const std::vector<Decision>& decisions, Wall now) {
  const auto good = backup::good_sets(entries, now);
  const auto next = next_of(env, entries, decisions, good);
  const auto oldest = oldest_point(good);
  const auto warnings = warnings_of(entries, decisions);
  const auto bytes = backup::stored_bytes(entries);
  if (entries.empty()) {
    env.screen.line(fmt::format("No sets in {}. next: {}", repository.path(), next));
  } else {
    show_table(env, entries, decisions, now);
    for (const auto& warning : warnings) env.screen.line(warning, Tone::warn);
    env.screen.line(fmt::format("{}, {}. {}.{}",
                                count_of(static_cast<std::int64_t>(entries.size()), "set"),
                                format_bytes(bytes),
                                oldest ? "Oldest point of return: " + format_local(*oldest, Wall{})
                                       : "No set is good: there is nothing to return to",
                                next.empty() ? "" : " next: " + next));
  }
  Json json{{"repository", repository.path()}, {"sets", Json::array()}};
  for (std::size_t i = 0; i < entries.size(); ++i)
    json["sets"].push_back(set_json(entries[i], decisions[i]));
  json["bytes"] = bytes;
  json["newest_good"] = good.empty() ? Json() : Json(good.front()->id);
  json["oldest_point"] = oldest ? Json(format_utc(*oldest)) : Json();
  json["warnings"] = warnings;
  json["error"] = Json();
  env.screen.json(json);
}

Result<int> run(Env& env) {
  ZX_ASSIGN(const auto* config, env.config());
  const bool nagios = env.shared.format == Format::nagios;
  const auto repository = open_repository(*config);
  // Where backups are wanted and none was ever made, that is the answer.
  if (!repository && nagios && repository.error().code == Code::not_found) {
    env.screen.raw("BACKUP CRITICAL: " + nagios_text(repository.error().message) + "\n");
    return kCritical;
  }
  if (!repository) return fail(repository.error());
  ZX_ASSIGN(const auto entries, read_sets(env, *repository));
  const auto now = wall_now();
  if (nagios) {
    const auto answer = nagios_line(entries, *config, now);
    env.screen.raw(answer.line + "\n");
    return answer.exit;
  }
  show(env, *repository, entries, decisions_of(entries, config->backup, now), now);
  return 0;
}

}  // namespace

NagiosAnswer nagios_line(const std::vector<Entry>& entries, const config::Config& config,
                         Wall now) {
  const auto good = backup::good_sets(entries, now);
  const auto& rpo = config.backup.rpo;
  const auto answer = [&](Nagios state, const std::string& says, std::optional<Millis> age) {
    const char* name = state == kOk ? "OK" : state == kWarning ? "WARNING" : "CRITICAL";
    return NagiosAnswer{state, fmt::format("BACKUP {}: {} | {}", name, nagios_text(says),
                                           figures(entries, good, age, rpo))};
  };
  if (good.empty())
    return answer(kCritical,
                  entries.empty()
                      ? std::string("there is no set")
                      : fmt::format("none of {} is good",
                                    count_of(static_cast<std::int64_t>(entries.size()), "set")),
                  {});
  auto stalest = stalest_of(good, config);
  if (stalest.part.empty()) stalest = {{}, good.front()->set->point(), good.front()};
  if (!stalest.point) return answer(kCritical, fmt::format("no good set has {}", stalest.part), {});
  const auto age = std::max(std::chrono::duration_cast<Millis>(now - *stalest.point), Millis(0));
  const auto says =
      fmt::format("{}backed up {} ago, in {} ({}); the target is {}",
                  stalest.part.empty() ? "" : stalest.part + " ", short_age(*stalest.point, now),
                  stalest.entry->id, trust_cell(*stalest.entry, now).text, spell_duration(rpo));
  if (age > 2 * rpo) return answer(kCritical, says, age);
  if (age > rpo) return answer(kWarning, says, age);
  for (const auto& entry : entries) {
    if (!entry.set && entry.set.error().code == Code::refused) continue;  // of a newer zx
    if (entry.set && backup::is_ahead(entry.set->begun, now)) continue;
    if (backup::candidate_of(entry).standing == backup::Standing::good) break;
    return answer(
        kWarning,
        fmt::format("the newest set, {}, is not good: {}; {}", entry.id, problem_of(entry), says),
        age);
  }
  return answer(kOk, says, age);
}

void add_backup_list(Tree& tree) {
  tree.leaf(
      backup_group(tree), "list", "the sets of the repository, and how far each can be trusted",
      {.description =
           "Lists the recovery sets, newest first: how far each is known to be good (checksummed "
           "when it was written, decoded, restored), why it is kept, and how long a restore of it "
           "took when that was tried (RTO). A set in which a check found damage, or that needs an "
           "archive that is damaged, is corrupt and counts for nothing.\n\n"
           "With -o nagios it is a plugin: one line and the status 0 to 3. It is a warning when "
           "some part (a cluster, a deployment, a tree) has no good set younger than "
           "backup.target.rpo, or the newest set is not good, and critical when none is younger "
           "than twice that. The same figures are in the file that backup.metrics_file names.",
       .examples = {{"zx backup list", "what there is to go back to"},
                    {"zx backup list -o json", "every figure, for programs"},
                    {"zx backup list -o nagios", "for Nagios, Icinga or Zabbix"}},
       .exits = {Code::config, Code::auth, Code::locked, Code::refused},
       .nagios = true},
      [](Env& env) { return run(env); });
}

}  // namespace zx::commands
