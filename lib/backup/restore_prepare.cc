// What is looked at before a restore changes anything.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "lib/backup/files_swap.h"
#include "lib/backup/object.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/restore_steps.h"
#include "lib/backup/services.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool wants(const RestoreWish& wish, Source source) {
  return wish.sources.empty() ||
         std::find(wish.sources.begin(), wish.sources.end(), source) != wish.sources.end();
}

bool is_wanted(const RestoreWish& wish, const FilesPart& part) {
  return wish.files.empty() || contains(wish.files, part.name) || contains(wish.files, part.path);
}

// Of a set, what the wish wants; an Error when it has not all that was named.
Result<Set> wanted_of(const Set& set, const RestoreWish& wish) {
  const auto lacks = [&](const std::string& what) {
    return fail(Code::refused, fmt::format("set {} has no {}", set.id, what),
                "zx backup list says what each has");
  };
  Set part = set;
  const bool named = !wish.sources.empty();
  if (!wants(wish, Source::pg)) part.pg.reset();
  if (!wants(wish, Source::redis)) part.redis.reset();
  if (!wants(wish, Source::files)) part.files.clear();
  if (named && wants(wish, Source::pg) && !part.pg) return lacks("databases");
  if (named && wants(wish, Source::redis) && !part.redis) return lacks("copy of Redis");
  if (named && wants(wish, Source::files) && part.files.empty()) return lacks("files");
  if (part.pg && !wish.databases.empty()) {
    for (const auto& name : wish.databases)
      if (std::none_of(part.pg->databases.begin(), part.pg->databases.end(),
                       [&](const auto& one) { return one.name == name; }))
        return lacks("database " + first_line(name));
    std::erase_if(part.pg->databases,
                  [&](const auto& one) { return !contains(wish.databases, one.name); });
  }
  for (const auto& name : wish.files)
    if (std::none_of(part.files.begin(), part.files.end(),
                     [&](const auto& one) { return one.name == name || one.path == name; }))
      return lacks("files " + first_line(name));
  std::erase_if(part.files, [&](const auto& one) { return !is_wanted(wish, one); });
  if (!part.pg && !part.redis && part.files.empty()) return lacks("part that is wanted");
  return part;
}

// Every object that is wanted is there with its size and SHA-256.
Status check_objects(const Repository& repository, const Set& wanted, const RestoreWish& wish) {
  const auto objects = wanted.objects_for_zx();
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (wish.progress)
      wish.progress(
          fmt::format("checking {} of {} objects of {}", i + 1, objects.size(), wanted.id));
    ZX_TRY(check_sum(repository, objects[i]));
  }
  return {};
}

// Is it the set, or the way to it (no permission, interrupted)?
bool is_damage(const Error& error) { return error.code == Code::failed; }

Check failed_check(const Error& error) {
  Check check;
  check.level = Level::checksum;
  check.at = wall_now();
  check.problem = error.message;
  return check;
}

}  // namespace

Result<Chosen> choose_set(const Repository& repository, const RestoreWish& wish) {
  Chosen chosen;
  if (!wish.set.empty()) {
    ZX_ASSIGN(chosen.entry, repository.set(wish.set));
    if (!chosen.entry.set) return fail(chosen.entry.set.error());
    ZX_ASSIGN(const auto wanted, wanted_of(*chosen.entry.set, wish));
    if (const auto good = check_objects(repository, wanted, wish); !good) {
      if (is_damage(good.error())) (void)repository.remember(wish.set, failed_check(good.error()));
      auto error = good.error();
      error.hint = "take another: zx backup list; without --set the newest good one is taken";
      return fail_while(std::move(error), "checking set " + wish.set);
    }
    return chosen;
  }
  ZX_ASSIGN(const auto entries, repository.sets());
  for (const auto& entry : entries) {
    if (!entry.set) {
      chosen.passed_over.push_back(entry.id + ": " + entry.set.error().message);
      continue;
    }
    if (wish.at && entry.set->point() > *wish.at) continue;
    const auto wanted = wanted_of(*entry.set, wish);
    if (!wanted) continue;  // it never had it: no damage
    const auto known = believed(*entry.set, entry.checks);
    if (known.trust == Trust::corrupt) {
      chosen.passed_over.push_back(entry.id + ": " + known.problem);
      continue;
    }
    const auto good = check_objects(repository, *wanted, wish);
    if (good) {
      chosen.entry = entry;
      return chosen;
    }
    if (!is_damage(good.error())) return fail(good.error());
    (void)repository.remember(entry.id, failed_check(good.error()));
    chosen.passed_over.push_back(entry.id + ": " + good.error().message);
  }
  if (!chosen.passed_over.empty())
    return fail(Code::failed, "no good set: " + join(chosen.passed_over, "; "),
                "zx backup list names them all");
  return fail(
      Code::not_found,
      wish.at ? "no set of that time or before has what is wanted" : "no set has what is wanted",
      "zx backup list says what each has");
}

namespace {

class Preparation {
 public:
  Preparation(RestoreWorld& world, const RestoreWish& wish) : world_(world), wish_(wish) {}

  Result<PreparedRestore> run(Chosen chosen) {
    out_.chosen = std::move(chosen);
    ZX_ASSIGN(const auto kept, read_kept(world_.config.platform.state_dir));
    if (kept)
      return fail(Code::refused,
                  fmt::format("what the restore of {} replaced is still kept (run {})",
                              format_utc(kept->at), kept->run),
                  "zx restore commit removes it, zx restore undo brings it back");
    ZX_ASSIGN(const auto set, wanted_of(*out_.chosen.entry.set, wish_));
    facts_.set = set.id;
    facts_.point_ms = std::chrono::duration_cast<Millis>(set.point().time_since_epoch()).count();
    if (!set.files.empty()) ZX_TRY(look_at_files(set));
    if (set.pg) ZX_TRY(look_at_pg(*set.pg));
    if (set.redis) ZX_TRY(look_at_redis(*set.redis));
    if (wish_.with_services) {
      ZX_TRY(can_reach_services(world_.config));
      for (const auto& service : world_.config.services) facts_.services.push_back(service.name);
      facts_.with_services = !facts_.services.empty();
    }
    out_.stored = set.bytes();
    ZX_ASSIGN(const auto entries, world_.repository.sets());
    for (const auto& entry : entries)
      if (entry.set && !out_.expected_ms)
        out_.expected_ms = believed(*entry.set, entry.checks).restore_ms;
    out_.plan = plan_restore(command(set), facts_);
    return std::move(out_);
  }

 private:
  [[nodiscard]] std::string command(const Set& set) const {
    if (wish_.with_services || wish_.sources.size() != 1) return kRestoreFull;
    return set.pg ? "restore pg" : set.redis ? "restore redis" : "restore files";
  }

  static Status has_room(const std::string& path, std::uint64_t needed, const std::string& what) {
    ZX_ASSIGN(const auto free, os::free_space(path));
    if (free > needed) return {};
    return fail(Code::disk_full,
                fmt::format("{} has {} free; {} takes {} beside what is there", path,
                            format_bytes(free), what, format_bytes(needed)),
                "make room there");
  }

  Status look_at_files(const Set& set) {
    for (const auto& part : set.files) {
      const auto known =
          std::find_if(world_.config.backup.files.begin(), world_.config.backup.files.end(),
                       [&](const config::BackupFiles& one) { return one.path == part.path; });
      if (known == world_.config.backup.files.end())
        return fail(
            Code::refused,
            fmt::format("set {} has files of {}, which zx.toml does not name", set.id, part.path),
            "add it to backup.files, or restore it aside: zx restore files --into DIRECTORY");
      ZX_TRY(can_be_swapped(part.path));
      ZX_TRY(has_room(os::parent_of(part.path), part.bytes, part.path));
      facts_.trees.push_back(part.path);
      const bool is_there = os::exists(part.path);
      if (is_there) facts_.had_tree.push_back(part.path);
      out_.bytes += part.bytes;
      out_.replaces.push_back(
          fmt::format("{}{}", part.path, is_there ? "" : ", which is not there"));
    }
    return {};
  }

  Status look_at_pg(const PgPart& part) {
    const auto* cluster = cluster_of(world_.config);
    if (cluster == nullptr)
      return fail(Code::config, world_.config.path + " names no PostgreSQL cluster");
    facts_.cluster = cluster->name;
    ZX_ASSIGN(const auto server, primary_server(world_, cluster->name));
    facts_.primary = server.target.name;
    const auto deadline = Deadline::after(Millis(30'000));
    auto client = pg::Client::open(server.target, deadline);
    if (!client) return fail(pg::error_of(server.target, client.error()));
    const auto column = [&](const std::string& sql) -> Result<std::vector<std::string>> {
      auto rows = client->query(sql, deadline);
      if (!rows) return fail(pg::error_of(server.target, rows.error()));
      std::vector<std::string> values;
      for (const auto& row : *rows) values.push_back(row.at(0).value_or(""));
      return values;
    };
    for (const auto& database : part.databases) facts_.databases.push_back(database.name);
    ZX_TRY(look_at_database_names(server.target, deadline));
    ZX_ASSIGN(const auto roles, column("SELECT rolname FROM pg_roles"));
    for (const auto& role : part.roles)
      if (!contains(roles, role)) facts_.missing_roles.push_back(role);
    ZX_ASSIGN(const auto extensions, column("SELECT name FROM pg_available_extensions"));
    std::set<std::string> missing;
    std::uint64_t size = 0;
    for (const auto& database : part.databases) {
      size += database.size;
      for (const auto& extension : database.extensions)
        if (!contains(extensions, extension)) missing.insert(extension);
    }
    if (!missing.empty())
      return fail(Code::refused,
                  fmt::format("{} lacks extensions of the set: {}", server.target.name,
                              join({missing.begin(), missing.end()}, ", ")),
                  "install their packages on its host first");
    ZX_ASSIGN(const auto prepared,
              column("SELECT DISTINCT database FROM pg_prepared_xacts ORDER BY 1"));
    for (const auto& database : facts_.databases)
      if (contains(prepared, database))
        return fail(Code::refused,
                    fmt::format("{} has prepared transactions, so it cannot be renamed", database),
                    "end them: SELECT gid FROM pg_prepared_xacts; COMMIT PREPARED or ROLLBACK "
                    "PREPARED");
    ZX_ASSIGN(const auto major,
              column("SELECT current_setting('server_version_num')::int / 10000"));
    const auto of_set = std::atoi(part.server_version.c_str());
    if (std::atoi(major.at(0).c_str()) < of_set)
      return fail(Code::refused,
                  fmt::format("{} is PostgreSQL {}, the set is of {}", server.target.name,
                              major.at(0), part.server_version),
                  "restore it into a server of that version or a newer one");
    out_.bytes += size;
    // Where the server's disk can be seen from here.
    const auto* node = cluster->node(server.target.name);
    const auto* host = node == nullptr ? nullptr : world_.config.host(node->host);
    if (host != nullptr && host->remote && host->remote->empty() && os::exists(node->data_dir))
      ZX_TRY(has_room(node->data_dir, size, "a second copy of the databases"));
    else
      out_.warnings.push_back(
          fmt::format("the room on {} was not looked at: {} beside what is there is needed",
                      server.target.name, format_bytes(size)));
    return {};
  }

  Status look_at_database_names(const pg::Target& target, Deadline deadline) {
    constexpr std::size_t kLongest = 63;
    ZX_ASSIGN(const auto names, look_at_names(target, facts_.databases, deadline));
    for (const auto& [database, now] : names) {
      if (kept_name(database).size() > kLongest)
        return fail(Code::refused,
                    fmt::format("{} has no room for _zxold behind it: a name has {} bytes",
                                database, kLongest));
      if (now.has_old)
        return fail(Code::refused, fmt::format("{} is there", kept_name(database)),
                    "an earlier restore is kept there: zx restore commit, or zx restore undo");
      if (now.has_new)
        return fail(Code::refused, fmt::format("{} is there", aside_name(database)),
                    "it is of a restore that did not end: zx runs list; else drop it");
      if (now.is_there) facts_.had_database.push_back(database);
      out_.replaces.push_back(
          fmt::format("database {}{}", database, now.is_there ? "" : ", which is not there"));
    }
    return {};
  }

  Status look_at_redis(const RedisPart& part) {
    const auto* deployment = deployment_of(world_.config);
    if (deployment == nullptr)
      return fail(Code::config, world_.config.path + " names no Redis deployment");
    facts_.redis_deployment = deployment->name;
    ZX_ASSIGN(facts_.redis_target, world_.redis.target());
    facts_.redis_file = world_.repository.path() + "/" + part.rdb.path;
    out_.bytes += part.rdb.bytes;
    out_.replaces.push_back(fmt::format("all keys of {}", facts_.redis_target));
    return {};
  }

  RestoreWorld& world_;
  const RestoreWish& wish_;
  PreparedRestore out_;
  RestoreFacts facts_;
};

}  // namespace

Result<PreparedRestore> prepare_restore(RestoreWorld& world, const RestoreWish& wish) {
  ZX_ASSIGN(auto chosen, choose_set(world.repository, wish));
  return Preparation(world, wish).run(std::move(chosen));
}

}  // namespace zx::backup
