// zx restore pg|redis|files|full: a set takes the place of what is there.
#include "commands/restore/restore.h"

#include <ctime>
#include <filesystem>
#include <memory>

#include <fmt/format.h>

#include "commands/fit.h"
#include "lib/backup/files_restore.h"
#include "lib/backup/pg_table.h"
#include "lib/base/count.h"
#include "lib/base/text.h"

namespace zx::commands {
namespace {

using backup::Source;

struct Options {
  std::string set, at, confirm, into;
  std::vector<std::string> databases, tables, paths, only;
  int jobs = 0;
  bool dry_run = false;
};

struct Kind {
  const char* name;
  std::vector<Source> sources;
  bool with_services = false;
};

constexpr std::size_t kColumns = 100;
constexpr Millis kDraw{200};

// "2026-11-24", "2026-11-24 02:00", with seconds too; of this host's zone, of UTC with a Z.
Result<Wall> parse_time(const std::string& text) {
  auto words = text;
  const bool is_utc = words.ends_with('Z');
  if (is_utc) words.pop_back();
  for (const char* form :
       {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"}) {
    std::tm parts{};
    parts.tm_isdst = -1;
    const char* end = strptime(words.c_str(), form, &parts);
    if (end == nullptr || *end != '\0') continue;
    // A day alone means all of it.
    if (std::string_view(form) == "%Y-%m-%d") {
      parts.tm_hour = 23;
      parts.tm_min = parts.tm_sec = 59;
    }
    const auto day = parts.tm_mday;
    const auto seconds = is_utc ? timegm(&parts) : mktime(&parts);
    if (parts.tm_mday != day) break;  // there is no such day
    return std::chrono::system_clock::from_time_t(seconds) + Millis(999);
  }
  return fail(Code::usage, fmt::format("--at takes a time such as \"2026-11-24 02:00\", not \"{}\"",
                                       first_line(text)));
}

Result<backup::RestoreWish> wish_of(Env& env, const Options& given, const Kind& kind) {
  backup::RestoreWish wish;
  wish.sources = kind.sources;
  wish.databases = given.databases;
  wish.tables = given.tables;
  if (!given.tables.empty() && given.databases.size() > 1)
    return fail(Code::usage, "--table takes one --db", "a run for each database: zx restore pg");
  wish.files = given.paths;
  wish.set = given.set;
  if (!given.at.empty()) {
    if (!given.set.empty()) return fail(Code::usage, "--set and --at exclude one another");
    ZX_ASSIGN(wish.at, parse_time(given.at));
  }
  wish.with_services = kind.with_services;
  wish.one_tree = !given.into.empty();
  // Everything: a set of one part is not it, unless it is named.
  if (kind.with_services && given.set.empty()) {
    ZX_ASSIGN(const auto* config, env.config());
    ZX_ASSIGN(wish.sources, backup::sources_of(*config, {}));
  }
  wish.progress = [&env](const std::string& words) { env.screen.progress("… " + words); };
  return wish;
}

std::string name_for(const config::Config& config, const run::Plan& plan) {
  if (plan.command == "restore pg") return get_string(plan.context, "cluster");
  if (plan.command == "restore redis") return get_string(plan.context, "redis_deployment");
  return config.platform.name;
}

Millis age_of(Wall at) { return std::chrono::duration_cast<Millis>(wall_now() - at); }

Json parts_json(const backup::Set& set) {
  auto parts = Json::array();
  const auto add = [&](const std::string& part, Wall at) {
    parts.push_back({{"part", part}, {"at", format_utc(at)}, {"lost_ms", age_of(at).count()}});
  };
  for (const auto& files : set.files) add(files.path, files.at);
  if (set.pg) add("pg " + set.pg->cluster, set.pg->at);
  if (set.redis) add("redis " + set.redis->deployment, set.redis->at);
  return parts;
}

Json to_json(const backup::PreparedRestore& prepared) {
  const auto& entry = prepared.chosen.entry;
  const auto known = backup::believed(*entry.set, entry.checks);
  return Json{{"set", entry.id},
              {"trust", name_of(known.trust)},
              {"point", format_utc(entry.set->point())},
              {"parts", parts_json(*entry.set)},
              {"passed_over", prepared.chosen.passed_over},
              {"bytes", prepared.bytes},
              {"stored_bytes", prepared.stored},
              {"replaces", prepared.replaces},
              {"expected_ms", prepared.expected_ms ? Json(*prepared.expected_ms) : Json()},
              {"warnings", prepared.warnings}};
}

void say_passed_over(Env& env, const backup::Chosen& chosen) {
  for (const auto& words : chosen.passed_over)
    env.screen.note("passed over, it is damaged: set " + words);
  if (!chosen.passed_over.empty())
    env.screen.note("taken instead, an older one: set " + chosen.entry.id);
}

void show_plan(Env& env, const backup::PreparedRestore& prepared) {
  const auto& entry = prepared.chosen.entry;
  const auto& set = *entry.set;
  const auto known = backup::believed(set, entry.checks);
  const auto say = [&](const std::string& text, Tone tone = Tone::plain) {
    env.screen.line(wrap(text, kColumns, ""), tone);
  };
  say(fmt::format("Would restore set {} of {} ({} ago), {} since {}.", set.id,
                  format_local(set.point(), wall_now()), format_duration(age_of(set.point())),
                  name_of(known.trust), format_local(known.at, wall_now())));
  say(fmt::format(
      "Reads {}, writes about {}. {}", format_bytes(prepared.stored), format_bytes(prepared.bytes),
      prepared.expected_ms ? fmt::format("The last rehearsal took {}.",
                                         format_duration(Millis(*prepared.expected_ms)))
                           : "It was never rehearsed: zx backup verify --level restore."));
  Table table;
  table.head = {"REPLACED", "LOST"};
  for (const auto& what : prepared.replaces)
    table.rows.push_back(
        {what, "what was written in the last " + format_duration(age_of(set.point()))});
  env.screen.table(table);
  for (const auto& warning : prepared.warnings) say("But " + warning + ".", Tone::warn);
  env.screen.line("");
  show_steps(env.screen, prepared.plan);
  env.screen.line("");
}

// The same once more, without --dry-run: without its flags it would restore more.
std::string typed_again(Env& env, const Options& given, const std::string& command,
                        const std::string& name) {
  auto words = command;
  const auto add = [&](const char* flag, const std::string& value) {
    if (!value.empty()) words += fmt::format(" {} {}", flag, shell_word(value));
  };
  add("--set", given.set);
  add("--at", given.at);
  for (const auto& database : given.databases) add("--db", database);
  for (const auto& table : given.tables) add("--table", table);
  for (const auto& path : given.paths) add("--path", path);
  add("--confirm", name);
  return env.typed(words);
}

// Bytes that were loaded, drawn on a terminal.
std::function<void(std::uint64_t)> progress_of(Env& env, std::uint64_t expected) {
  struct State {
    std::mutex mutex;
    std::uint64_t bytes = 0;
    Monotonic begun = monotonic_now(), shown{};
  };
  const auto state = std::make_shared<State>();
  return [&env, expected, state](std::uint64_t more) {
    const std::lock_guard lock(state->mutex);
    state->bytes += more;
    if (since(state->shown) < kDraw) return;
    state->shown = monotonic_now();
    const auto took = std::max<std::int64_t>(1, since(state->begun).count());
    env.screen.progress(
        fmt::format("… {} of about {}, {}/s", format_bytes(state->bytes), format_bytes(expected),
                    format_bytes(state->bytes * 1000 / static_cast<std::uint64_t>(took))));
  };
}

Result<int> finish(Env& env, const backup::PreparedRestore& prepared,
                   const run::RunReport& report) {
  if (report.ending != run::Ending::done) return conclude(env, report);
  env.has_acted = true;
  env.screen.line(restore_summary(report));
  say_warnings(env, report);
  say_passed_over(env, prepared.chosen);
  env.screen.line("next: " + env.typed("restore commit") + ", or " + env.typed("restore undo"),
                  Tone::dim);
  auto json = commands::to_json(report);
  json.update(to_json(prepared));
  env.screen.json(json);
  return prepared.chosen.passed_over.empty() ? 0 : info(Code::older_set).exit;
}

// As restore_files() asks for it.
Status can_be_written_into(const std::string& into) {
  if (!os::exists(into)) {
    if (os::is_directory(os::parent_of(into))) return {};
    return fail(Code::refused, os::parent_of(into) + " is no directory", "make it first");
  }
  std::error_code code;
  if (os::is_directory(into) && std::filesystem::is_empty(into, code)) return {};
  return fail(Code::refused,
              code ? fmt::format("cannot look into {}: {}", into, code.message())
                   : into + " is there, and is no empty directory",
              "name one that is empty or not there");
}

Result<int> restore_aside(Env& env, const config::Config& config, const Options& given,
                          const backup::RestoreWish& wish) {
  ZX_ASSIGN(const auto hand, RestoreHand::make(env, config));
  ZX_ASSIGN(const auto chosen, backup::choose_set(hand->repository(), wish));
  say_passed_over(env, chosen);
  for (const auto& warning : chosen.warnings) env.screen.note(warning);
  const auto& set = *chosen.entry.set;
  std::vector<const backup::FilesPart*> parts;
  for (const auto& part : set.files)
    if (wish.files.empty() || contains(wish.files, part.path) || contains(wish.files, part.name))
      parts.push_back(&part);
  if (given.dry_run) {
    ZX_TRY(can_be_written_into(given.into));
    env.screen.line(fmt::format("Would restore {} of set {} into {}: {}{}.", parts.front()->path,
                                set.id, given.into, given.only.empty() ? "" : "at most ",
                                format_bytes(parts.front()->bytes)));
    env.screen.json(Json{{"outcome", "planned"},
                         {"set", set.id},
                         {"path", parts.front()->path},
                         {"into", given.into},
                         {"bytes", parts.front()->bytes},
                         {"passed_over", chosen.passed_over},
                         {"warnings", chosen.warnings},
                         {"error", Json()}});
    return chosen.passed_over.empty() ? 0 : info(Code::older_set).exit;
  }
  backup::FilesRestore restore;
  restore.into = given.into;
  restore.only = given.only;
  restore.until = Deadline::after(env.shared.timeout.value_or(Millis(24 * 3'600'000)));
  const auto draw = progress_of(env, parts.front()->bytes);
  restore.progress = [&](std::uint64_t, std::uint64_t more) { draw(more); };
  ZX_ASSIGN(const auto done, backup::restore_files(hand->repository(), *parts.front(), restore));
  for (const auto& warning : done.warnings) env.screen.note(warning);
  env.screen.line(fmt::format("Restored {} of set {} into {}: {}, {} in {}.", parts.front()->path,
                              set.id, given.into,
                              done.files == 1 ? "1 entry" : fmt::format("{} entries", done.files),
                              format_bytes(done.bytes), format_duration(Millis(done.took_ms))));
  env.screen.json(Json{{"outcome", "done"},
                       {"set", set.id},
                       {"path", parts.front()->path},
                       {"into", given.into},
                       {"files", done.files},
                       {"bytes", done.bytes},
                       {"ms", done.took_ms},
                       {"passed_over", chosen.passed_over},
                       {"warnings", done.warnings},
                       {"error", Json()}});
  return chosen.passed_over.empty() ? 0 : info(Code::older_set).exit;
}

Result<int> run(Env& env, const Options& given, const Kind& kind) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto wish, wish_of(env, given, kind));
  if (!given.into.empty()) return restore_aside(env, *config, given, wish);
  ZX_ASSIGN(const auto hand, RestoreHand::make(env, *config));
  const ha::TurnWish turn{std::string("restore ") + kind.name, {}};
  std::unique_ptr<coord::Lease> lease;
  if (given.dry_run) {
    ZX_TRY(ha::may_take_turn(hand->ground(), turn));
  } else {
    ZX_ASSIGN(lease, ha::take_turn(hand->ground(), turn));
  }
  if (given.jobs > 0) hand->world().jobs = given.jobs;
  ZX_ASSIGN(auto prepared, backup::prepare_restore(hand->world(), wish));
  prepared.plan.context["rto_target_ms"] = config->backup.rto.count();
  prepared.plan.context["rpo_target_ms"] = config->backup.rpo.count();
  say_passed_over(env, prepared.chosen);
  const auto name = name_for(*config, prepared.plan);
  if (given.dry_run) {
    show_plan(env, prepared);
    env.screen.line("Run it: " + typed_again(env, given, turn.command, name));
    auto json = Json{{"run", Json()}, {"command", turn.command}, {"outcome", "planned"}};
    json.update(to_json(prepared));
    json["steps"] = steps_json(prepared.plan);
    json["error"] = Json();
    env.screen.json(json);
    return prepared.chosen.passed_over.empty() ? 0 : info(Code::older_set).exit;
  }
  if (given.confirm.empty() && env.screen.is_terminal()) show_plan(env, prepared);
  ZX_TRY(may_replace(env, given.confirm, name));
  for (const auto& warning : prepared.warnings) env.screen.note(warning);
  hand->world().progress = progress_of(env, prepared.bytes);
  ZX_TRY(ha::supersede(hand->ground(), turn.command));
  const auto report =
      run::execute(prepared.plan, backup::restore_actions(hand->world()),
                   config->platform.state_dir, hand->hooks(env, prepared.plan, *lease));
  if (!report) return fail(report.error());
  return finish(env, prepared, *report);
}

CLI::App* group(Tree& tree) {
  return tree.group("restore", "bring back databases, keys and files of a set");
}

constexpr const char* kHow =
    "The newest good set is taken, or --set, or the newest of --at and before. The size and "
    "SHA-256 of everything that is wanted of it are compared first; when the newest is damaged, "
    "that is said, the newest good one is taken, and the exit status is 11.\n\n"
    "Everything is looked at before anything is changed, then loaded beside what is there "
    "(DB_zxnew, PATH.zxnew), compared, and databases analyzed, and only then put in its place, by "
    "renaming. What was there is kept (DB_zxold, TABLE_zxold, PATH.zxold, a safety copy of Redis) "
    "until zx restore commit, and no other restore begins before; zx restore undo brings it back. "
    "Every step is journalled: killed anywhere, the run is finished with zx runs resume or taken "
    "back with zx runs abort.";

const std::vector<Code> kExits{Code::failed, Code::refused,  Code::disk_full,   Code::partial,
                               Code::locked, Code::config,   Code::unreachable, Code::timeout,
                               Code::auth,   Code::declined, Code::older_set};

void add_set_flags(CLI::App* leaf, Options& given) {
  leaf->add_option("--set", given.set, "this set, of zx backup list")
      ->type_name("SET")
      ->check(not_empty);
  leaf->add_option(
          "--at", given.at,
          "the newest set of this time or before: \"2026-11-24 02:00\" by the clock of this "
          "host, with a Z behind it UTC; a day alone means its end")
      ->type_name("TIME")
      ->check(not_empty);
  leaf->add_flag("--dry-run,--plan", given.dry_run,
                 "print the plan and change nothing; --plan is the same");
  leaf->add_option("--confirm", given.confirm, "do it without being asked: names what is replaced")
      ->type_name("NAME");
  leaf->add_option("--jobs", given.jobs, "databases at once, else backup.jobs")
      ->type_name("N")
      ->check(CLI::Range(1, 64));
}

CLI::App* add(Tree& tree, const Kind& kind, const char* summary, const std::string& first,
              std::vector<Example> examples, const std::shared_ptr<Options>& given) {
  auto* leaf = tree.leaf(
      group(tree), kind.name, summary,
      {.description = first + "\n\n" + kHow, .examples = std::move(examples), .exits = kExits},
      [given, kind](Env& env) { return run(env, *given, kind); });
  add_set_flags(leaf, *given);
  return leaf;
}

}  // namespace

Status may_replace(Env& env, const std::string& confirm, const std::string& name) {
  if (confirm == name) return {};
  if (!confirm.empty())
    return fail(Code::declined,
                fmt::format("--confirm names \"{}\", this is about {}", first_line(confirm), name),
                "nothing was changed; --confirm " + shell_word(name));
  return env.screen.confirm(fmt::format("Replace what {} has?", name),
                            "--confirm " + shell_word(name));
}

void add_restore(Tree& tree) {
  auto given = std::make_shared<Options>();
  add(tree, {"full", {}, true}, "bring back everything of a set",
      "Restores files, databases and Redis, in this order, the reverse of that of a backup; "
      "without --set, of a set that holds all that zx.toml names of these. The services of zx.toml "
      "are stopped from the last to the first once files and databases are loaded, and started "
      "again, each when the one before it is healthy or its time is over. Where one does not "
      "become healthy the exit status is 4, and what was restored stays.",
      {{"zx restore full --plan", "what it would do, cost and lose"},
       {"zx restore full --confirm zhixuan", "do it; names the platform"},
       {"zx restore full --at \"2026-11-24 02:00\" --confirm zhixuan", "as it was then"}},
      given);
  given = std::make_shared<Options>();
  auto* leaf = add(tree, {"pg", {Source::pg}, false}, "bring back databases of a set",
                   "Restores databases of the cluster, on its primary; standbys follow by "
                   "themselves. Whoever is connected to a database that is replaced is "
                   "disconnected, on standbys too. Roles that are missing are made, others are "
                   "left as they are. Subscriptions are left out; where a tablespace of the set is "
                   "missing, all goes into the default one. Services are not stopped: zx restore "
                   "full does that.\n\n"
                   "With --table only the rows of these tables are replaced, and the rest of the "
                   "database stays as it is. Their columns must be those of the set. In one "
                   "transaction the old rows go into TABLE_zxold and those of the set take their "
                   "place; meanwhile whoever reads or writes the tables waits. It takes a "
                   "superuser. Foreign keys of and to them are checked: when a row would refer to "
                   "nothing, nothing is changed, and both tables must be named. Triggers and rules "
                   "do not act; sequences are set forward, never back. A table that is not there "
                   "is made again with its indexes, constraints and rights; foreign keys of others "
                   "to it are not, and are named. Of a partitioned table the partitions are to be "
                   "named.",
                   {{"zx restore pg --plan", "all databases of the newest good set"},
                    {"zx restore pg --db shop --confirm main", "one; names the cluster"},
                    {"zx restore pg --db shop --table orders --table order_lines --confirm main",
                     "the rows of two tables"}},
                   given);
  leaf->add_option("--db", given->databases, "only this database; may be repeated")
      ->type_name("NAME")
      ->check(not_empty);
  leaf->add_option("--table", given->tables,
                   "only this table, TABLE or SCHEMA.TABLE; may be repeated")
      ->type_name("TABLE")
      ->check(not_empty);
  given = std::make_shared<Options>();
  add(tree, {"redis", {Source::redis}, false}, "bring back the keys of a set",
      "Restores the data set of Redis, as zx redis restore does, in a run of its own. Services are "
      "not stopped: zx restore full does that.",
      {{"zx restore redis --confirm cache", "names the deployment"}}, given);
  given = std::make_shared<Options>();
  leaf = add(tree, {"files", {Source::files}, false}, "bring back files of a set",
             "Restores trees of backup.files, or with --into one of them into a directory, where "
             "nothing is replaced. A tree that is a symbolic link or a mount point, or has a mount "
             "point in it, can only go --into a directory. Services are not stopped: zx restore "
             "full does that.",
             {{"zx restore files --confirm zhixuan", "all trees; names the platform"},
              {"zx restore files --path /app/uploads --into /tmp/look --only '*.jpg'",
               "look at some of them"}},
             given);
  leaf->add_option("--path", given->paths, "only this tree; may be repeated")
      ->type_name("PATH")
      ->check(not_empty);
  auto* into = leaf->add_option("--into", given->into, "a directory that is empty or not there")
                   ->type_name("DIRECTORY")
                   ->check(not_empty);
  tree.complete(into, Complete::directory);
  leaf->add_option("--only", given->only, "patterns of what to restore; may be repeated")
      ->type_name("PATTERN")
      ->needs(into);
  add_kept(tree, group(tree));
}

}  // namespace zx::commands
