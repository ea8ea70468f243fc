#include "lib/backup/verify.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include <fmt/format.h>

#include "lib/backup/files_restore.h"
#include "lib/backup/object.h"
#include "lib/backup/pg_globals.h"
#include "lib/backup/pg_load.h"
#include "lib/backup/run.h"
#include "lib/backup/verify_parts.h"
#include "lib/base/count.h"
#include "lib/base/text.h"
#include "lib/os/host_name.h"
#include "lib/os/sha256.h"
#include "lib/os/signals.h"
#include "lib/redis/rdb_check.h"

namespace zx::backup {
namespace {

constexpr Millis kTell{200};
constexpr std::size_t kPiece = 1u << 20;
constexpr std::size_t kMostGlobals = 256u << 20;

Error too_late() {
  return Error{Code::timeout, "the set was not verified by the deadline", {}, {}, true};
}

// An end of the whole look, whatever was found.
bool is_end(Code code) {
  return code == Code::interrupted || code == Code::terminated || code == Code::timeout;
}

// Its own words, when the manifest is no manifest; else what prevented the look.
bool is_damage_of_manifest(const Error& error) {
  return error.code == Code::failed || error.code == Code::io || error.code == Code::not_found;
}

class Look {
 public:
  Look(const Repository& repository, const Set& set, const config::Config& config,
       const VerifyOptions& options, Findings& findings)
      : repository_(repository),
        set_(set),
        config_(config),
        options_(options),
        findings_(findings) {}

  // Of every object as it is stored.
  Status sums() {
    if (set_.redis) {
      const auto& part = *set_.redis;
      ZX_TRY(sums_of("redis " + part.deployment, {part.rdb, part.record}));
    }
    if (set_.pg) {
      ZX_TRY(sums_of("pg globals", {set_.pg->globals}));
      for (const auto& part : set_.pg->databases) ZX_TRY(sums_of("pg " + part.name, {part.dump}));
    }
    for (const auto& part : set_.files) {
      std::vector<Object> objects{part.index};
      objects.insert(objects.end(), part.archives.begin(), part.archives.end());
      objects.insert(objects.end(), part.lists.begin(), part.lists.end());
      objects.push_back(part.recipe);
      ZX_TRY(sums_of("files " + part.name, objects));
    }
    return {};
  }

  // The sums too, in the same pass.
  Status decode() {
    if (set_.redis)
      ZX_TRY(of_part("redis " + set_.redis->deployment, [&] { return decode_redis(*set_.redis); }));
    if (set_.pg) ZX_TRY(decode_pg(*set_.pg));
    for (const auto& part : set_.files) {
      const auto name = "files " + part.name;
      ZX_TRY(of_part(name, [&] { return decode_tree(part, findings_.counter(name)); }));
    }
    return {};
  }

 private:
  Status of_part(const std::string& name, const std::function<Result<std::string>()>& look) {
    if (options_.until.passed()) return fail(too_late());
    const auto start = monotonic_now();
    damaged_.clear();
    auto compared = look();
    if (compared && !damaged_.empty()) {
      compared = fail(damaged_.front());
      damaged_.erase(damaged_.begin());
    }
    return findings_.take(name, compared, start, Fault::damage, damaged_);
  }

  // Of a part all that is damaged is named: what is good of it, the next backup refers to. What
  // cannot be looked at beside that does not hide it.
  Status go_on(const Status& good) {
    if (good) return {};
    const auto& error = good.error();
    if (error.code == Code::failed)
      damaged_.push_back(error);
    else if (damaged_.empty() || is_end(error.code))
      return good;
    return {};
  }

  Status sums_of(const std::string& name, const std::vector<Object>& objects) {
    return of_part(name, [&]() -> Result<std::string> {
      std::uint64_t bytes = 0;
      const auto count = findings_.counter(name);
      for (const auto& object : objects) {
        if (const auto signal = os::interruption()) return fail(*signal);
        ZX_TRY(go_on(check_sum(repository_, object, count, options_.until)));
        bytes += object.bytes;
      }
      return fmt::format("size and SHA-256 of {}, {}",
                         count_of(static_cast<std::int64_t>(objects.size()), "object"),
                         format_bytes(bytes));
    });
  }

  Result<std::string> decode_redis(const RedisPart& part) {
    ZX_TRY(go_on(check_sum(repository_, part.record, {}, options_.until)));
    return check_rdb(repository_, part, findings_.counter("redis " + part.deployment),
                     options_.until);
  }

  Status decode_pg(const PgPart& part) {
    const auto globals = [&]() -> Result<std::string> {
      ZX_ASSIGN(const auto text, read_object(repository_, part.globals, kMostGlobals));
      ZX_ASSIGN(const auto statements, statements_of(text));
      return fmt::format("SHA-256, {}",
                         count_of(static_cast<std::int64_t>(statements.size()), "statement"));
    };
    ZX_TRY(of_part("pg globals", globals));
    for (const auto& database : part.databases)
      ZX_TRY(of_part("pg " + database.name, [&] { return decode_database(part, database); }));
    return {};
  }

  Result<std::string> decode_database(const PgPart& part, const DatabasePart& database) {
    ZX_TRY(decode_dump(repository_, database, bin_dir_of(config_, part),
                       findings_.counter("pg " + database.name), options_.until));
    return fmt::format("SHA-256, all {} read by pg_restore", format_bytes(database.dump.raw));
  }

  Result<std::string> decode_tree(const FilesPart& part,
                                  const std::function<void(std::uint64_t)>& progress) {
    const auto decoded = decode_files(
        repository_, part, [&](std::uint64_t, std::uint64_t bytes) { progress(bytes); },
        options_.until);
    ZX_TRY(go_on(decoded));
    if (!decoded) {  // it ended there
      ZX_TRY(go_on(check_sum(repository_, part.index, progress, options_.until)));
      for (const auto& archive : part.archives)
        ZX_TRY(go_on(check_sum(repository_, archive, progress, options_.until)));
    }
    // What a person restores by hand with.
    ZX_TRY(go_on(check_sum(repository_, part.recipe, {}, options_.until)));
    for (const auto& list : part.lists) ZX_TRY(go_on(decompress(list)));
    return fmt::format("SHA-256 of {} and all in them",
                       count_of(static_cast<std::int64_t>(part.archives.size()), "archive"));
  }

  Status decompress(const Object& object) const {
    ZX_ASSIGN(auto reader, ObjectReader::open(repository_, object));
    while (true) {
      if (options_.until.passed()) return fail(too_late());
      ZX_ASSIGN(const auto piece, reader.next());
      if (piece.empty()) return {};
    }
  }

  const Repository& repository_;
  const Set& set_;
  const config::Config& config_;
  const VerifyOptions& options_;
  Findings& findings_;
  std::vector<Error> damaged_;  // of the part that is looked at
};

// As it is stored; the sum is right when it returns.
Status read_stored(const Repository& repository, const Object& object,
                   const std::function<Status(std::string_view)>& take, Deadline until) {
  ZX_ASSIGN(const auto file, repository.open_object(object));
  std::vector<char> buffer(kPiece);
  os::Sha256 hash;
  std::uint64_t bytes = 0;
  Status taken;
  while (true) {
    if (const auto signal = os::interruption()) return fail(*signal);
    if (until.passed()) return fail(too_late());
    const auto got = ::read(file.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(unreadable(object, errno));
    if (got == 0) break;
    const std::string_view piece(buffer.data(), static_cast<std::size_t>(got));
    hash.feed(piece);
    bytes += piece.size();
    if (taken) taken = take(piece);
  }
  if (bytes != object.bytes || hash.hex() != object.sha256)
    return fail(Code::failed, shown(object) + " is not what was written: another SHA-256");
  if (taken) return {};
  auto error = taken.error();
  error.message = shown(object) + " is " + error.message;
  return fail(std::move(error));
}

}  // namespace

Status Findings::take(const std::string& part, const Result<std::string>& compared, Monotonic start,
                      Fault fault, const std::vector<Error>& further) {
  if (!compared && compared.error().code != Code::failed)
    return fail_while(compared.error(), "verifying " + part);
  PartChecked checked{part, compared ? *compared : std::string(), {}, since(start)};
  const std::lock_guard lock(mutex_);
  if (!compared) {
    add(part, compared.error());
    checked.problem = problems_.back();
    std::int64_t more = 0;
    for (const auto& error : further) {
      const auto object = object_in(words_of(error));
      if (object && contains(damaged_, objects_[*object].path)) continue;
      add(part, error);
      ++more;
    }
    if (more > 0) checked.problem += "; and " + count_of(more, "more problem");
    has_damage_ = has_damage_ || fault == Fault::damage;
  }
  if (options_.checked) options_.checked(checked);
  return {};
}

std::string Findings::words_of(const Error& error) const {
  auto words = error.message;
  const auto own = "sets/" + set_id_ + "/";
  if (const auto at = words.find(own); at != std::string::npos) words.erase(at, own.size());
  return words;
}

void Findings::add(const std::string& part, const Error& error) {
  const auto words = words_of(error);
  const auto object = object_in(words);
  problems_.push_back(object ? fmt::format("object {}, {}", *object + 1, clean_utf8(words))
                             : part + ": " + clean_utf8(error.message));
  if (object && !contains(damaged_, objects_[*object].path))
    damaged_.push_back(objects_[*object].path);
}

void Findings::conclude(Check& check) const {
  check.problem = problem();
  const std::lock_guard lock(mutex_);
  check.ok = problems_.empty();
  check.fault = has_damage_ ? Fault::damage : Fault::answers;
  check.damaged = damaged_;
}

std::string Findings::problem() const {
  const std::lock_guard lock(mutex_);
  if (problems_.empty()) return {};
  if (problems_.size() == 1) return problems_.front();
  return fmt::format("{}; and {}", problems_.front(),
                     count_of(static_cast<std::int64_t>(problems_.size()) - 1, "more problem"));
}

std::function<void(std::uint64_t)> Findings::counter(const std::string& what) {
  const auto bytes = std::make_shared<std::atomic<std::uint64_t>>(0);
  return [this, what, bytes](std::uint64_t more) {
    const auto all = *bytes += more;
    if (!options_.progress) return;
    const std::lock_guard lock(mutex_);
    if (since(told_) < kTell) return;
    told_ = monotonic_now();
    options_.progress(fmt::format("{}  {}", what, format_bytes(all)));
  };
}

std::optional<std::size_t> Findings::object_in(const std::string& words) const {
  for (std::size_t i = 0; i < objects_.size(); ++i) {
    const auto name = shown(objects_[i]);
    const auto at = words.find(name);
    if (at == std::string::npos) continue;
    // Not one that only begins or ends like it.
    const auto end = at + name.size();
    if (at > 0 && words[at - 1] != ' ') continue;
    if (end < words.size() && words[end] != ' ' && words[end] != ':') continue;
    return i;
  }
  return std::nullopt;
}

std::string bin_dir_of(const config::Config& config, const PgPart& part) {
  const auto* cluster = config.cluster(part.cluster);
  if (cluster == nullptr) cluster = cluster_of(config);
  return cluster != nullptr ? cluster->bin_dir : config::PgCluster{}.bin_dir;
}

std::string bin_dir_of(const config::Config& config, const RedisPart& part) {
  const auto* deployment = config.deployment(part.deployment);
  if (deployment == nullptr) deployment = deployment_of(config);
  return deployment != nullptr ? deployment->bin_dir : config::RedisDeployment{}.bin_dir;
}

Result<std::string> check_rdb(const Repository& repository, const RedisPart& part,
                              const std::function<void(std::uint64_t)>& progress, Deadline until) {
  redis::RdbCheck check;
  const auto take = [&](std::string_view piece) {
    if (progress) progress(piece.size());
    return check.feed(piece);
  };
  ZX_TRY(read_stored(repository, part.rdb, take, until));
  if (const auto finished = check.finish(); !finished)
    return fail(Code::failed, shown(part.rdb) + " is " + finished.error().message);
  const auto& summary = check.summary();
  std::map<int, std::uint64_t> databases;
  for (const auto& [number, keys] : summary.databases) databases[static_cast<int>(number)] = keys;
  if (summary.keys != part.keys || summary.expires != part.expires || databases != part.databases)
    return fail(
        Code::failed,
        fmt::format("{} has {} keys ({} with a time to live), the manifest says {} ({})",
                    shown(part.rdb), summary.keys, summary.expires, part.keys, part.expires));
  return fmt::format("SHA-256, structure, {}",
                     count_of(static_cast<std::int64_t>(summary.keys), "key"));
}

std::string contradiction_in(const Set& set) {
  if (!set.redis && !set.pg && set.files.empty()) return "the manifest has no parts";
  std::set<std::string> names;
  if (set.pg) {
    if (set.pg->databases.empty()) return "the manifest has PostgreSQL without a database";
    for (const auto& part : set.pg->databases)
      if (!names.insert(part.name).second)
        return fmt::format("the manifest has the database {} twice", clean_utf8(part.name));
  }
  names.clear();
  for (const auto& part : set.files) {
    if (!names.insert(part.name).second)
      return fmt::format("the manifest has the files {} twice", clean_utf8(part.name));
    if (part.lists.size() != part.archives.size())
      return fmt::format("the manifest has {} archives of the files {} and {} lists",
                         part.archives.size(), clean_utf8(part.name), part.lists.size());
  }
  if (set.redis) {
    std::uint64_t keys = 0;
    for (const auto& [number, count] : set.redis->databases) keys += count;
    if (keys != set.redis->keys)
      return fmt::format("the manifest counts {} keys of Redis, and {} in its databases",
                         set.redis->keys, keys);
  }
  return {};
}

Result<Check> verify(const Repository& repository, const Entry& entry, Level level,
                     const config::Config& config, const VerifyOptions& options) {
  const auto start = monotonic_now();
  Check check;
  check.level = level;
  check.at = wall_now();
  check.host = os::host_name();
  if (!entry.set) {
    if (!is_damage_of_manifest(entry.set.error())) return fail(entry.set.error());
    check.problem = "manifest.json: " + clean_utf8(entry.set.error().message);
    check.took_ms = since(start).count();
    return check;
  }
  const auto& set = *entry.set;
  Findings findings(set, options);
  const auto contradiction = contradiction_in(set);
  ZX_TRY(findings.take(
      "manifest",
      contradiction.empty()
          ? Result<std::string>(
                count_of(static_cast<std::int64_t>(set.objects().size()), "object") + " named")
          : Result<std::string>(fail(Code::failed, contradiction)),
      start));
  Look look(repository, set, config, options, findings);
  ZX_TRY(level == Level::checksum ? look.sums() : look.decode());
  // What cannot be read is not worth a restore.
  if (level == Level::restore && findings.problem().empty()) {
    ZX_ASSIGN(const auto took, rehearse(repository, set, config, options, findings));
    check.restore_ms = took.count();
  }
  findings.conclude(check);
  if (!check.ok && check.fault == Fault::damage) check.restore_ms.reset();
  check.took_ms = since(start).count();
  return check;
}

const Entry* longest_unchecked(const std::vector<Entry>& entries, Level level) {
  const Entry* chosen = nullptr;
  Wall chosen_at{};
  for (const auto& entry : entries) {  // newest first
    // Of a newer format: it would be its turn for ever.
    if (!entry.set && entry.set.error().code == Code::refused) continue;
    Wall last{};
    for (const auto& check : entry.checks)
      if (check.level >= level) last = std::max(last, check.at);
    if (chosen != nullptr && last >= chosen_at) continue;
    chosen = &entry;
    chosen_at = last;
  }
  return chosen;
}

}  // namespace zx::backup
