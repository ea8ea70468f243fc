#include "lib/backup/run.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "lib/backup/damage.h"
#include "lib/backup/files_source.h"
#include "lib/backup/files_swap.h"
#include "lib/backup/known_repository.h"
#include "lib/backup/pg_load.h"
#include "lib/backup/pg_source.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/redis_source.h"
#include "lib/backup/restore.h"
#include "lib/backup/retention.h"
#include "lib/base/count.h"
#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/os/host_name.h"
#include "lib/os/process.h"
#include "lib/os/signals.h"
#include "lib/run/journal.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;

constexpr int kIdTries = 10;
constexpr Millis kForPost{5 * 60'000};  // at least, however little time is left

// The bytes of one source as they come, before compression; `stored`: as a run like it adds them.
std::uint64_t bytes_of(const Set& set, Source source, bool stored) {
  std::uint64_t sum = 0;
  switch (source) {
    case Source::redis: return set.redis ? set.redis->rdb.bytes : 0;
    case Source::pg:
      if (!set.pg) return 0;
      for (const auto& database : set.pg->databases)
        sum += stored ? database.dump.bytes : database.dump.raw;
      return sum;
    case Source::files:
      for (const auto& part : set.files) {
        const auto is_own = [&](const Object& archive) {
          return archive.path.starts_with("archives/" + set.id + "-");
        };
        if (!stored) sum += part.bytes;
        // One that stored everything says nothing of what changes.
        if (!stored || std::all_of(part.archives.begin(), part.archives.end(), is_own)) continue;
        for (const auto& archive : part.archives)
          if (is_own(archive)) sum += archive.bytes;
      }
      return sum;
  }
  return 0;
}

bool has(const Set& set, Source source) {
  switch (source) {
    case Source::redis: return set.redis.has_value();
    case Source::pg: return set.pg.has_value();
    case Source::files: return !set.files.empty();
  }
  return false;
}

const Set* newest_with(const std::vector<Entry>& sets, Source source) {
  for (const auto& entry : sets)
    if (entry.set && has(*entry.set, source)) return &*entry.set;
  return nullptr;
}

const FilesPart* part_like(const Set& set, const config::BackupFiles& files) {
  for (const auto& part : set.files)
    if (part.name == files.name && part.path == files.path) return &part;
  return nullptr;
}

class Run {
 public:
  Run(const config::Config& config, const RunOptions& options, const Repository& repository,
      const RepositoryLock& writing, std::vector<Source> sources, std::vector<Entry> before)
      : config_(config),
        options_(options),
        repository_(repository),
        writing_(writing),
        sources_(std::move(sources)),
        before_(std::move(before)) {}

  Result<Ran> run() {
    const auto start = monotonic_now();
    set_.label = options_.label;
    set_.host = os::host_name();
    set_.platform = config_.platform.name;
    set_.zx_version = options_.zx_version;
    set_.begun = wall_now();
    ZX_TRY(begin());
    warn_of_unfinished_restore();
    auto done = hook(config_.backup.pre, "begun", options_.until.left(), os::interrupted);
    if (auto signal = os::interruption()) {
      done = fail(*std::move(signal));
    } else if (!done && config_.backup.pre_may_fail) {
      warn(fmt::format("backup.pre failed: {}", done.error().message));
      done = {};
    } else if (!done) {
      done = fail_while(done.error(), "running backup.pre");
    }
    if (done) done = make_parts();
    if (done) {
      set_.ended = wall_now();
      done = publish();
    }
    if (!done) discard();
    // Whoever writes there does not know that zx can make room; no other disk is emptier after it.
    if (!done && done.error().code == Code::disk_full &&
        done.error().message.find(repository_.path()) != std::string::npos)
      done.error().hint = "make room in the repository: zx backup prune";
    // Also after a signal: it may have to take back what `pre` did.
    const auto post = hook(config_.backup.post, done ? "done" : "failed",
                           std::max(options_.until.left(), kForPost), {});
    if (!done) return fail(done.error());
    Ran ran{set_, since(start), false, {}};
    if (!post) {
      warn("backup.post failed: " + post.error().message);
      if (!config_.backup.post_may_fail) {
        ran.post_failed = post.error();
        // Not tried again as a whole: the set is there.
        ran.post_failed->code = Code::partial;
        ran.post_failed->hint =
            fmt::format("set {} is there; do what backup.post has left undone", set_.id);
      }
    }
    return ran;
  }

 private:
  void warn(std::string text) {
    if (options_.events.on_warning) options_.events.on_warning(text);
    set_.warnings.push_back(std::move(text));
  }

  Status begin() {
    for (int i = 0; i < kIdTries; ++i) {
      set_.id = make_run_id(set_.begun);
      ZX_ASSIGN(const bool is_begun, repository_.begin(set_.id));
      if (is_begun) return {};
    }
    return fail(Code::io,
                fmt::format("no id is free in {}: {} is there, too", repository_.path(), set_.id));
  }

  Status publish() {
    ZX_TRY(writing_.is_held());
    ZX_ASSIGN(auto warning, repository_.publish(set_));
    if (!warning.empty()) warn(std::move(warning));
    return {};
  }

  Status hook(const std::vector<std::string>& argv, const std::string& outcome, Millis deadline,
              std::function<bool()> cancelled) const {
    if (argv.empty()) return {};
    os::ProcessOptions process;
    process.deadline = deadline;
    process.cancelled = std::move(cancelled);
    process.environment = {
        {"ZX_SET", set_.id}, {"ZX_REPOSITORY", repository_.path()}, {"ZX_OUTCOME", outcome}};
    ZX_TRY(os::run_ok(argv, process));
    return {};
  }

  std::function<void(std::uint64_t)> counter(Source source) const {
    return [this, source](std::uint64_t more) {
      if (options_.events.on_bytes) options_.events.on_bytes(source, more);
    };
  }

  Status make_parts() {
    for (const auto source : sources_) {
      const auto* last = newest_with(before_, source);
      if (options_.events.on_start)
        options_.events.on_start(source, last == nullptr ? 0 : bytes_of(*last, source, false));
      const auto done = source == Source::redis ? make_redis()
                        : source == Source::pg  ? make_pg()
                                                : make_files();
      if (!done) return done;
      if (options_.events.on_end) options_.events.on_end(source, set_);
    }
    warn_of_restores();
    return {};
  }

  // Between its steps files may be of one time and databases of another.
  void warn_of_unfinished_restore() {
    const auto open = run::unfinished_run(config_.platform.state_dir, kRestoreLock);
    if (open && *open)
      warn(fmt::format("run {} ({}) is unfinished: the parts of this set may not fit together",
                       (*open)->id, (*open)->plan.command));
  }

  // What a backup can hold and a restore cannot put in its place is said now, not in the disaster.
  void warn_of_restores() {
    for (const auto& part : set_.files) {
      std::error_code ignored;
      if (fs::is_symlink(part.path, ignored))
        warn(part.path + " is a symbolic link: a restore can only go --into another directory");
      else if (const auto free = holds_no_mount(part.path); !free)
        warn(fmt::format("{}: a restore can only go --into another directory",
                         free.error().message));
    }
    if (!set_.pg) return;
    for (const auto& part : set_.pg->databases)
      if (!fits_as_name(kept_name(part.name)))
        warn(fmt::format("the name of {} is too long for a restore, which needs room for {}",
                         part.name, kept_name(part.name)));
  }

  Status make_redis() {
    ZX_ASSIGN(auto made, back_up_redis(repository_, {.config = config_,
                                                     .deployment = *deployment_of(config_),
                                                     .set_id = set_.id,
                                                     .until = options_.until,
                                                     .progress = counter(Source::redis)}));
    for (auto& warning : made.warnings) warn(std::move(warning));
    set_.redis = std::move(made.part);
    return {};
  }

  Status make_pg() {
    ZX_ASSIGN(auto made,
              back_up_pg(repository_, {.config = config_,
                                       .cluster = *cluster_of(config_),
                                       .set_id = set_.id,
                                       .jobs = options_.jobs.value_or(config_.backup.jobs),
                                       .level = config_.backup.compression,
                                       .until = options_.until,
                                       .progress = counter(Source::pg)}));
    for (auto& warning : made.warnings) warn(std::move(warning));
    set_.pg = std::move(made.part);
    return {};
  }

  Status make_files() {
    const auto damaged = damaged_objects(before_);
    for (const auto& files : config_.backup.files) {
      // The newest set that has this tree is what unchanged files refer to.
      const Set* previous = nullptr;
      for (const auto& entry : before_) {
        const auto* const part = entry.set ? part_like(*entry.set, files) : nullptr;
        if (part == nullptr || !may_be_referred_to(entry, *part)) continue;
        previous = &*entry.set;
        break;
      }
      std::optional<Set> undamaged;
      if (previous != nullptr) previous = &undamaged.emplace(without_damage(*previous, damaged));
      FilesJob job{.what = files, .set_id = set_.id};
      job.previous = previous;
      job.own = {config_.platform.state_dir};
      if (!config_.backup.scratch.empty()) job.own.push_back(config_.backup.scratch);
      job.level = config_.backup.compression;
      job.until = options_.until;
      job.progress = [this](std::uint64_t, std::uint64_t more) {
        if (options_.events.on_bytes) options_.events.on_bytes(Source::files, more);
      };
      ZX_ASSIGN(auto part, back_up_files(repository_, job));
      for (const auto& warning : part.warnings) warn(fmt::format("{}: {}", files.path, warning));
      set_.files.push_back(std::move(part));
    }
    return {};
  }

  // Nothing of a set that did not come to its end stays; what cannot be removed now is swept by the
  // next run.
  void discard() const {
    if (repository_.may_have(set_.id)) return;  // it may have come to its end all the same
    repository_.discard(set_.id);
  }

  const config::Config& config_;
  const RunOptions& options_;
  const Repository& repository_;
  const RepositoryLock& writing_;
  std::vector<Source> sources_;
  std::vector<Entry> before_;
  Set set_;
};

struct Opened {
  Repository repository;
  bool is_new = false;
};

// The one that was there before, or a first one.
Result<Opened> open_expected(const config::Config& config, const RunOptions& options) {
  const auto& path = config.backup.repository;
  const auto& state_dir = config.platform.state_dir;
  const auto note = [&](const std::string& text) {
    if (options.events.on_note) options.events.on_note(text);
  };
  auto opened = Repository::open(path);
  const bool is_new = !opened && opened.error().code == Code::not_found;
  if (!opened && !is_new) return fail(opened.error());
  if (!options.accepts_new_repository)
    ZX_TRY(is_expected_repository(
        config, is_new ? std::nullopt : std::optional<std::string>(opened->id())));
  if (is_new) {
    opened = Repository::open_or_make(path);
    if (!opened) return fail(opened.error());
    note("made a new repository in " + path);
  }
  const auto known = known_repository(state_dir, path);
  if (!known || *known != opened->id()) {
    const auto aside = know_repository(state_dir, path, opened->id());
    if (!aside)
      note(fmt::format("the repository {} is not remembered: {}", path, aside.error().message));
    else if (!aside->empty())
      note(
          fmt::format("{}; it is {} now, and which repositories were used at other paths is not "
                      "known any more",
                      known.error().message, *aside));
  }
  return Opened{*std::move(opened), is_new};
}

Status has_room(const Repository& repository, const config::Config& config,
                std::uint64_t expected) {
  ZX_ASSIGN(const auto free, repository.free_space());
  if (free >= expected + config.backup.spare) return {};
  return fail(Code::disk_full,
              fmt::format("{} has {} free; a set takes about {}, and {} are to stay free",
                          repository.path(), format_bytes(free), format_bytes(expected),
                          format_bytes(config.backup.spare)),
              "zx backup prune makes room; backup.spare says how much stays free");
}

}  // namespace

Status is_expected_repository(const config::Config& config,
                              const std::optional<std::string>& found) {
  const auto& path = config.backup.repository;
  const auto known = known_repository(config.platform.state_dir, path);
  // One that is there is believed; to make one it must be known that none is missing.
  if (!known && found) return {};
  if (!known)
    return fail_while(known.error(), "looking up whether backups were made before in " + path);
  return is_expected(path, *known, found);
}

const char* name_of(Source source) {
  switch (source) {
    case Source::redis: return "redis";
    case Source::pg: return "pg";
    case Source::files: return "files";
  }
  return "pg";
}

const config::PgCluster* cluster_of(const config::Config& config) {
  if (config.pg.empty()) return nullptr;
  return config.backup.pg.empty() ? &config.pg.front() : config.cluster(config.backup.pg);
}

const config::RedisDeployment* deployment_of(const config::Config& config) {
  if (config.redis.empty()) return nullptr;
  return config.backup.redis.empty() ? &config.redis.front()
                                     : config.deployment(config.backup.redis);
}

Result<std::vector<Source>> sources_of(const config::Config& config,
                                       const std::vector<Source>& only) {
  if (config.backup.repository.empty())
    return fail(Code::config, "backup.repository is not set",
                fmt::format("name a directory in [backup] of {}; man zx.toml", config.path));
  std::vector<Source> sources;
  const auto add = [&](Source source, bool is_there, const char* key) -> Status {
    const bool is_named = std::find(only.begin(), only.end(), source) != only.end();
    if (is_named && !is_there)
      return fail(Code::config, fmt::format("{} has no {}, which --only names", config.path, key));
    if (is_there && (is_named || only.empty())) sources.push_back(source);
    return {};
  };
  ZX_TRY(add(Source::redis, deployment_of(config) != nullptr, "[redis.NAME]"));
  ZX_TRY(add(Source::pg, cluster_of(config) != nullptr, "[pg.NAME]"));
  ZX_TRY(add(Source::files, !config.backup.files.empty(), "backup.files"));
  if (sources.empty())
    return fail(Code::config, config.path + " names nothing to back up",
                "add [pg.NAME], [redis.NAME] or backup.files");
  return sources;
}

Status has_what_it_had(const std::vector<Entry>& sets, const config::Config& config,
                       const std::vector<Source>& sources) {
  if (std::find(sources.begin(), sources.end(), Source::files) == sources.end()) return {};
  for (const auto& files : config.backup.files) {
    const auto last = std::find_if(sets.begin(), sets.end(), [&](const Entry& entry) {
      return entry.set && part_like(*entry.set, files) != nullptr;
    });
    if (last == sets.end()) continue;
    const auto held = part_like(*last->set, files)->files;
    std::error_code ignored;  // whoever reads the tree says why
    // The tree itself is one.
    if (held <= 1 || !fs::is_empty(files.path, ignored)) continue;
    return fail(Code::refused,
                fmt::format("{} is empty, and had {} in set {}", files.path,
                            count_of(static_cast<std::int64_t>(held - 1), "file"), last->id),
                "mount its file system; zx backup run --accept-empty if it is really empty now");
  }
  return {};
}

std::uint64_t expected_bytes(const std::vector<Entry>& sets, const std::vector<Source>& sources) {
  std::uint64_t sum = 0;
  for (const auto source : sources)
    if (const auto* last = newest_with(sets, source); last != nullptr)
      sum += bytes_of(*last, source, true);
  return sum;
}

Result<std::uint64_t> may_be_made(const std::vector<Entry>& sets, const Repository* repository,
                                  const config::Config& config, const std::vector<Source>& sources,
                                  bool accepts_empty) {
  ZX_TRY(is_of_one_platform(sets, config.platform.name));
  if (!accepts_empty) ZX_TRY(has_what_it_had(sets, config, sources));
  const auto expected = expected_bytes(sets, sources);
  if (repository != nullptr) ZX_TRY(has_room(*repository, config, expected));
  return expected;
}

Result<std::string> scratch_of(const config::Config& config) {
  const auto path = config.backup.scratch.empty() ? config.platform.state_dir + "/scratch"
                                                  : config.backup.scratch;
  ZX_TRY(os::make_directories(path));
  return path;
}

Result<Ran> run_backup(const config::Config& config, const RunOptions& options) {
  ZX_ASSIGN(auto sources, sources_of(config, options.only));
  ZX_ASSIGN(const auto opened, open_expected(config, options));
  const auto& repository = opened.repository;
  ZX_ASSIGN(const auto writing,
            take_patiently(options.wait, [&] { return repository.lock_to_write("backup run"); }));
  ZX_ASSIGN(const auto swept, repository.sweep(writing));
  if (options.events.on_warning) {
    for (const auto& warning : swept.warnings) options.events.on_warning(warning);
    if (!swept.archives_stay.empty())
      options.events.on_warning("no archive is deleted: " + swept.archives_stay);
    if (swept.runs > 0)
      options.events.on_warning(fmt::format("removed what {} killed {} left", swept.runs,
                                            swept.runs == 1 ? "run" : "runs"));
  }
  ZX_ASSIGN(auto before, repository.sets());
  ZX_TRY(may_be_made(before, &repository, config, sources, options.accepts_empty));
  ZX_ASSIGN(auto ran,
            Run(config, options, repository, writing, std::move(sources), std::move(before)).run());
  ran.has_new_repository = opened.is_new;
  return ran;
}

}  // namespace zx::backup
