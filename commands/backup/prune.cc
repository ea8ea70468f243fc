// zx backup prune: deletes the sets that no rule keeps.
#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "commands/backup/backup.h"
#include "commands/backup/sets.h"
#include "commands/fit.h"
#include "commands/run_report.h"
#include "lib/backup/prune.h"
#include "lib/base/count.h"
#include "lib/base/log.h"
#include "lib/base/text.h"

namespace zx::commands {
namespace {

using backup::Pruned;

struct Options {
  bool dry_run = false, explain = false;
  Consent consent;
};

std::string sets(std::size_t count) { return count_of(static_cast<std::int64_t>(count), "set"); }

// One row a reason with --explain, else the first of them.
void show_table(Env& env, const Pruned& plan, bool explain, Wall now) {
  if (plan.entries.empty()) return;
  Table table{{"", "SET", "AGE", "SIZE", "WHY"}, {}};
  if (explain) table.head.insert(table.head.end() - 1, "UNTIL");
  const auto why = table.head.size() - 1;
  for (std::size_t i = 0; i < plan.entries.size(); ++i) {
    const auto& entry = plan.entries[i];
    const auto& decision = plan.decisions[i];
    std::vector<Cell> row{decision.is_kept ? Cell("keep") : Cell("delete", Tone::warn), entry.id,
                          entry.set ? short_age(entry.set->begun, now) : "–",
                          entry.set ? format_bytes(bytes_of(entry)) : "–"};
    if (explain)
      row.emplace_back(decision.expires ? backup::format_day(*decision.expires) : "–", Tone::dim);
    row.emplace_back(decision.reasons.front(), decision.is_odd ? Tone::warn : Tone::plain);
    table.rows.push_back(std::move(row));
    if (!explain) continue;
    for (std::size_t more = 1; more < decision.reasons.size(); ++more) {
      table.rows.emplace_back(why);
      table.rows.back().emplace_back(decision.reasons[more]);
    }
  }
  fit(table, why);
  env.screen.table(table);
}

Json to_json(const Pruned& pruned, const char* outcome) {
  Json json{{"outcome", outcome}, {"sets", Json::array()}};
  for (std::size_t i = 0; i < pruned.entries.size(); ++i) {
    const auto& entry = pruned.entries[i];
    const auto& decision = pruned.decisions[i];
    json["sets"].push_back(
        {{"id", entry.id},
         {"begun", entry.set ? Json(format_utc(entry.set->begun)) : Json()},
         {"bytes", bytes_of(entry)},
         {"action", contains(pruned.deleted, entry.id) ? "delete" : "keep"},
         {"counted", decision.is_counted},
         {"reasons", decision.reasons},
         {"expires", decision.expires ? Json(backup::format_day(*decision.expires)) : Json()}});
  }
  json["deleted"] = pruned.deleted;
  json["kept"] = pruned.entries.size() - pruned.deleted.size();
  json["freed_bytes"] = pruned.freed;
  json["leftovers"] = {{"runs", pruned.finished.runs}, {"archives", pruned.finished.archives}};
  json["warnings"] = pruned.warnings;
  json["error"] = Json();
  return json;
}

void show_warnings(Env& env, const Pruned& pruned) {
  for (const auto& warning : pruned.warnings) env.screen.note(warning);
}

void show_plan(Env& env, const config::Config& config, const Pruned& plan, bool explain) {
  if (plan.deleted.empty()) {
    env.screen.line(
        fmt::format("Nothing to delete: {}, all of them stay.", sets(plan.entries.size())));
  } else {
    env.screen.line(fmt::format("Would delete {}, {}; {} stay.", sets(plan.deleted.size()),
                                format_bytes(plan.freed),
                                plan.entries.size() - plan.deleted.size()));
    const bool production = config.platform.environment == "production";
    env.screen.line(
        fmt::format("Run it: {} {}", env.typed(explain ? "backup prune --explain" : "backup prune"),
                    production ? "--confirm " + shell_word(config.platform.name) : "--yes"));
  }
  env.screen.json(to_json(plan, "planned"));
}

void show_outcome(Env& env, const Pruned& pruned) {
  const auto stay = pruned.entries.size() - pruned.deleted.size();
  if (pruned.finished.runs > 0 || pruned.finished.archives > 0)
    env.screen.line(fmt::format(
        "Removed what was left of {} that ended early, and {} that nothing needed.",
        count_of(pruned.finished.runs, "run"), count_of(pruned.finished.archives, "archive")));
  if (pruned.deleted.empty())
    env.screen.line(fmt::format("Nothing to delete: {}, all of them stay.", sets(stay)));
  else
    env.screen.line(fmt::format("Deleted {}, {}; {} stay.", sets(pruned.deleted.size()),
                                format_bytes(pruned.freed), stay));
}

// What was agreed to and a rule keeps by now.
void warn_of_changes(Pruned& pruned, const Pruned& plan) {
  const auto is_told = [&](const std::string& id) {
    return std::any_of(pruned.warnings.begin(), pruned.warnings.end(),
                       [&](const std::string& warning) { return warning.starts_with(id); });
  };
  for (const auto& id : plan.deleted)
    if (!contains(pruned.deleted, id) && !is_told(id))
      pruned.warnings.push_back(id +
                                " was not deleted: since the plan was made a rule keeps it, "
                                "or it is gone");
}

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto repository, open_repository(*config));
  const auto& policy = config->backup;
  const auto now = wall_now();
  const auto wait = patience(env);
  ZX_ASSIGN(const auto plan, backup::plan_prune(repository, policy, now, wait));
  ZX_TRY(backup::is_of_one_platform(plan.entries, config->platform.name));
  show_table(env, plan, given.explain, now);
  if (given.dry_run || (given.explain && is_asked(given.consent))) {
    show_warnings(env, plan);
    show_plan(env, *config, plan, given.explain);
    return 0;
  }
  if (!plan.deleted.empty())
    ZX_TRY(need_consent(
        env, *config, given.consent, config->platform.name,
        fmt::format("Delete {}, {}?", sets(plan.deleted.size()), format_bytes(plan.freed))));
  // Also when there is nothing to delete: it finishes what was killed.
  ZX_ASSIGN(auto pruned, backup::prune(repository, policy, now, plan.deleted, wait));
  for (const auto& id : pruned.deleted) log::info("deleted " + id);
  warn_of_changes(pruned, plan);
  if (const auto written = write_metrics(*config); !written)
    pruned.warnings.push_back("backup.metrics_file: " + written.error().message);
  show_warnings(env, pruned);
  show_outcome(env, pruned);
  env.screen.json(to_json(pruned, "done"));
  return 0;
}

}  // namespace

void add_backup_prune(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      backup_group(tree), "prune", "delete the sets that no day, week or month keeps",
      {.description =
           "Of each of the last days, weeks and months that have a good set the newest one stays: "
           "as many as backup.retention says. Days are those of UTC, weeks begin on Monday, time "
           "is what the manifest tells. Each part (a cluster, a deployment, a tree) is looked at "
           "by itself, so that a set of one part takes no other set's place.\n\n"
           "The newest good set of each part is never deleted, nor the newest that was decoded or "
           "restored. A corrupt one counts for nothing; it stays for 7 days after that was found, "
           "and until a newer one is good (or, older than backup.retention.max_age, any). A set "
           "that cannot be read, of a newer zx or of the future counts for nothing and stays until "
           "a person deletes it.\n\n"
           "Files that a remaining set refers to stay, and all archives of files while it is not "
           "known what some set needs. Killed at any moment, it leaves every set whole or gone, "
           "and the next prune or backup finishes it.\n\n"
           "While a backup, a verification, a restore or another prune is at work it waits, for "
           "10 minutes or --timeout; as they wait for a prune that deletes.\n\n"
           "--explain says every reason of every set and until when it would stay if a set were "
           "made every day; it deletes nothing unless it is told so by --yes or --confirm.",
       .examples = {{"zx backup prune --explain", "why each set stays or goes"},
                    {"zx backup prune --yes", "delete without being asked, as a timer does"}},
       .exits = {Code::failed, Code::refused, Code::locked, Code::config, Code::auth,
                 Code::declined}},
      [given](Env& env) { return run(env, *given); });
  leaf->add_flag("--dry-run", given->dry_run, "say what would be deleted, and delete nothing");
  leaf->add_flag("--explain", given->explain, "say every reason, and until when each set stays");
  add_consent(leaf, given->consent, "platform");
}

}  // namespace zx::commands
