// What tests of faults ask of a cluster beside tests/scenario/cluster.h: that nothing was touched,
// that a standby is far behind, that a policy holds.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "lib/os/files.h"
#include "lib/pg/connection.h"
#include "tests/scenario/cluster.h"

namespace zx::test {

inline std::string data_dir(const Cluster& cluster, const std::string& node) {
  const auto facts = cluster.lab().node(node);
  REQUIRE_MESSAGE(facts.has_value(), why(facts));
  return facts->data_dir;
}

// All that decides who is what, by the nodes' files: a node that does not answer has it too.
inline std::map<std::string, std::string> roles_on_disk(const Cluster& cluster) {
  std::map<std::string, std::string> roles;
  for (const auto& member : cluster.lab().members()) {
    const auto dir = data_dir(cluster, member.name);
    // ALTER SYSTEM appends what it changes, and a connection string has no order.
    std::vector<std::string> words;
    for (const auto& line : lines_of(read(dir + "/postgresql.auto.conf"))) {
      auto text = line;
      std::erase(text, '\'');
      if (!text.starts_with('#'))
        for (const auto& word : split(text, ' ')) words.push_back(word);
    }
    for (const char* file : {"standby.signal", "zx-fence.json"})
      if (os::exists(dir + "/" + file)) words.emplace_back(file);
    std::sort(words.begin(), words.end());
    roles[member.name] = join(words, " ");
  }
  return roles;
}

// A walreceiver that was taken away, if only for a moment, has another process now.
inline std::map<std::string, std::string> receivers(const Cluster& cluster) {
  std::map<std::string, std::string> pids;
  for (const auto& member : cluster.lab().members()) {
    const auto result = psql(cluster.lab(), member.name,
                             "SELECT pid, status FROM pg_stat_wal_receiver WHERE pid IS NOT NULL");
    if (result.ok() && !trim(result.out).empty()) pids[member.name] = trim(result.out);
  }
  return pids;
}

// zx WORDS… must refuse and leave every node as it was.
inline Json refused(const Cluster& cluster, const std::vector<std::string>& words) {
  const auto before = roles_on_disk(cluster);
  const auto json = cluster.zx_json(words, 3);
  CHECK_MESSAGE(json["outcome"] == "refused", json.dump());
  CHECK(json["promoted"].is_null());
  CHECK(json["error"]["code"] == "refused");
  CHECK(roles_on_disk(cluster) == before);
  return json;
}

inline Json done(const Cluster& cluster, const std::vector<std::string>& words) {
  auto json = cluster.zx_json(words);
  REQUIRE_MESSAGE(json["outcome"] == "done", json.dump());
  return json;
}

inline Json step_of(const Json& report, const std::string& name) {
  for (const auto& step : report["steps"])
    if (step["name"] == name) return step;
  FAIL("no step " << name << " in " << report.dump());
  return {};
}

inline Json candidate_of(const Json& report, const std::string& node) {
  if (report.contains("candidates"))
    for (const auto& one : report["candidates"])
      if (one["node"] == node) return one;
  FAIL("no candidate " << node << " in " << report.dump());
  return {};
}

inline bool says(const Json& json, const std::string& words) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace).find(words) != std::string::npos;
}

// [pg.main.policy] KEY = VALUE, as it is written in the file.
inline void set_policy(const Cluster& cluster, const std::string& key, const std::string& value) {
  const std::string table = "[pg.main.policy]";
  const auto line = key + " = " + value;
  if (read(cluster.config()).find(table) == std::string::npos)
    write(cluster.config(), read(cluster.config()) + "\n" + table + "\n" + line + "\n");
  else
    cluster.edit_config(table, table + "\n" + line);
}

// Adds a line to the table of a host or a node, such as "pg.main.nodes.pg-b".
inline void set_in(const Cluster& cluster, const std::string& table, const std::string& line) {
  cluster.edit_config("[" + table + "]", "[" + table + "]\n" + line);
}

// PostgreSQL's programs without one of them; zx.toml names that directory.
inline std::filesystem::path without_program(const Cluster& cluster, const std::string& name) {
  namespace fs = std::filesystem;
  const fs::path bin = cluster.beside("bin");
  fs::create_directories(bin);
  for (const auto& entry : fs::directory_iterator(config::PgCluster{}.bin_dir))
    if (entry.path().filename() != name)
      fs::create_symlink(entry.path(), bin / entry.path().filename());
  set_in(cluster, "pg.main", "bin_dir = \"" + bin.string() + "\"");
  return bin;
}

// A disk that was replaced: the same directory with nothing in it.
inline void make_empty(const std::string& dir) {
  for (const auto& entry : std::filesystem::directory_iterator(dir))
    std::filesystem::remove_all(entry);
}

// Commits that many bytes of WAL.
inline void write_wal(const Cluster& cluster, const std::string& node, int mebibytes) {
  cluster.sql(node, fmt::format("SELECT pg_logical_emit_message(true, 'test', repeat('x', 1048576))"
                                " FROM generate_series(1, {})",
                                mebibytes));
}

// Waits until `standby` has received all that `primary` has committed.
inline bool has_all_of(const Cluster& cluster, const std::string& standby,
                       const std::string& primary) {
  const auto end = cluster.sql(primary, "SELECT pg_current_wal_flush_lsn()");
  const auto has = fmt::format("SELECT pg_last_wal_receive_lsn() >= '{}'", end);
  return eventually([&] { return cluster.sql(standby, has) == "t"; });
}

// Points the walreceiver of `node` at a port that nobody listens on.
inline void stop_receiving(const Cluster& cluster, const std::string& node) {
  auto conninfo = pg::parse_conninfo(cluster.sql(node, "SHOW primary_conninfo"));
  REQUIRE(conninfo.has_value());
  pg::set_value(*conninfo, "port", "1");
  const auto text = pg::quote_literal(pg::to_string(*conninfo));
  cluster.sql(node, "ALTER SYSTEM SET primary_conninfo = " + text);
  cluster.sql(node, "SELECT pg_reload_conf()");
  REQUIRE(eventually([&] {
    return cluster.sql(node,
                       "SELECT count(*) FROM pg_stat_wal_receiver WHERE pid IS NOT NULL"
                       " AND status = 'streaming'") == "0" &&
           cluster.sql(node, "SHOW primary_conninfo").find("port=1 ") != std::string::npos;
  }));
}

// A table of rows, one committed after the other.
inline void add_row(const Cluster& cluster, const std::string& node, int id) {
  cluster.sql(node, "CREATE TABLE IF NOT EXISTS kept (id int)");
  cluster.sql(node, fmt::format("INSERT INTO kept VALUES ({})", id));
}
inline std::string rows(const Cluster& cluster, const std::string& node) {
  return cluster.sql(node, "SELECT string_agg(id::text, ',' ORDER BY id) FROM kept");
}

inline std::vector<std::string> only(const std::string& node) { return {node}; }

inline bool is_down(const Cluster& cluster, const std::string& node) {
  return eventually([&] {
    const auto facts = cluster.lab().node(node);
    return facts.has_value() && !facts->is_running();
  });
}

}  // namespace zx::test
