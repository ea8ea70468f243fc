#include <algorithm>

#include <fmt/format.h>

#include "lib/backup/files_swap.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/restore.h"
#include "lib/base/count.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr Millis kQuick{120'000};
constexpr Millis kLong{24 * 3'600'000};

void add(run::Plan& plan, const char* name, const char* action, const std::string& subject,
         const std::string& why, Millis deadline, bool optional = false) {
  run::Step step;
  step.name = name;
  step.action = std::string("restore.") + action;
  step.subject = subject;
  step.why = why;
  step.deadline = deadline;
  step.optional = optional;
  plan.steps.push_back(std::move(step));
}

std::string few(const std::vector<std::string>& names) {
  constexpr std::size_t kMost = 3;
  if (names.size() <= kMost) return join(names, ", ");
  return fmt::format("{} and {} more", names.front(), names.size() - 1);
}

}  // namespace

run::Plan plan_restore(const std::string& command, const RestoreFacts& facts) {
  run::Plan plan;
  plan.command = command;
  plan.lock = kRestoreLock;
  std::vector<std::string> what;
  if (!facts.databases.empty()) what.push_back(few(facts.databases));
  if (!facts.tables.empty())
    what.push_back(fmt::format("{} in {}", few(facts.tables), facts.table_database));
  if (!facts.redis_deployment.empty()) what.push_back("Redis " + facts.redis_deployment);
  if (!facts.trees.empty()) what.push_back(few(facts.trees));
  plan.summary = fmt::format("restore {} of set {}", join(what, ", "), facts.set);
  plan.context = {{"set", facts.set},
                  {"cluster", facts.cluster},
                  {"databases", facts.databases},
                  {"had_database", facts.had_database},
                  {"table_database", facts.table_database},
                  {"tables", facts.tables},
                  {"had_table", facts.had_table},
                  {"missing_roles", facts.missing_roles},
                  {"trees", facts.trees},
                  {"had_tree", facts.had_tree},
                  {"redis_deployment", facts.redis_deployment},
                  {"redis_target", facts.redis_target},
                  {"redis_file", facts.redis_file},
                  {"with_services", facts.with_services},
                  {"no_tablespaces", facts.no_tablespaces},
                  {"point_ms", facts.point_ms}};
  // Nothing is in anybody's way until all of it is loaded.
  if (!facts.trees.empty())
    add(plan, "files aside", "files-load", few(facts.trees), "beside what is there", kLong);
  if (!facts.missing_roles.empty())
    add(plan, "roles", "roles", few(facts.missing_roles), "the server lacks them", kQuick);
  if (!facts.databases.empty()) {
    add(plan, "load", "pg-load", few(facts.databases), "under another name, on " + facts.primary,
        kLong);
    add(plan, "rows", "pg-check", few(facts.databases), "every table has the rows of the set",
        kLong);
    add(plan, "analyze", "pg-analyze", few(facts.databases),
        "queries need statistics, which no dump has", kLong);
  }
  if (!facts.tables.empty()) {
    add(plan, "load", "table-load", few(facts.tables),
        fmt::format("into {}, on {}", aside_name(facts.table_database), facts.primary), kLong);
    add(plan, "rows", "table-check", few(facts.tables), "each has the rows of the set",
        kQuick * 30);
  }
  if (facts.with_services)
    add(plan, "stop", "stop", few(facts.services), "nobody writes to what is replaced", kQuick * 5);
  if (!facts.trees.empty())
    add(plan, "files", "files-swap", few(facts.trees), "the old ones stay as PATH.zxold", kQuick);
  if (!facts.databases.empty())
    add(plan, "databases", "pg-swap", few(facts.databases), "the old ones stay as DB_zxold",
        kQuick);
  if (!facts.tables.empty())
    add(plan, "tables", "table-swap", few(facts.tables),
        "in one transaction; the old rows stay in TABLE_zxold", kLong);
  if (!facts.redis_deployment.empty())
    add(plan, "redis", "redis", facts.redis_target, "a run of its own; a safety copy stays", kLong);
  add(plan, "receipt", "receipt", "", "what is kept, for zx restore undo", kQuick);
  if (!facts.tables.empty())
    add(plan, "clear", "table-clear", aside_name(facts.table_database), "nobody needs it any more",
        kLong, true);
  if (facts.with_services)
    add(plan, "start", "start", few(facts.services), "and each is healthy", kQuick * 15, true);
  return plan;
}

run::Plan plan_undo(const Kept& kept) {
  run::Plan plan;
  plan.command = "restore undo";
  plan.lock = kRestoreLock;
  plan.summary = fmt::format("take back the restore of set {}", kept.set);
  plan.context = to_json(kept);
  if (kept.with_services)
    add(plan, "stop", "undo-stop", "the services", "nobody writes to what is replaced", kQuick * 5);
  if (!kept.databases.empty())
    add(plan, "databases", "undo-pg", few(kept.databases), "DB_zxold becomes DB again", kQuick);
  if (!kept.tables.empty())
    add(plan, "tables", "undo-tables", few(kept.tables),
        "in one transaction; the rows of TABLE_zxold become theirs again", kLong);
  if (!kept.trees.empty())
    add(plan, "files", "undo-files", few(kept.trees), "PATH.zxold becomes PATH again", kQuick);
  // Last of what is replaced: only it may take long, and lack what it needs.
  if (!kept.redis_deployment.empty())
    add(plan, "redis", "undo-redis", kept.redis_deployment, "as it was before the restore", kLong);
  add(plan, "clear", "undo-clear", "", "what had been restored is removed", kQuick * 5);
  if (kept.with_services)
    add(plan, "start", "start", "the services", "and each is healthy", kQuick * 15, true);
  return plan;
}

}  // namespace zx::backup
