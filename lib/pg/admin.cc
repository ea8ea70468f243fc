#include "lib/pg/admin.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/signals.h"
#include "lib/pg/conninfo.h"
#include "lib/pg/observe.h"

namespace zx::pg {
namespace {

constexpr Millis kPoll{4};

Result<Client> connect(const Target& target, Deadline deadline) {
  auto client = Client::open(target, deadline);
  if (!client) return fail(error_of(target, client.error()));
  return std::move(*client);
}

Result<Rows> ask(Client& client, const Target& target, const std::string& sql, Deadline deadline,
                 const std::vector<std::string>& parameters = {}) {
  auto rows = client.query(sql, deadline, parameters);
  if (!rows) return fail(error_of(target, rows.error()));
  return *std::move(rows);
}

std::string text_of(const Rows& rows, std::size_t column = 0) {
  if (rows.empty() || rows.front().size() <= column) return {};
  return rows.front()[column].value_or("");
}

// Settings that hold a password must not reach the server's log, whatever log_statement says; only
// a superuser may do this, and only a superuser may set what it protects.
constexpr const char* kHush =
    "SET log_statement = 'none'; SET log_min_duration_statement = -1; "
    "SET log_min_error_statement = 'panic'; SET track_activities = off";

constexpr Millis kPromoteArrivesWithin{2000};
constexpr Millis kReplaysWithin{3000};

Status alter_system(Client& client, const Target& target, const std::string& name,
                    const std::string& value, Deadline deadline) {
  // Outside a transaction block, hence a statement of its own.
  ZX_ASSIGN([[maybe_unused]] const auto rows,
            ask(client, target, fmt::format("ALTER SYSTEM SET {} = {}", name, quote_literal(value)),
                deadline));
  return {};
}

Status reload(Client& client, const Target& target, Deadline deadline) {
  ZX_ASSIGN(const auto rows, ask(client, target, "SELECT pg_reload_conf()", deadline));
  if (text_of(rows) != "t")
    return fail(Code::server, target.name + ": the configuration was not reloaded");
  return {};
}

}  // namespace

Result<CurrentUpstream> current_upstream(const Target& target, Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  ZX_ASSIGN(const auto rows,
            ask(client, target,
                "SELECT current_setting('primary_conninfo'), current_setting('primary_slot_name')",
                deadline));
  CurrentUpstream upstream;
  upstream.slot = text_of(rows, 1);
  if (text_of(rows).empty()) return upstream;
  ZX_ASSIGN(auto conninfo, parse_conninfo(text_of(rows)));
  upstream.had_password = !value_of(conninfo, "password").empty();
  remove_value(conninfo, "password");
  upstream.conninfo = to_string(conninfo);
  return upstream;
}

Result<Frozen> freeze(const Target& target, Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  ZX_TRY(alter_system(client, target, "primary_conninfo", "", deadline));
  ZX_TRY(reload(client, target, deadline));
  const auto replays_until = Deadline::after(std::min(kReplaysWithin, deadline.left() / 2));
  while (true) {
    ZX_ASSIGN(const auto rows,
              ask(client, target,
                  "SELECT pg_is_in_recovery(), EXISTS (SELECT 1 FROM pg_stat_activity WHERE "
                  "backend_type = 'walreceiver'), "
                  "greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text, "
                  "current_setting('primary_conninfo'), pg_last_wal_receive_lsn() IS NOT NULL OR "
                  "EXISTS (SELECT 1 FROM pg_stat_activity WHERE backend_type = 'startup' AND "
                  "wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream'))",
                  deadline));
    if (text_of(rows, 0) != "t")
      return fail(Code::refused, target.name + " is not a standby any more");
    const bool is_end = text_of(rows, 4) == "t";
    if (text_of(rows, 1) == "f" && text_of(rows, 3).empty() && (is_end || replays_until.passed())) {
      Frozen frozen;
      frozen.is_end = is_end;
      frozen.position = parse_lsn(text_of(rows, 2)).value_or(Lsn{});
      return frozen;
    }
    if (deadline.passed())
      return fail(Code::timeout, target.name + " does not stop receiving",
                  "is its walreceiver stopped or hanging?");
    pause_for(kPoll);
  }
}

Status set_upstream(const Target& target, const std::string& conninfo, const std::string& slot,
                    Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  if (conninfo.find("password=") != std::string::npos) {
    ZX_ASSIGN([[maybe_unused]] const auto hushed, ask(client, target, kHush, deadline));
  }
  ZX_TRY(alter_system(client, target, "primary_conninfo", conninfo, deadline));
  ZX_TRY(alter_system(client, target, "primary_slot_name", slot, deadline));
  return reload(client, target, deadline);
}

Result<Receiver> wait_streaming(const Target& target, const NodeFacts& source, Deadline deadline) {
  const auto& host = source.address;
  const auto port = source.port;
  const auto timeline = source.lineage.timeline;
  std::string last = "it has no walreceiver";
  while (true) {
    const auto snapshot =
        observe({target}, std::max(deadline.at_most(Millis(1000)).left(), Millis(100)));
    const auto& facts = snapshot.nodes.front();
    if (!facts.answered()) {
      last = facts.error.message;
    } else if (facts.role != Role::standby) {
      return fail(Code::refused, target.name + " is not a standby");
    } else if (facts.misses_wal_of(source)) {
      return fail(
          Code::failed,
          fmt::format("{} needs WAL from {} on, and {} has removed it: its oldest is {}",
                      target.name, to_string(facts.position()), source.name,
                      to_string(*source.oldest_wal)),
          fmt::format("make it anew: zx rejoin pg {0} --rebuild --confirm {0}", target.name));
    } else if (facts.receiver) {
      const auto& receiver = *facts.receiver;
      const bool right_timeline = timeline == 0 || receiver.timeline == timeline;
      // It says so for a moment, too, when it is about to be told that what it asks for is gone.
      const bool may_be_gone = receiver.latest_end == Lsn{} && source.oldest_wal &&
                               facts.position() < *source.oldest_wal;
      if (receiver.status == "streaming" && receiver.sender_host == host &&
          receiver.sender_port == port && right_timeline && !may_be_gone)
        return receiver;
      last = fmt::format("its walreceiver is {} from {}:{}", receiver.status, receiver.sender_host,
                         receiver.sender_port);
      if (!right_timeline)
        last += fmt::format(" on timeline {}, not {}", receiver.timeline, timeline);
      if (may_be_gone)
        last += fmt::format(", which may have removed what it needs: its oldest is {}",
                            to_string(*source.oldest_wal));
    }
    if (const auto way = os::giving_way()) return fail(*way);
    if (deadline.passed())
      return fail(Code::timeout,
                  fmt::format("{} does not stream from {}:{}: {}", target.name, host, port, last),
                  "the log of " + target.name + " says why");
    pause_for(kPoll);
  }
}

Result<bool> is_in_recovery(const Target& target, Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  ZX_ASSIGN(const auto rows, ask(client, target, "SELECT pg_is_in_recovery()", deadline));
  return text_of(rows) == "t";
}

Result<Promoted> promote(const Target& target, const std::function<Status()>& before_asking,
                         Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  Promoted promoted;
  ZX_ASSIGN(const auto state, ask(client, target,
                                  "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN "
                                  "pg_get_wal_replay_pause_state() <> 'not paused' ELSE false END, "
                                  "extract(epoch FROM clock_timestamp())",
                                  deadline));
  const auto looked = monotonic_now();
  if (text_of(state) == "t") {
    if (text_of(state, 1) == "t") {
      ZX_TRY(before_asking());
      promoted.replay_was_paused = true;
      ZX_ASSIGN([[maybe_unused]] const auto resumed,
                ask(client, target, "SELECT pg_wal_replay_resume()", deadline));
    } else {
      ZX_TRY(before_asking());
    }
    // A request that a cut network holds back must not promote when nobody waits for it any more:
    // the server refuses it by its own clock. Not waiting there: it looks only every 100 ms.
    const auto most = std::min(deadline.left(), kPromoteArrivesWithin);
    ZX_ASSIGN(const auto asked,
              ask(client, target,
                  "SELECT pg_promote(false) WHERE extract(epoch FROM clock_timestamp()) < "
                  "$1::numeric + $2::numeric / 1000",
                  deadline, {text_of(state, 2), std::to_string((since(looked) + most).count())}));
    if (asked.empty())
      return fail(Code::timeout, target.name + " got the request to promote too late, and did not",
                  "try again");
  }
  while (true) {
    ZX_ASSIGN(const auto rows,
              ask(client, target,
                  "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN 0 ELSE "
                  "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END",
                  deadline));
    if (text_of(rows) == "f") {
      promoted.timeline = static_cast<std::uint32_t>(std::atoi(text_of(rows, 1).c_str()));
      return promoted;
    }
    if (deadline.passed())
      return fail(Code::timeout,
                  target.name + " has been asked to promote and is still in recovery",
                  "it may still do so; go on waiting with zx runs resume");
    pause_for(kPoll);
  }
}

Status write_canary(const Target& target, const std::string& text, Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  // synchronous_commit = local: the other standbys have not been repointed yet.
  ZX_ASSIGN(
      const auto rows,
      ask(client, target,
          "BEGIN; SET LOCAL synchronous_commit = local; SET LOCAL transaction_read_only = off; "
          "SELECT pg_logical_emit_message(true, 'zx', " +
              quote_literal(text) + "); COMMIT",
          deadline));
  static_cast<void>(rows);
  return {};
}

std::string slot_name_of(const std::string& node) {
  constexpr std::size_t kLongest = 63;
  std::string out;
  bool is_whole = node.size() <= kLongest;
  std::uint32_t hash = 2166136261u;  // FNV-1a
  for (const char c : node) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    const bool allowed = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    is_whole = is_whole && (allowed || c == '-');
    out += allowed ? c : '_';
  }
  if (is_whole) return out;
  // 主库 and 备库 must not share one.
  return out.substr(0, kLongest - 9) + fmt::format("_{:08x}", hash);
}

Result<std::vector<std::string>> make_slots(const Target& target,
                                            const std::vector<std::string>& wanted,
                                            Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  std::vector<std::string> made;
  for (const auto& slot : wanted) {
    // Reserved at once: a slot without a position keeps no WAL until its first use.
    ZX_ASSIGN(const auto rows,
              ask(client, target,
                  "SELECT slot_name FROM pg_create_physical_replication_slot($1, true) "
                  "WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots s WHERE s.slot_name = $1)",
                  deadline, {slot}));
    if (!text_of(rows).empty()) made.push_back(slot);
  }
  return made;
}

Result<std::vector<std::string>> drop_slots(const Target& target,
                                            const std::vector<std::string>& unwanted,
                                            Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  std::vector<std::string> dropped;
  for (const auto& slot : unwanted) {
    ZX_ASSIGN(const auto rows,
              ask(client, target,
                  "SELECT slot_name, pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                  "WHERE slot_name = $1 AND slot_type = 'physical' AND NOT active",
                  deadline, {slot}));
    if (!text_of(rows).empty()) dropped.push_back(slot);
  }
  return dropped;
}

Status set_sync_names(const Target& target, const std::string& names, Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  ZX_TRY(alter_system(client, target, "synchronous_standby_names", names, deadline));
  ZX_TRY(reload(client, target, deadline));
  // A session is told by the postmaster once that has read the files itself.
  while (true) {
    ZX_ASSIGN(const auto rows, ask(client, target, "SHOW synchronous_standby_names", deadline));
    if (text_of(rows) == names) return {};
    if (deadline.passed())
      return fail(Code::timeout,
                  fmt::format("{}: synchronous_standby_names is still '{}' after a reload",
                              target.name, text_of(rows)),
                  "is it set on the server's command line, or the postmaster stopped?");
    pause_for(kPoll);
  }
}

Status checkpoint(const Target& target, Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  ZX_ASSIGN([[maybe_unused]] const auto rows, ask(client, target, "CHECKPOINT", deadline));
  return {};
}

}  // namespace zx::pg
