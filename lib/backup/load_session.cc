#include "lib/backup/load_session.h"

#include <cstdlib>

#include <fmt/format.h>

#include "lib/backup/pg_load.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr Millis kConnect{10'000};
constexpr int kParameterPrivileges = 150'000;  // has_parameter_privilege()

// Of versions to come and gone by, too: what a server does not have is left out.
const Settings& unhurried() {
  static const Settings all{{"statement_timeout", "0"},
                            {"lock_timeout", "0"},
                            {"idle_in_transaction_session_timeout", "0"},
                            {"idle_session_timeout", "0"},
                            {"transaction_timeout", "0"},
                            {"default_transaction_read_only", "off"},
                            {"lc_messages", "C"}};
  return all;
}

const Settings& silent() {
  static const Settings all{{"log_statement", "none"},
                            {"log_duration", "off"},
                            {"log_min_duration_statement", "-1"},
                            {"log_min_duration_sample", "-1"},
                            {"log_transaction_sample_rate", "0"},
                            {"log_min_error_statement", "panic"},
                            {"pg_stat_statements.track_utility", "off"}};
  return all;
}

Result<pg::Rows> ask(pg::Client& client, const pg::Target& target, const std::string& sql,
                     const std::string& what, Deadline until) {
  auto rows = client.query(sql, until);
  if (!rows) return fail(refusal_of(target, rows.error(), what));
  return *std::move(rows);
}

struct Settable {
  Settings may, may_not;  // of the latter those that are otherwise now
};

Result<Settable> look(pg::Client& client, const pg::Target& target, int version,
                      const Settings& wanted, Deadline until) {
  const std::string by_privilege =
      version >= kParameterPrivileges
          ? "has_parameter_privilege(name, 'SET')"
          : "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)";
  std::vector<std::string> names;
  for (const auto& [name, value] : wanted) names.push_back(pg::quote_literal(name));
  ZX_ASSIGN(const auto rows,
            ask(client, target,
                fmt::format("SELECT name, setting, context = 'user' OR context = 'superuser' AND {}"
                            " FROM pg_settings WHERE name IN ({})",
                            by_privilege, join(names, ", ")),
                "looking at the settings", until));
  Settable found;
  for (const auto& [name, value] : wanted)
    for (const auto& row : rows) {
      if (row.at(0) != name) continue;
      if (row.at(2) == "t")
        found.may.emplace_back(name, value);
      else if (row.at(1) != value)
        found.may_not.emplace_back(name, value);
    }
  return found;
}

Status set(pg::Client& client, const pg::Target& target, const Settings& settings, Deadline until) {
  if (settings.empty()) return {};
  std::vector<std::string> calls;
  for (const auto& [name, value] : settings)
    calls.push_back(fmt::format("set_config({}, {}, false)", pg::quote_literal(name),
                                pg::quote_literal(value)));
  ZX_TRY(ask(client, target, "SELECT " + join(calls, ", "), "setting up the session", until));
  return {};
}

}  // namespace

Result<LoadSession> LoadSession::open(const pg::Target& target, Deadline until) {
  auto client = pg::Client::open(target, until.at_most(kConnect));
  if (!client) return fail(pg::error_of(target, client.error()));
  ZX_ASSIGN(const auto rows,
            ask(*client, target, "SHOW server_version_num", "asking for the version", until));
  const int version = std::atoi(rows.at(0).at(0).value_or("0").c_str());
  ZX_ASSIGN(auto settable, look(*client, target, version, unhurried(), until));
  ZX_TRY(set(*client, target, settable.may, until));
  return LoadSession{*std::move(client), version, std::move(settable.may)};
}

Result<std::vector<std::string>> LoadSession::keep_out_of_log(const pg::Target& target,
                                                              Deadline until) {
  ZX_ASSIGN(const auto settable, look(client, target, version, silent(), until));
  ZX_TRY(set(client, target, settable.may, until));
  std::vector<std::string> names;
  for (const auto& [name, value] : settable.may_not) names.push_back(name);
  return names;
}

Error refusal_of(const pg::Target& target, const pg::Failed& failed, const std::string& what) {
  auto error = pg::error_of(target, failed);
  const bool is_full = error.message.find("No space left on device") != std::string::npos;
  if (is_full)
    error.code = Code::disk_full;
  else if (failed.why == pg::Failure::resources)
    error.code = Code::config;
  else if (failed.why == pg::Failure::cancelled)
    error.code = Code::timeout;
  else if (error.code == Code::server)
    error.code = is_of_the_host(error.message) ? Code::config : Code::failed;
  error.trail.push_back("while " + what);
  return error;
}

}  // namespace zx::backup
