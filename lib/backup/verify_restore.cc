#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <filesystem>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "lib/backup/files_restore.h"
#include "lib/backup/load_session.h"
#include "lib/backup/pg_load.h"
#include "lib/backup/row_counts.h"
#include "lib/backup/run.h"
#include "lib/backup/verify_parts.h"
#include "lib/base/count.h"
#include "lib/base/text.h"
#include "lib/os/file_lock.h"
#include "lib/os/files.h"
#include "lib/os/in_turns.h"
#include "lib/pg/throwaway.h"
#include "lib/redis/throwaway.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "verify-";
constexpr const char* kElsewhere = "/var/tmp";  // who runs PostgreSQL can enter it
constexpr std::time_t kAbandoned = 3'600;       // s: a directory that never came to have a lock
constexpr Millis kStart{120'000};
constexpr Millis kEnd{1'000};                     // from a backend's death to its server's
constexpr std::uint64_t kCluster = 512ULL << 20;  // an empty one, and WAL

// A private directory that goes at the end, or with the next one when zx was killed.
class Scratch {
 public:
  static Result<Scratch> make(const std::string& base) {
    sweep(base);
    std::string pattern = base + "/" + kPrefix + "XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr)  // mode 0700
      return fail(errno_error(Code::io, "cannot make a directory in " + base, errno));
    Scratch scratch(pattern);
    ZX_ASSIGN(scratch.lock_, os::FileLock::take(pattern + "/lock", "a verification"));
    return scratch;
  }
  Scratch(Scratch&& other) noexcept
      : path_(std::exchange(other.path_, {})), lock_(std::exchange(other.lock_, std::nullopt)) {}
  Scratch& operator=(Scratch&&) = delete;
  ~Scratch() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  explicit Scratch(std::string path) : path_(std::move(path)) {}
  static void sweep(const std::string& base) {
    std::error_code failed;
    std::vector<std::string> found;
    for (fs::directory_iterator entry(base, failed), end; !failed && entry != end;
         entry.increment(failed))
      if (entry->path().filename().string().starts_with(kPrefix))
        found.push_back(entry->path().string());
    for (const auto& path : found) {
      struct stat at {};
      if (lstat(path.c_str(), &at) != 0 || !S_ISDIR(at.st_mode) || at.st_uid != geteuid()) continue;
      if (!os::exists(path + "/lock")) {
        if (std::time(nullptr) - at.st_mtime > kAbandoned) (void)rmdir(path.c_str());
        continue;
      }
      std::error_code ignored;
      if (const auto lock = os::FileLock::take(path + "/lock", "sweep"))
        fs::remove_all(path, ignored);
    }
  }

  std::string path_;
  std::optional<os::FileLock> lock_;
};

// What is wrong with a private server and not with what it was given.
Error not_of_the_set(Error error) {
  if (error.code == Code::failed) error.code = Code::server;
  return error;
}

std::uint64_t rows_of(const std::vector<TableRows>& tables) {
  std::uint64_t rows = 0;
  for (const auto& table : tables) rows += table.rows;
  return rows;
}

std::string some_of(const std::vector<std::string>& words) {
  constexpr std::size_t kMost = 3;
  if (words.size() <= kMost) return join(words, "; ");
  return join({words.begin(), words.begin() + kMost}, "; ") +
         fmt::format("; and {} more", words.size() - kMost);
}

class Rehearsal {
 public:
  Rehearsal(const Repository& repository, const Set& set, const config::Config& config,
            const VerifyOptions& options, Findings& findings)
      : repository_(repository),
        set_(set),
        config_(config),
        options_(options),
        findings_(findings) {}

  Result<Millis> run() {
    if (options_.scratch.empty()) {
      ZX_ASSIGN(base_, scratch_of(config_));
    } else {
      base_ = options_.scratch;
      ZX_TRY(os::make_directories(base_));
    }
    ZX_TRY(choose_pg_base());
    ZX_ASSIGN(const auto scratch, Scratch::make(base_));
    ZX_TRY(check_room());
    // In the order of a restore.
    const auto start = monotonic_now();
    for (std::size_t i = 0; i < set_.files.size(); ++i)
      ZX_TRY(files(set_.files[i], fmt::format("{}/files-{}", scratch.path(), i)));
    if (set_.pg) ZX_TRY(postgres(*set_.pg));
    if (set_.redis) ZX_TRY(redis(*set_.redis));
    return since(start);
  }

 private:
  // PostgreSQL does not run as root, and whom it runs as must be able to go there.
  Status choose_pg_base() {
    pg_base_ = base_;
    ZX_ASSIGN(const auto user, pg::server_user());
    if (!user || !set_.pg) return {};
    struct stat found {};
    if (stat(base_.c_str(), &found) == 0 && found.st_uid == geteuid() &&
        (found.st_mode & S_IXOTH) == 0 && chmod(base_.c_str(), (found.st_mode & 07777) | 0011) != 0)
      return fail(errno_error(Code::io, "cannot set the mode of " + base_, errno));
    auto entered = pg::check_enterable(base_, user);
    if (entered) return {};
    if (!options_.scratch.empty() || !config_.backup.scratch.empty()) return entered;
    pg_base_ = kElsewhere;
    return pg::check_enterable(pg_base_, user);
  }

  Status check_room() const {
    std::uint64_t postgres = 0, files = 0;
    if (set_.pg) {
      for (const auto& part : set_.pg->databases)
        postgres += part.size > 0 ? part.size + part.size / 8 : part.dump.raw * 2;
      postgres += kCluster;
    }
    for (const auto& part : set_.files) files = std::max(files, part.bytes);
    ZX_TRY(has_room(pg_base_, postgres, "the databases"));
    ZX_TRY(has_room(base_, files, "the files"));
    const auto memory = redis::memory_available();
    if (set_.redis && memory && *memory < set_.redis->rdb.bytes)
      return fail(Code::refused,
                  fmt::format("a private Redis needs more than {} of memory, and this host has {}",
                              format_bytes(set_.redis->rdb.bytes), format_bytes(*memory)),
                  "verify on another host, or with --level decode");
    return {};
  }
  static Status has_room(const std::string& base, std::uint64_t needed, const char* what) {
    ZX_ASSIGN(const auto free, os::free_space(base));
    if (free >= needed) return {};
    return fail(Code::disk_full,
                fmt::format("{} need about {}, and {} has {} free", what, format_bytes(needed),
                            base, format_bytes(free)),
                "make room, or name a directory elsewhere: backup.scratch");
  }

  Status files(const FilesPart& part, const std::string& into) {
    const auto start = monotonic_now();
    const auto name = "restored files " + part.name;
    const auto restored = [&]() -> Result<std::string> {
      FilesRestore restore;
      restore.into = into;
      restore.progress = [count = findings_.counter(name)](std::uint64_t, std::uint64_t bytes) {
        count(bytes);
      };
      restore.until = options_.until;
      ZX_ASSIGN(const auto done, restore_files(repository_, part, restore));
      if (done.files != part.files || done.bytes != part.bytes)
        return fail(Code::failed,
                    fmt::format("{} entries with {} bytes came back, the manifest says {} with {}",
                                done.files, done.bytes, part.files, part.bytes));
      return fmt::format("{} entries, {}, each by its SHA-256", done.files,
                         format_bytes(done.bytes));
    }();
    std::error_code failed;
    fs::remove_all(into, failed);
    if (failed) return fail(Code::io, fmt::format("cannot remove {}: {}", into, failed.message()));
    return findings_.take(name, restored, start);
  }

  Status postgres(const PgPart& part) {
    pg::ThrowawayOptions options;
    options.bin_dir = bin_dir_of(config_, part);
    options.base = pg_base_;
    options.superuser = unused_name(part.roles);
    options.connections = 2 * config_.backup.jobs + 10;
    auto started = pg::Throwaway::start(options, options_.until.at_most(kStart));
    if (!started) return fail(not_of_the_set(started.error()));
    const PgServer server{started->target(), options.bin_dir};
    ZX_TRY(has_extensions(part, server));
    const auto begun = monotonic_now();
    const auto globals = [&]() -> Result<std::string> {
      ZX_ASSIGN(const auto made, load_globals(repository_, part, server, options_.until));
      return count_of(static_cast<std::int64_t>(made.made.size()), "role") + " made";
    }();
    ZX_TRY(keep("restored pg globals", *started, globals, begun));
    if (!globals) return {};  // every database would say that it lacks a role
    // The largest first, so that none of them begins last.
    std::vector<const DatabasePart*> order;
    for (const auto& database : part.databases) order.push_back(&database);
    std::stable_sort(order.begin(), order.end(),
                     [](const auto* a, const auto* b) { return a->size > b->size; });
    const auto loaded = os::in_turns(order.size(), config_.backup.jobs, [&](std::size_t i) {
      const auto start = monotonic_now();
      return keep("restored pg " + order[i]->name, *started, database(*order[i], server), start);
    });
    if (!loaded) return loaded;
    for (const auto& check : config_.backup.checks) ZX_TRY(answer(check, part, *started));
    return {};
  }

  static std::string unused_name(const std::vector<std::string>& roles) {
    std::string name = "zx_throwaway";
    while (contains(roles, name)) name += "_";
    return name;
  }

  // The connection broke, perhaps, as pg_restore or a client of zx tells it.
  static bool may_be_an_end(Code code) {
    return code == Code::config || code == Code::unreachable || code == Code::shutting_down ||
           code == Code::starting_up;
  }

  // What was found, unless the server itself is the reason.
  Status keep(const std::string& part, pg::Throwaway& server, const Result<std::string>& compared,
              Monotonic start, Fault fault = Fault::damage) {
    if (!compared) {
      const std::lock_guard lock(server_mutex_);
      const auto alive = may_be_an_end(compared.error().code)
                             ? server.alive_until(options_.until.at_most(kEnd))
                             : server.alive();
      if (!alive) return fail(not_of_the_set(alive.error()));
    }
    return findings_.take(part, compared, start, fault);
  }

  Status has_extensions(const PgPart& part, const PgServer& server) const {
    auto client = pg::Client::open(server.target, options_.until.at_most(kStart));
    if (!client) return fail(not_of_the_set(pg::error_of(server.target, client.error())));
    const auto rows =
        client->query("SELECT name FROM pg_available_extensions", options_.until.at_most(kStart));
    if (!rows) return fail(not_of_the_set(pg::error_of(server.target, rows.error())));
    std::set<std::string> there;
    for (const auto& row : *rows) there.insert(row.at(0).value_or(""));
    for (const auto& database : part.databases)
      for (const auto& name : database.extensions)
        if (!there.contains(name))
          return fail(Code::config,
                      fmt::format("the database {} needs the extension {}, which PostgreSQL on "
                                  "this host does not have",
                                  database.name, clean_utf8(name)),
                      "install it here, or verify on another host");
    return {};
  }

  Result<std::string> database(const DatabasePart& part, const PgServer& server) {
    ZX_TRY(create_database(server, part, part.name, options_.until));
    LoadOptions options;
    // Whole or not at all, and without WAL.
    options.in_one_transaction = true;
    options.no_tablespaces = true;
    options.progress = findings_.counter("loading " + part.name);
    options.until = options_.until;
    ZX_ASSIGN(const auto loaded, load_database(repository_, part, server, part.name, options));
    // Before its settings, which the count would be under.
    auto target = server.target;
    target.database = part.name;
    auto session = LoadSession::open(target, options_.until);
    if (!session) return fail(not_of_the_set(session.error()));
    const auto counted = count_rows(session->client, options_.until);
    if (!counted) {
      auto error = refusal_of(target, counted.error(), "counting the rows of " + part.name);
      if (error.code == Code::failed)
        error.message = fmt::format("the rows of {} cannot be counted: {}", part.name,
                                    counted.error().error.message);
      return fail(std::move(error));
    }
    if (const auto words = rows_differ(part.tables, *counted); !words.empty())
      return fail(Code::failed, fmt::format("in {}: {}", part.name, some_of(words)));
    ZX_TRY(apply_properties(server, part, part.name, options_.until));
    auto words =
        fmt::format("{}, {}", count_of(static_cast<std::int64_t>(counted->size()), "table"),
                    count_of(static_cast<std::int64_t>(rows_of(*counted)), "row"));
    if (!loaded.subscriptions.empty()) words += ", " + left_out(loaded.subscriptions);
    {
      const std::lock_guard lock(server_mutex_);
      restored_.insert(part.name);
    }
    return words;
  }

  // Does the server say what is wrong with the question?
  static bool is_answer(pg::Failure why) {
    return why == pg::Failure::other || why == pg::Failure::permission ||
           why == pg::Failure::cancelled;
  }

  // As a client of that database would ask.
  Status answer(const config::BackupCheck& check, const PgPart& part, pg::Throwaway& server) {
    const auto start = monotonic_now();
    const auto name = "check " + check.name;
    const auto found = std::find_if(part.databases.begin(), part.databases.end(),
                                    [&](const auto& one) { return one.name == check.database; });
    if (found == part.databases.end())
      return findings_.take(
          name, fmt::format("not asked: the set has no database {}", check.database), start);
    if (!restored_.contains(check.database))
      return findings_.take(
          name, fmt::format("not asked: the database {} was not restored", check.database), start);
    const auto asked = [&]() -> Result<std::string> {
      const auto target = server.target(check.database);
      auto client = pg::Client::open(target, options_.until.at_most(kStart));
      if (!client) return fail(not_of_the_set(pg::error_of(target, client.error())));
      std::string path = "\"$user\", public";
      for (const auto& setting : found->settings)
        if (setting.role.empty() && lower(setting.name) == "search_path") path = setting.value;
      const auto set = client->query(
          "SELECT set_config('search_path', $1, false),"
          " set_config('statement_timeout', '0', false)",
          options_.until, {path});
      if (!set) return fail(pg::error_of(target, set.error()));
      const auto rows = client->query(check.sql, options_.until);
      if (!rows && is_answer(rows.error().why))
        return fail(Code::failed, fmt::format("{} could not be asked: {}", check.database,
                                              rows.error().error.message));
      if (!rows) return fail(not_of_the_set(refusal_of(target, rows.error(), "asking " + name)));
      const auto expected = check.expect.empty() ? std::string("t") : check.expect;
      if (rows->empty() || rows->front().empty())
        return fail(Code::failed, fmt::format("{} answers nothing instead of {}", check.database,
                                              clean_utf8(expected)));
      const auto said = rows->front().front().value_or("NULL");
      if (said != expected)
        return fail(Code::failed,
                    fmt::format("{} answers {} instead of {}", check.database,
                                first_line(said.substr(0, 200)), clean_utf8(expected)));
      return "answered " + first_line(said.substr(0, 60));
    }();
    return keep(name, server, asked, start, Fault::answers);
  }

  Status redis(const RedisPart& part) {
    const auto start = monotonic_now();
    const auto name = "restored redis " + part.deployment;
    redis::ThrowawayOptions options;
    options.bin_dir = bin_dir_of(config_, part);
    options.base = base_;
    if (!part.databases.empty())
      options.databases = std::max(options.databases, part.databases.rbegin()->first + 1);
    ZX_ASSIGN(const auto file, repository_.open_object(part.rdb));
    // By the descriptor: nobody can put another in its place.
    auto server =
        redis::Throwaway::load_file(options, fmt::format("/proc/{}/fd/{}", getpid(), file.get()));
    if (!server) return fail(not_of_the_set(server.error()));
    if (const auto loaded = server->wait_loaded(options_.until); !loaded) {
      const auto& error = loaded.error();
      const bool is_of_host = error.message.find("killed by signal") != std::string::npos ||
                              error.message.find("Can't open the log file") != std::string::npos;
      return findings_.take(name, fail(is_of_host ? not_of_the_set(error) : error), start);
    }
    // Keys whose time has passed are gone, and then the digest is another.
    const bool with_digest = !part.digest.empty() && part.expires == 0;
    const auto content = server->content(options_.until, with_digest);
    if (!content) return fail(not_of_the_set(content.error()));
    return findings_.take(name, compared(part, *content, with_digest), start);
  }

  static Result<std::string> compared(const RedisPart& part, const redis::RdbContent& content,
                                      bool with_digest) {
    std::uint64_t gone = 0;
    auto found = content.databases;
    for (const auto& [number, keys] : part.databases) {
      const auto there = static_cast<std::uint64_t>(found[number]);
      found.erase(number);
      if (there > keys || gone + (keys - there) > part.expires)
        return fail(Code::failed, fmt::format("{}: database {} has {} keys instead of {}",
                                              shown(part.rdb), number, there, keys));
      gone += keys - there;
    }
    if (!found.empty())
      return fail(Code::failed, fmt::format("{}: database {} has keys, the manifest says none",
                                            shown(part.rdb), found.begin()->first));
    if (with_digest && content.digest != part.digest)
      return fail(Code::failed, shown(part.rdb) + ": another digest than when it was taken");
    auto words = count_of(content.keys, "key");
    if (gone > 0) words += fmt::format(", {} more had come to the end of their time", gone);
    if (with_digest) words += ", equal digest";
    return words;
  }

  const Repository& repository_;
  const Set& set_;
  const config::Config& config_;
  const VerifyOptions& options_;
  Findings& findings_;
  std::string base_, pg_base_;
  std::mutex server_mutex_;         // of the private server, and of the next
  std::set<std::string> restored_;  // databases, all of them
};

}  // namespace

Result<Millis> rehearse(const Repository& repository, const Set& set, const config::Config& config,
                        const VerifyOptions& options, Findings& findings) {
  return Rehearsal(repository, set, config, options, findings).run();
}

}  // namespace zx::backup
