// What is looked at before a restore changes anything.
#include <unistd.h>

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "lib/backup/files_swap.h"
#include "lib/backup/object.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/restore_checks.h"
#include "lib/backup/restore_steps.h"
#include "lib/backup/services.h"
#include "lib/base/count.h"
#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/os/host_name.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

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
  if (part.pg && wish.databases.empty() && !part.pg->databases.empty()) {
    std::erase_if(part.pg->databases, [](const auto& one) { return is_leaving(one.name); });
    if (part.pg->databases.empty()) return lacks("databases but what an earlier restore kept");
  }
  if (part.pg && !wish.databases.empty()) {
    for (const auto& name : wish.databases)
      if (std::none_of(part.pg->databases.begin(), part.pg->databases.end(),
                       [&](const auto& one) { return one.name == name; }))
        return lacks("database " + first_line(name));
    std::erase_if(part.pg->databases,
                  [&](const auto& one) { return !contains(wish.databases, one.name); });
  }
  if (part.pg && !wish.tables.empty()) ZX_TRY(keep_wanted_tables(wish, *part.pg));
  for (const auto& name : wish.files)
    if (std::none_of(part.files.begin(), part.files.end(),
                     [&](const auto& one) { return one.name == name || one.path == name; }))
      return lacks("files " + first_line(name));
  std::erase_if(part.files, [&](const auto& one) { return !is_wanted(wish, one); });
  if (wish.one_tree && part.files.size() != 1)
    return fail(Code::usage,
                fmt::format("--into takes one tree, set {} has {}", set.id, part.files.size()),
                "name it: --path PATH");
  if (!part.pg && !part.redis && part.files.empty()) return lacks("part that is wanted");
  return part;
}

// Is it the set, or the way to it (no permission, interrupted)?
bool is_damage(const Error& error) { return error.code == Code::failed; }

Check failed_check(const Error& first, std::vector<std::string> damaged) {
  Check check;
  check.level = Level::checksum;
  check.at = wall_now();
  check.host = os::host_name();
  check.problem = first.message;
  if (damaged.size() > 1)
    check.problem +=
        "; and " + count_of(static_cast<std::int64_t>(damaged.size()) - 1, "more damaged object");
  check.damaged = std::move(damaged);
  return check;
}

// A set that cannot be read has only its name, the time it was begun, to go by; no part of it is
// older.
bool is_after(const std::string& id, Wall at) {
  constexpr std::size_t kTime = 15;  // 20261124T020000
  if (!is_run_id(id)) return false;
  return id.substr(0, kTime) > make_run_id(at).substr(0, kTime);
}

// Every object that is wanted is there with its size and SHA-256. Damage is remembered, all of it:
// what is good of the set the next backup refers to.
Status check_objects(const Repository& repository, const Set& wanted, const RestoreWish& wish) {
  const auto objects = wanted.objects_for_zx();
  Status outcome, interruption;
  std::vector<std::string> damaged;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (wish.progress)
      wish.progress(
          fmt::format("checking {} of {} objects of {}", i + 1, objects.size(), wanted.id));
    const auto good = check_sum(repository, objects[i]);
    if (good) continue;
    if (is_damage(good.error())) {
      if (damaged.empty()) outcome = good;
      damaged.push_back(objects[i].path);
    } else if (damaged.empty()) {
      return good;
    } else if (os::interrupted()) {
      interruption = good;
      break;
    }
  }
  // Where the set cannot remember it the next one finds it again.
  if (!damaged.empty())
    (void)repository.remember(wanted.id, failed_check(outcome.error(), std::move(damaged)));
  return interruption ? outcome : interruption;
}

// What was found last of something that is wanted of the set; null: nothing. What is not known to
// be about something else is.
const Check* damage_of(const Believed& known, const Set& wanted) {
  const auto objects = wanted.objects_for_zx();
  const auto is_about = [&](const Check& failure) {
    return failure.damaged.empty() ||
           std::any_of(objects.begin(), objects.end(),
                       [&](const Object& one) { return contains(failure.damaged, one.path); });
  };
  const auto& failures = known.failures;
  const auto last = std::find_if(failures.rbegin(), failures.rend(), is_about);
  return last == failures.rend() ? nullptr : &*last;
}

}  // namespace

Result<Chosen> choose_set(const Repository& repository, const RestoreWish& wish) {
  Chosen chosen;
  for (const auto& name : wish.databases)
    if (is_leaving(name))
      return fail(Code::refused,
                  fmt::format("{} is what a restore kept, and no database of an application",
                              first_line(name)),
                  "by hand it can be loaded under another name: zx-repository(7)");
  if (!wish.set.empty()) {
    ZX_ASSIGN(chosen.entry, repository.set(wish.set));
    if (!chosen.entry.set) return fail(chosen.entry.set.error());
    ZX_ASSIGN(const auto wanted, wanted_of(*chosen.entry.set, wish));
    const auto known = believed(*chosen.entry.set, chosen.entry.checks);
    if (known.trust == Trust::corrupt)
      chosen.warnings.push_back(fmt::format("set {} is known to be corrupt since {}: {}", wish.set,
                                            format_utc(known.since), known.problem));
    if (const auto good = check_objects(repository, wanted, wish); !good) {
      auto error = good.error();
      error.hint = "take another: zx backup list; without --set the newest good one is taken";
      return fail_while(std::move(error), "checking set " + wish.set);
    }
    return chosen;
  }
  ZX_ASSIGN(const auto entries, repository.sets());
  std::optional<Error> lacking;
  for (const auto& entry : entries) {
    if (!entry.set) {
      if (wish.at && is_after(entry.id, *wish.at)) continue;
      chosen.passed_over.push_back(entry.id + ": " + entry.set.error().message);
      continue;
    }
    if (wish.at && entry.set->point() > *wish.at) continue;
    const auto wanted = wanted_of(*entry.set, wish);
    if (!wanted && wanted.error().code == Code::usage) return fail(wanted.error());
    if (!wanted && !lacking) lacking = wanted.error();
    if (!wanted) continue;  // it never had it: no damage
    const auto known = believed(*entry.set, entry.checks);
    if (const auto* damage = damage_of(known, *wanted)) {
      chosen.passed_over.push_back(entry.id + ": " + damage->problem);
      continue;
    }
    const auto good = check_objects(repository, *wanted, wish);
    if (good) {
      chosen.entry = entry;
      return chosen;
    }
    if (!is_damage(good.error())) return fail(good.error());
    chosen.passed_over.push_back(entry.id + ": " + good.error().message);
  }
  if (!chosen.passed_over.empty())
    return fail(Code::failed, "no good set: " + join(chosen.passed_over, "; "),
                "zx backup list names them all");
  const bool is_named = !wish.tables.empty() || !wish.databases.empty() || !wish.files.empty();
  if (lacking && is_named) return fail(*lacking);
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
    out_.warnings = out_.chosen.warnings;
    warn_of_leavings(set);
    if (!set.files.empty()) ZX_TRY(look_at_files(set));
    if (set.pg) ZX_TRY(look_at_pg(*set.pg));
    ZX_TRY(has_room(needs_, [](const auto& path) { return os::free_space(path); }));
    if (set.redis) ZX_TRY(look_at_redis(*set.redis));
    if (wish_.with_services) {
      ZX_TRY(can_reach_services(world_.config));
      for (const auto& service : world_.config.services) facts_.services.push_back(service.name);
      facts_.with_services = !facts_.services.empty();
    }
    out_.stored = set.bytes();
    ZX_ASSIGN(const auto entries, world_.repository->sets());
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

  void warn_of_leavings(const Set& wanted) {
    const auto& set = *out_.chosen.entry.set;
    if (!wanted.pg || !set.pg || !wish_.databases.empty() || !wish_.tables.empty()) return;
    std::vector<std::string> left_out;
    for (const auto& database : set.pg->databases)
      if (is_leaving(database.name)) left_out.push_back(database.name);
    if (!left_out.empty())
      out_.warnings.push_back(fmt::format(
          "{} of the set is not restored: an earlier restore had kept it", join(left_out, ", ")));
  }

  Status warn_of_tree(const FilesPart& part, const config::BackupFiles& known, bool is_there) {
    if (is_there && (!known.include.empty() || !known.exclude.empty()))
      out_.warnings.push_back(fmt::format(
          "files of {} that the backup leaves out by include and exclude are only in {} then",
          part.path, kept_path(part.path)));
    if (geteuid() == 0) return {};
    std::vector<gid_t> groups(static_cast<std::size_t>(std::max(0, getgroups(0, nullptr))));
    groups.resize(static_cast<std::size_t>(
        std::max(0, getgroups(static_cast<int>(groups.size()), groups.data()))));
    groups.push_back(getegid());
    ZX_ASSIGN(const bool has_others, has_other_owners(*world_.repository, part, geteuid(), groups));
    if (has_others)
      out_.warnings.push_back(fmt::format(
          "files of {} belong to others in the set: only root can give them their owners back",
          part.path));
    return {};
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
      ZX_ASSIGN(auto need, need_at(os::parent_of(part.path), part.bytes, part.path));
      needs_.push_back(std::move(need));
      facts_.trees.push_back(part.path);
      const bool is_there = os::exists(part.path);
      if (is_there) facts_.had_tree.push_back(part.path);
      ZX_TRY(warn_of_tree(part, *known, is_there));
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
    ZX_ASSIGN(const auto server, right_primary(world_, cluster->name));
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
    const bool is_of_tables = !wish_.tables.empty();
    if (!is_of_tables)
      for (const auto& database : part.databases) facts_.databases.push_back(database.name);
    ZX_TRY(leaves_one_to_connect(*client, server.target, facts_.databases, deadline));
    ZX_TRY(look_at_database_names(server.target, deadline));
    std::uint64_t size = 0;
    if (is_of_tables) {
      const auto& database = part.databases.front();
      ZX_ASSIGN(auto seen, look_at_tables(server, database, *out_.chosen.entry.set, deadline));
      facts_.table_database = database.name;
      facts_.tables = std::move(seen.tables);
      facts_.had_table = std::move(seen.had);
      out_.replaces = std::move(seen.replaces);
      out_.warnings.insert(out_.warnings.end(), seen.warnings.begin(), seen.warnings.end());
      size = seen.bytes;
    }
    ZX_ASSIGN(const auto roles, column("SELECT rolname FROM pg_roles"));
    for (const auto& role : part.roles)
      if (!contains(roles, role)) facts_.missing_roles.push_back(role);
    ZX_ASSIGN(const auto extensions, column("SELECT name FROM pg_available_extensions"));
    std::set<std::string> missing;
    for (const auto& database : part.databases) {
      if (!is_of_tables) size += database.size;
      for (const auto& extension : database.extensions)
        if (!contains(extensions, extension)) missing.insert(extension);
    }
    if (!missing.empty())
      return fail(Code::refused,
                  fmt::format("{} lacks extensions of the set: {}", server.target.name,
                              join({missing.begin(), missing.end()}, ", ")),
                  "install their packages on its host first");
    if (!is_of_tables) ZX_TRY(look_at_replaced(*client, server.target, deadline));
    ZX_ASSIGN(const auto tablespaces,
              missing_tablespaces(*world_.repository, part, *client, server.target, deadline));
    facts_.no_tablespaces = !tablespaces.empty();
    if (facts_.no_tablespaces)
      out_.warnings.push_back(
          fmt::format("{} lacks the tablespace {} of the set: all is put into that of its database",
                      server.target.name, join(tablespaces, ", ")));
    ZX_ASSIGN(const auto major,
              column("SELECT current_setting('server_version_num')::int / 10000"));
    const auto of_set = std::atoi(part.server_version.c_str());
    if (std::atoi(major.at(0).c_str()) < of_set)
      return fail(Code::refused,
                  fmt::format("{} is PostgreSQL {}, the set is of {}", server.target.name,
                              major.at(0), part.server_version),
                  "restore it into a server of that version or a newer one");
    out_.bytes += size;
    return look_for_room(*cluster, size,
                         is_of_tables ? "the tables, their old rows and a copy of the set's"
                                      : "a second copy of the databases");
  }

  Status look_at_replaced(pg::Client& client, const pg::Target& target, Deadline deadline) {
    ZX_TRY(can_be_renamed(client, target, facts_.databases, deadline));
    ZX_ASSIGN(const auto warnings,
              replication_warnings(client, target, facts_.had_database, deadline));
    out_.warnings.insert(out_.warnings.end(), warnings.begin(), warnings.end());
    return {};
  }

  // Where a server's disk can be seen from here; the standbys get all of it too.
  Status look_for_room(const config::PgCluster& cluster, std::uint64_t size,
                       const std::string& what) {
    for (const auto& node : cluster.nodes) {
      const auto* host = world_.config.host(node.host);
      if (host != nullptr && host->remote && host->remote->empty() && os::exists(node.data_dir)) {
        ZX_ASSIGN(const auto needs, needs_of_server(node.name, node.data_dir, size, what));
        needs_.insert(needs_.end(), needs.begin(), needs.end());
      } else if (node.name == facts_.primary) {
        out_.warnings.push_back(
            fmt::format("the room on {} was not looked at: {} beside what is there is needed, and "
                        "about as much for WAL",
                        node.name, format_bytes(size)));
      }
    }
    return {};
  }

  Status look_at_database_names(const pg::Target& target, Deadline deadline) {
    ZX_ASSIGN(const auto names, look_at_names(target, facts_.databases, deadline));
    for (const auto& [database, now] : names) {
      if (const auto fits = fits_as_name(kept_name(database)); !fits)
        return fail_while(fits.error(), "making room for what is there as " + database + "_zxold");
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
    facts_.redis_file = world_.repository->path() + "/" + part.rdb.path;
    ZX_ASSIGN(const auto warnings, world_.redis.look(facts_.redis_file, facts_.redis_target));
    for (const auto& warning : warnings) out_.warnings.push_back("Redis: " + warning);
    out_.bytes += part.rdb.bytes;
    out_.replaces.push_back(fmt::format("all keys of {}", facts_.redis_target));
    return {};
  }

  RestoreWorld& world_;
  const RestoreWish& wish_;
  PreparedRestore out_;
  RestoreFacts facts_;
  std::vector<Need> needs_;
};

}  // namespace

Result<PreparedRestore> prepare_restore(RestoreWorld& world, const RestoreWish& wish) {
  ZX_ASSIGN(auto chosen, choose_set(*world.repository, wish));
  return Preparation(world, wish).run(std::move(chosen));
}

}  // namespace zx::backup
