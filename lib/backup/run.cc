#include "lib/backup/run.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "lib/backup/files_source.h"
#include "lib/backup/pg_source.h"
#include "lib/backup/redis_source.h"
#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/os/process.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;

constexpr int kIdTries = 10;

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

// The bytes of one source as they come, before compression; `stored`: as they are kept.
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
        if (!stored) sum += part.bytes;
        for (const auto& archive : part.archives)
          if (stored && archive.path.starts_with("archives/" + set.id + "-")) sum += archive.bytes;
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

class Run {
 public:
  Run(const config::Config& config, const RunOptions& options, const Repository& repository,
      std::vector<Source> sources, std::vector<Entry> before)
      : config_(config),
        options_(options),
        repository_(repository),
        sources_(std::move(sources)),
        before_(std::move(before)) {}

  Result<Ran> run() {
    const auto start = monotonic_now();
    set_.label = options_.label;
    set_.host = host_name();
    set_.platform = config_.platform.name;
    set_.zx_version = options_.zx_version;
    set_.begun = wall_now();
    ZX_TRY(begin());
    auto done = hook(config_.backup.pre, "begun", os::interrupted);
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
      done = repository_.publish(set_);
    }
    if (!done) discard();
    if (!done && done.error().code == Code::disk_full && done.error().hint.empty())
      done.error().hint = "make room in the repository: zx backup prune";
    // Also after a signal: it may have to take back what `pre` did.
    const auto post = hook(config_.backup.post, done ? "done" : "failed", {});
    if (!done) return fail(done.error());
    Ran ran{set_, since(start), {}};
    if (!post) {
      warn("backup.post failed: " + post.error().message);
      if (!config_.backup.post_may_fail) ran.post_failed = post.error();
    }
    return ran;
  }

 private:
  void warn(std::string text) {
    if (options_.events.on_warning) options_.events.on_warning(text);
    set_.warnings.push_back(std::move(text));
  }

  Status begin() {
    for (int i = 0;; ++i) {
      set_.id = make_run_id(set_.begun);
      auto begun = os::exists(repository_.set_path(set_.id)) ? Status(fail(Code::io, "taken"))
                                                             : repository_.begin(set_.id);
      if (begun || i + 1 == kIdTries || !os::exists(repository_.incoming_path(set_.id)))
        return begun;
    }
  }

  Status hook(const std::vector<std::string>& argv, const std::string& outcome,
              std::function<bool()> cancelled) const {
    if (argv.empty()) return {};
    os::ProcessOptions process;
    process.deadline = options_.until.left();
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
    return {};
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
    for (const auto& files : config_.backup.files) {
      // The newest set that has this tree is what unchanged files refer to.
      const Set* previous = nullptr;
      for (const auto& entry : before_) {
        if (!entry.set || believed(*entry.set, entry.checks).trust == Trust::corrupt) continue;
        const auto& parts = entry.set->files;
        if (std::none_of(parts.begin(), parts.end(), [&](const FilesPart& part) {
              return part.name == files.name && part.path == files.path;
            }))
          continue;
        previous = &*entry.set;
        break;
      }
      FilesJob job{.what = files, .set_id = set_.id};
      job.previous = previous;
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
    std::error_code ignored;
    fs::remove_all(repository_.incoming_path(set_.id), ignored);
    for (const auto& entry : fs::directory_iterator(repository_.archives_path(), ignored))
      if (entry.path().filename().string().starts_with(set_.id + "-"))
        fs::remove(entry.path(), ignored);
  }

  const config::Config& config_;
  const RunOptions& options_;
  const Repository& repository_;
  std::vector<Source> sources_;
  std::vector<Entry> before_;
  Set set_;
};

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

std::uint64_t expected_bytes(const std::vector<Entry>& sets, const std::vector<Source>& sources) {
  std::uint64_t sum = 0;
  for (const auto source : sources)
    if (const auto* last = newest_with(sets, source); last != nullptr)
      sum += bytes_of(*last, source, true);
  return sum;
}

Result<std::string> scratch_of(const config::Config& config) {
  const auto path = config.backup.scratch.empty() ? config.platform.state_dir + "/scratch"
                                                  : config.backup.scratch;
  ZX_TRY(os::make_directories(path));
  return path;
}

Result<Ran> run_backup(const config::Config& config, const RunOptions& options) {
  ZX_ASSIGN(auto sources, sources_of(config, options.only));
  ZX_ASSIGN(const auto repository, Repository::open_or_make(config.backup.repository));
  ZX_ASSIGN(const auto lock, repository.lock_to_write("backup run"));
  ZX_ASSIGN(const auto swept, repository.sweep());
  if (options.events.on_warning) {
    for (const auto& warning : swept.warnings) options.events.on_warning(warning);
    if (swept.runs > 0)
      options.events.on_warning(fmt::format("removed what {} killed {} left", swept.runs,
                                            swept.runs == 1 ? "run" : "runs"));
  }
  ZX_ASSIGN(auto before, repository.sets());
  ZX_TRY(has_room(repository, config, expected_bytes(before, sources)));
  return Run(config, options, repository, std::move(sources), std::move(before)).run();
}

}  // namespace zx::backup
