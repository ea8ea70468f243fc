// Whether the way back is open: all that it needs is there.
#include <fmt/format.h>

#include "lib/backup/files_swap.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/pg_table.h"
#include "lib/backup/restore_checks.h"
#include "lib/backup/restore_steps.h"
#include "lib/backup/services.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr Millis kLook{30'000};

// Those of the run whose TABLE_zxold is not there.
Result<std::vector<std::string>> kept_tables_gone(pg::Target target, const Kept& kept,
                                                  Deadline deadline) {
  target.database = kept.table_database;
  auto client = pg::Client::open(target, deadline);
  if (!client) return fail(pg::error_of(target, client.error()));
  std::vector<std::string> gone;
  for (const auto& name : kept.tables) {
    ZX_ASSIGN(const auto table, table_id(name));
    const auto rows = client->query(look_sql(table), deadline);
    if (!rows) return fail(pg::error_of(target, rows.error()));
    const auto now = now_of(rows->at(0));
    if (!now.has_kept || now.kept_by != kept.run) gone.push_back(name);
  }
  return gone;
}

class Look {
 public:
  Look(RestoreWorld& world, const Kept& kept) : world_(world), kept_(kept) {}

  Status all() {
    look_at_trees();
    if (!kept_.databases.empty() || !kept_.tables.empty()) {
      ZX_ASSIGN(const auto server, right_primary(world_, kept_.cluster));
      ZX_TRY(look_at_databases(server.target));
      if (!kept_.tables.empty()) ZX_TRY(look_at_tables(server.target));
    }
    if (!kept_.redis_deployment.empty())
      if (const auto can = world_.redis.can_take_back(kept_.run); !can) not_so(can.error().message);
    if (kept_.with_services) ZX_TRY(can_reach_services(world_.config));
    if (problems_.empty()) return {};
    return fail(Code::refused, join(problems_, "; "),
                "nothing was changed; once it is mended run it again");
  }

 private:
  void not_so(std::string problem) { problems_.push_back(std::move(problem)); }

  void look_at_trees() {
    for (const auto& path : kept_.had_tree)
      if (!is_there(kept_path(path))) not_so(kept_path(path) + " is gone");
    for (const auto& path : kept_.trees)
      if (is_there(aside_path(path)) && is_there(path)) not_so(aside_path(path) + " is there");
    for (const auto& path : kept_.had_tree) {
      const auto known = kept_.inodes.find(path);
      const auto now = inode_of(path);
      if (known != kept_.inodes.end() && now && *now != known->second)
        not_so(path + " is not what was restored: somebody has put another there since");
    }
  }

  Status look_at_databases(const pg::Target& target) {
    if (kept_.databases.empty()) return {};
    auto renamed = kept_.databases;
    for (const auto& name : kept_.had_database) renamed.push_back(kept_name(name));
    auto client = pg::Client::open(target, deadline_);
    if (!client) return fail(pg::error_of(target, client.error()));
    ZX_TRY(leaves_one_to_connect(*client, target, renamed, deadline_));
    ZX_ASSIGN(const auto names, look_at_names(target, kept_.databases, deadline_));
    for (const auto& name : kept_.had_database)
      if (!names.at(name).has_old) not_so("the database " + kept_name(name) + " is gone");
    for (const auto& name : kept_.had_database)
      if (kept_.oids.contains(name) && names.at(name).is_there &&
          names.at(name).oid != kept_.oids.at(name))
        not_so(name + " is not what was restored: somebody has made it since");
    for (const auto& [name, now] : names)
      if (now.is_there && now.has_new) not_so("the database " + aside_name(name) + " is there");
    return can_be_renamed(*client, target, renamed, deadline_);
  }

  Status look_at_tables(const pg::Target& target) {
    ZX_ASSIGN(const auto names, look_at_names(target, {kept_.table_database}, deadline_));
    if (!names.at(kept_.table_database).is_there) {
      not_so("the database " + kept_.table_database + " is gone");
      return {};
    }
    ZX_ASSIGN(const auto gone, kept_tables_gone(target, kept_, deadline_));
    for (const auto& name : gone)
      not_so(fmt::format("the table {}.{} of run {} is gone", kept_.table_database,
                         kept_shown(name), kept_.run));
    return {};
  }

  RestoreWorld& world_;
  const Kept& kept_;
  std::vector<std::string> problems_;
  const Deadline deadline_ = Deadline::after(kLook);
};

}  // namespace

Result<bool> are_tables_kept(const RestoreWorld& world, const Kept& kept, Deadline deadline) {
  ZX_ASSIGN(const auto target, primary_target(world, kept.cluster));
  ZX_ASSIGN(const auto gone, kept_tables_gone(target, kept, deadline));
  return gone.empty();
}

Status prepare_undo(RestoreWorld& world, const Kept& kept) {
  if (kept.committing)
    return fail(Code::refused, "what was kept is being removed, so the way back is closed",
                "finish it: zx restore commit");
  const auto can = Look(world, kept).all();
  if (can || can.error().code == Code::refused) return can;
  auto error = can.error();
  // Whatever it is: as it is now it would stop half way.
  if (error.code == Code::unreachable || error.code == Code::timeout) error.code = Code::refused;
  return fail_while(std::move(error), "looking whether it can be taken back");
}

}  // namespace zx::backup
