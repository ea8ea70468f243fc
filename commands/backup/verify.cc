// zx backup verify: is a set good, and how long does a restore of it take?
#include "lib/backup/verify.h"

#include <memory>

#include <fmt/format.h>

#include "commands/backup/backup.h"
#include "commands/times.h"
#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/os/signals.h"

namespace zx::commands {
namespace {

constexpr Millis kLongest{24 * 3'600'000};

struct Options {
  std::string set, level = "checksum";
  bool rotate = false;
};

Result<backup::Entry> pick(const backup::Repository& repository, const Options& given,
                           backup::Level level) {
  if (!given.set.empty()) return repository.set(given.set);
  ZX_ASSIGN(auto entries, repository.sets());
  if (entries.empty())
    return fail(Code::not_found, "there is no set in " + repository.path(),
                "make one: zx backup run");
  if (!given.rotate) return std::move(entries.front());
  const auto* chosen = backup::longest_unchecked(entries, level);
  if (chosen == nullptr)
    return fail(Code::refused, "every set in " + repository.path() + " is of a newer format",
                "use a newer zx");
  return *chosen;
}

Json to_json(const backup::PartChecked& part) {
  return Json{{"part", part.part},
              {"ok", part.problem.empty()},
              {"compared", part.compared.empty() ? Json() : Json(part.compared)},
              {"problem", part.problem.empty() ? Json() : Json(part.problem)},
              {"ms", part.took.count()}};
}

void show(Screen& screen, const backup::PartChecked& part) {
  const bool is_good = part.problem.empty();
  Table table;
  table.indent = "";
  table.rows.push_back({Cell(is_good ? "✓" : "✗", is_good ? Tone::good : Tone::bad), part.part,
                        is_good ? part.compared : part.problem, format_duration(part.took)});
  screen.table(table);
}

// "restored in 41 s; the target is 30m".
std::string rto_words(const backup::Check& check, Millis target) {
  if (!check.restore_ms) return {};
  const Millis took(*check.restore_ms);
  return fmt::format(" Restored in {}, {} the target of {}.", format_duration(took),
                     took <= target ? "within" : "over", format_duration(target));
}

// The verdict, and what to type next.
void conclude(Env& env, const backup::Entry& entry, const backup::Check& check,
              const config::Config& config) {
  const auto* level = backup::name_of(check.level);
  if (check.ok) {
    const bool is_slow = check.restore_ms && Millis(*check.restore_ms) > config.backup.rto;
    env.screen.line(
        fmt::format("Set {} is good ({}), verified in {}.{}", entry.id, level,
                    format_duration(Millis(check.took_ms)), rto_words(check, config.backup.rto)),
        is_slow ? Tone::warn : Tone::plain);
    env.screen.line("next: " + env.typed(check.level == backup::Level::restore
                                             ? "backup list"
                                             : "backup verify --level restore " + entry.id));
    return;
  }
  if (check.fault == backup::Fault::answers) {
    env.screen.line(fmt::format("Set {} is whole, but not as it should be: {}.{}", entry.id,
                                check.problem, rto_words(check, config.backup.rto)),
                    Tone::bad);
    env.screen.line("next: ask the live database the same, and see backup.checks");
    return;
  }
  env.screen.line(fmt::format("Set {} is damaged ({}): {}", entry.id, level, check.problem),
                  Tone::bad);
  env.screen.line("next: " + env.typed("backup run") + ", and then look at the disk of " +
                  config.backup.repository);
}

Json to_json(const backup::Entry& entry, const backup::Check& check, Json parts, bool is_kept,
             const config::Config& config) {
  const bool is_whole = check.ok || check.fault == backup::Fault::answers;
  return Json{{"outcome", check.ok   ? "good"
                          : is_whole ? "unexpected"
                                     : "damaged"},
              {"repository", config.backup.repository},
              {"id", entry.id},
              {"level", backup::name_of(check.level)},
              {"at", format_utc(check.at)},
              {"host", check.host},
              {"ok", check.ok},
              {"problem", check.ok ? Json() : Json(check.problem)},
              {"parts", std::move(parts)},
              {"ms", check.took_ms},
              {"restore_ms", check.restore_ms ? Json(*check.restore_ms) : Json()},
              {"rto_target_ms", config.backup.rto.count()},
              {"within_rto",
               check.restore_ms ? Json(Millis(*check.restore_ms) <= config.backup.rto) : Json()},
              {"recorded", is_kept},
              {"error", Json()}};
}

// In the set, and in the metrics. Where nothing can be written the answer is good all the same.
bool record(Env& env, const backup::Repository& repository, const backup::Entry& entry,
            const backup::Check& check, const config::Config& config) {
  const auto kept = repository.remember(entry.id, check);
  if (!kept)
    env.screen.note(fmt::format("the set does not remember this: {}", kept.error().message));
  else if (!kept->empty())
    env.screen.note(*kept);
  if (const auto written = write_metrics(config); !written)
    env.screen.note("no metrics: " + written.error().message);
  return kept.has_value();
}

// That the look could not be made: it says nothing of the set.
backup::Check not_made(backup::Level level, const Error& error) {
  backup::Check check;
  check.level = level;
  check.at = wall_now();
  check.fault = backup::Fault::unknown;
  check.problem = error.message;
  return check;
}

Result<int> run(Env& env, const Options& given) {
  const auto level = backup::level_named(given.level);
  if (!level) return fail(Code::usage, level.error().message, level.error().hint);
  if (given.rotate && !given.set.empty())
    return fail(Code::usage, "--rotate chooses the set itself", "name a set, or give --rotate");
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto repository, open_repository(*config));
  ZX_ASSIGN(const auto lock,
            backup::take_patiently(patience(env), [&] { return repository.lock_to_read(); }));
  ZX_ASSIGN(const auto entry, pick(repository, given, *level));
  log::info(fmt::format("verifying {} ({})", entry.id, backup::name_of(*level)));
  auto parts = Json::array();
  backup::VerifyOptions options;
  options.until = Deadline::after(env.shared.timeout.value_or(kLongest));
  options.progress = [&env](const std::string& words) { env.screen.progress("… " + words); };
  options.checked = [&](const backup::PartChecked& part) {
    show(env.screen, part);
    parts.push_back(to_json(part));
  };
  const auto looked = backup::verify(repository, entry, *level, *config, options);
  if (!looked) {
    // --rotate goes on to the next set; an interruption was no look at all. A set of a newer
    // format is left alone.
    if (!os::interrupted()) (void)repository.remember(entry.id, not_made(*level, looked.error()));
    return fail(looked.error());
  }
  const auto& check = *looked;
  const bool is_kept = record(env, repository, entry, check, *config);
  conclude(env, entry, check, *config);
  env.screen.json(to_json(entry, check, std::move(parts), is_kept, *config));
  return check.ok ? 0 : info(Code::findings).exit;
}

}  // namespace

void add_backup_verify(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      backup_group(tree), "verify", "see whether a set is good, up to a real restore",
      {.description =
           "Looks at the newest set, or at SET. With --level checksum every object is read and "
           "compared with the SHA-256 that its manifest has. With decode all of it is "
           "decompressed and read as well: each dump by pg_restore from its first to its last "
           "byte, the RDB by its structure, every file of the archives by its own SHA-256.\n\n"
           "With restore the set is brought up: a private PostgreSQL gets the roles and every "
           "database, a private Redis the RDB, a directory the files. Every table must have as "
           "many rows as the manifest counted in the snapshot, Redis as many keys (less those "
           "whose time has passed), every file its content; and the questions of backup.checks "
           "must be answered right. The time that takes is the measured RTO. These servers listen "
           "on no port, have their data in backup.scratch, and are gone at the end, also when zx "
           "is killed; their directories then go with the next verification.\n\n"
           "The set remembers what was found: zx backup list shows it, prune and restore go by it. "
           "A damaged set exits 10, and so does a wrong answer, which does not make it corrupt. "
           "What this host lacks (space, an extension, a program) is an error and says nothing "
           "against the set. While a prune deletes it waits, for 10 minutes or --timeout.\n\n"
           "--rotate is for timers: it takes the set whose last look of that level or beyond is "
           "longest ago, and one that had none before any other.",
       .examples = {{"zx backup verify", "the newest set, as it is stored"},
                    {"zx backup verify --level restore", "bring it up, and measure the RTO"},
                    {"zx backup verify --rotate --level decode", "one set each time, in turn"}},
       .exits = {Code::failed, Code::refused, Code::disk_full, Code::locked, Code::config,
                 Code::timeout, Code::auth, Code::findings}},
      [given](Env& env) { return run(env, *given); });
  leaf->add_option("SET", given->set, "which set; else the newest")
      ->type_name("SET")
      ->check(not_empty);
  leaf->add_option("--level", given->level, "how far: checksum, decode or restore")
      ->type_name("LEVEL")
      ->capture_default_str()
      ->check(CLI::IsMember({"checksum", "decode", "restore"}));
  leaf->add_flag("--rotate", given->rotate, "the set that was not looked at for longest");
}

}  // namespace zx::commands
