// zx backup run: one recovery set of Redis, PostgreSQL and files.
#include "lib/backup/run.h"

#include <atomic>
#include <memory>
#include <mutex>

#include <fmt/format.h>

#include "commands/backup/backup.h"
#include "lib/backup/metrics.h"
#include "lib/backup/retention.h"
#include "lib/base/count.h"
#include "lib/base/text.h"

namespace zx::commands {
namespace {

using backup::Source;

struct Options {
  std::string only, label;
  int jobs = 0;
  bool dry_run = false, new_repository = false, accept_empty = false;
};

constexpr Millis kLongest{24 * 3'600'000};
constexpr Millis kDraw{200};    // on a terminal
constexpr Millis kSay{30'000};  // elsewhere
constexpr std::size_t kLongestLabel = 100;

Result<std::vector<Source>> parse_only(const std::string& text) {
  std::vector<Source> sources;
  if (text.empty()) return sources;
  for (const auto& word : split(text, ',')) {
    const auto name = trim(word);
    const auto* found = static_cast<const Source*>(nullptr);
    static constexpr Source kAll[] = {Source::pg, Source::redis, Source::files};
    for (const auto& source : kAll)
      if (name == backup::name_of(source)) found = &source;
    if (found == nullptr)
      return fail(Code::usage, fmt::format("--only takes pg, redis and files, with commas between, "
                                           "not \"{}\"",
                                           first_line(name)));
    sources.push_back(*found);
  }
  return sources;
}

// How far a run is: drawn on a terminal, a line now and then elsewhere.
class Progress {
 public:
  explicit Progress(Env& env) : env_(env) {}

  void start(Source source, std::uint64_t expected) {
    const std::lock_guard lock(mutex_);
    source_ = source;
    expected_ = expected;
    bytes_ = 0;
    begun_ = shown_ = monotonic_now();
  }
  void add(std::uint64_t more) {
    bytes_ += more;
    const std::lock_guard lock(mutex_);
    const auto pause = env_.screen.is_terminal() ? kDraw : kSay;
    if (since(shown_) < pause) return;
    shown_ = monotonic_now();
    if (env_.screen.is_terminal())
      env_.screen.progress("… " + line());
    else
      env_.screen.note(line());
  }

 private:
  [[nodiscard]] std::string line() const {
    const auto took = since(begun_);
    const auto bytes = bytes_.load();
    const auto rate =
        took.count() > 0 ? bytes * 1000 / static_cast<std::uint64_t>(took.count()) : 0;
    auto text = fmt::format("{}  {}", backup::name_of(source_), format_bytes(bytes));
    if (expected_ > 0) text += " of about " + format_bytes(expected_);
    text += fmt::format(", {}/s", format_bytes(rate));
    if (rate > 0 && expected_ > bytes)
      text +=
          ", about " +
          format_duration(Millis(static_cast<std::int64_t>((expected_ - bytes) / rate * 1000))) +
          " left";
    return text;
  }

  Env& env_;
  std::mutex mutex_;
  Source source_ = Source::pg;
  std::uint64_t expected_ = 0;
  std::atomic<std::uint64_t> bytes_{0};
  Monotonic begun_{}, shown_{};
};

std::uint64_t rows_of(const backup::DatabasePart& part) {
  std::uint64_t rows = 0;
  for (const auto& table : part.tables) rows += table.rows;
  return rows;
}

void show_part(Screen& screen, Source source, const backup::Set& set) {
  Table table;
  const auto add = [&](const std::string& what, const std::string& says, std::int64_t ms) {
    table.rows.push_back(
        {Cell("✓", Tone::good), backup::name_of(source), what, says, format_duration(Millis(ms))});
  };
  if (source == Source::redis && set.redis) {
    const auto& part = *set.redis;
    add(part.deployment,
        fmt::format("{} keys of {}, {}", part.keys, part.node, format_bytes(part.rdb.bytes)),
        part.took_ms);
  }
  if (source == Source::pg && set.pg)
    for (const auto& part : set.pg->databases)
      add(part.name,
          fmt::format("{} in {} of {}, {} in {}",
                      count_of(static_cast<std::int64_t>(rows_of(part)), "row"),
                      count_of(static_cast<std::int64_t>(part.tables.size()), "table"),
                      set.pg->node, format_bytes(part.dump.raw), format_bytes(part.dump.bytes)),
          part.took_ms);
  if (source == Source::files)
    for (const auto& part : set.files)
      add(part.path,
          fmt::format("{} entries, {}; {} new or changed", part.files, format_bytes(part.bytes),
                      part.stored_files),
          part.took_ms);
  table.indent = "";
  screen.table(table);
}

Result<int> show_plan(Env& env, const config::Config& config, const std::vector<Source>& only,
                      const Options& given) {
  ZX_ASSIGN(const auto sources, backup::sources_of(config, only));
  std::vector<backup::Entry> sets;
  std::optional<std::uint64_t> free;
  const auto repository = backup::Repository::open(config.backup.repository);
  if (!repository && repository.error().code != Code::not_found) return fail(repository.error());
  if (!given.new_repository)
    ZX_TRY(backup::is_expected_repository(
        config, repository ? std::optional<std::string>(repository->id()) : std::nullopt));
  if (repository) {
    ZX_ASSIGN(sets, repository->sets());
    ZX_ASSIGN(free, repository->free_space());
  }
  ZX_ASSIGN(const auto expected, backup::may_be_made(sets, repository ? &*repository : nullptr,
                                                     config, sources, given.accept_empty));
  Json list = Json::array();
  Table table;
  const auto add = [&](Source source, const std::string& what) {
    table.rows.push_back({std::to_string(table.rows.size() + 1), backup::name_of(source), what});
    list.push_back({{"source", backup::name_of(source)}, {"what", what}});
  };
  for (const auto source : sources) {
    if (source == Source::redis) add(source, backup::deployment_of(config)->name);
    if (source == Source::files)
      for (const auto& files : config.backup.files) add(source, files.path);
    if (source != Source::pg) continue;
    const auto* cluster = backup::cluster_of(config);
    add(source, cluster->name + ": " +
                    (cluster->databases.empty() ? "every database but postgres"
                                                : join(cluster->databases, ", ")));
  }
  env.screen.line(fmt::format("Would make a set in {}{}.", config.backup.repository,
                              repository ? "" : ", which is made first"));
  env.screen.table(table);
  if (expected > 0)
    env.screen.line(fmt::format("The last one took {}; {} are free.", format_bytes(expected),
                                format_bytes(free.value_or(0))));
  env.screen.json(Json{{"outcome", "planned"},
                       {"repository", config.backup.repository},
                       {"sources", std::move(list)},
                       {"expected_bytes", expected},
                       {"free_bytes", free ? Json(*free) : Json()},
                       {"error", Json()}});
  return 0;
}

// What databases are set to may be a secret: it stays in the manifest, which only its owner reads.
Json without_values(Json set) {
  if (!set.contains("pg") || !set["pg"].is_object()) return set;
  for (auto& database : set["pg"]["databases"])
    for (auto& setting : database["settings"]) setting.erase("value");
  return set;
}

Json to_json(const backup::Ran& ran, const config::Config& config) {
  auto set = without_values(backup::to_json(ran.set));
  return Json{{"outcome", "done"},
              {"repository", config.backup.repository},
              {"new_repository", ran.has_new_repository},
              {"id", ran.set.id},
              {"parts", ran.set.parts()},
              {"bytes", ran.set.bytes()},
              {"new_bytes", ran.set.new_bytes()},
              {"ms", ran.took.count()},
              {"set", std::move(set)},
              {"warnings", ran.set.warnings},
              {"error", ran.post_failed ? zx::to_json(*ran.post_failed) : Json()}};
}

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto only, parse_only(given.only));
  if (given.label.size() > kLongestLabel || clean_utf8(given.label) != given.label ||
      given.label.find('\n') != std::string::npos)
    return fail(Code::usage,
                fmt::format("--label takes one line of at most {} bytes of UTF-8", kLongestLabel));
  if (given.dry_run) return show_plan(env, *config, only, given);
  Progress progress(env);
  backup::RunOptions options;
  options.only = only;
  options.label = given.label;
  if (given.jobs > 0) options.jobs = given.jobs;
  options.until = Deadline::after(env.shared.timeout.value_or(kLongest));
  options.wait = patience(env);
  options.accepts_new_repository = given.new_repository;
  options.accepts_empty = given.accept_empty;
  options.zx_version = env.shared.version;
  options.events.on_start = [&](Source source, std::uint64_t expected) {
    progress.start(source, expected);
  };
  options.events.on_bytes = [&](Source, std::uint64_t more) { progress.add(more); };
  options.events.on_end = [&](Source source, const backup::Set& set) {
    show_part(env.screen, source, set);
  };
  options.events.on_warning = [&](const std::string& text) { env.screen.note(text); };
  options.events.on_note = options.events.on_warning;
  auto ran = backup::run_backup(*config, options);
  const auto written = write_metrics(*config);
  if (!ran) return fail(ran.error());
  if (!written) env.screen.note("no metrics: " + written.error().message);
  env.screen.line(fmt::format("Backed up {} in {}: set {}, {}{}.", ran->set.parts(),
                              format_duration(ran->took), ran->set.id,
                              format_bytes(ran->set.bytes()),
                              ran->set.new_bytes() == ran->set.bytes()
                                  ? ""
                                  : fmt::format(" ({} new)", format_bytes(ran->set.new_bytes()))));
  env.screen.line("next: " + env.typed("backup verify --level restore " + ran->set.id));
  env.screen.json(to_json(*ran, *config));
  return ran->post_failed ? info(ran->post_failed->code).exit : 0;
}

}  // namespace

void add_backup_run(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      backup_group(tree), "run", "make a recovery set of Redis, PostgreSQL and files",
      {.description =
           "Makes one set in backup.repository: first a copy of Redis, then a dump of all roles "
           "and of the databases of pg.NAME.databases (when it names none, all but postgres), of "
           "snapshots that are taken together, then the trees of backup.files; so that what is "
           "referred to is there. Redis and PostgreSQL are read from a replica and a standby where "
           "there are any. Of files, only what is new or changed is stored; a set is complete all "
           "the same.\n\n"
           "Every object has its SHA-256 in the manifest, and every table the number of its rows, "
           "counted in the snapshot. A set is whole or it is not there: what a run leaves that "
           "failed or was killed is cleared away by itself or by the next one. One run at a time "
           "works on a repository, from whatever host; the next one waits, for 10 minutes or "
           "--timeout.\n\n"
           "A repository that is not there is made, and zx says so; but where backups were made "
           "before, its file system is not mounted, and the run is refused. --new-repository "
           "accepts what is there now, also a repository that is another than before. A tree of "
           "backup.files that is empty and was not in the last set is refused likewise, unless "
           "--accept-empty says that it is meant.\n\n"
           "When backup.post fails and backup.post_may_fail is false the set is there, and the "
           "exit status is 4.\n\n"
           "A backup is good once it has been restored: zx backup verify --level restore.",
       .examples = {{"zx backup run", "a whole set"},
                    {"zx backup run --only pg,redis --label \"before 4.2\"", "without the files"},
                    {"zx backup run -o json", "for a timer or a runbook"}},
       .exits = {Code::failed, Code::refused, Code::partial, Code::disk_full, Code::locked,
                 Code::config, Code::unreachable, Code::timeout, Code::auth}},
      [given](Env& env) { return run(env, *given); });
  leaf->add_option("--only", given->only, "of pg, redis and files, with commas between")
      ->type_name("SOURCES")
      ->check([](const std::string& value) {
        return std::string(value.empty() ? "takes a value that is not empty" : "");
      });
  leaf->add_option("--label", given->label, "words that zx backup list shows")
      ->type_name("TEXT")
      ->check(not_empty);
  leaf->add_option("--jobs", given->jobs, "databases at once, else backup.jobs")
      ->type_name("N")
      ->check(CLI::Range(1, 64));
  leaf->add_flag("--new-repository", given->new_repository,
                 "make a repository, or use another, where one was known");
  leaf->add_flag("--accept-empty", given->accept_empty,
                 "back up a tree that is empty now, and had files in the set before");
  leaf->add_flag("--dry-run", given->dry_run, "say what would be backed up, and change nothing");
}

}  // namespace zx::commands
