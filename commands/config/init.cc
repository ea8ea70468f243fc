// zx config init: a zx.toml for a cluster that runs.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include <fmt/format.h>

#include "commands/command.h"
#include "lib/base/clock.h"
#include "lib/base/text.h"
#include "lib/config/document.h"
#include "lib/config/render.h"
#include "lib/os/files.h"
#include "lib/os/process.h"
#include "lib/os/secrets.h"
#include "lib/os/signals.h"
#include "lib/pg/discover.h"

namespace zx::commands {
namespace {

using Where = pg::FoundNode::Where;

constexpr const char* kCluster = "main";
constexpr Millis kPatience{5000};

struct Options {
  std::string dsn;
  std::string write;
  std::string password_file;
};

const os::Argv kBySsh{"ssh", "-oBatchMode=yes", "{address}"};

std::string absolute(const std::string& path) {
  std::error_code wrong;
  const auto full = std::filesystem::absolute(path, wrong);
  return wrong ? path : full.lexically_normal().string();
}

// A role's name in a statement that a person is to copy.
std::string sql_name(const std::string& role) {
  const bool is_plain = role.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos;
  if (is_plain) return role;
  std::string out = "\"";
  for (const char c : role) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string names_of(const std::vector<pg::FoundNode>& nodes,
                     const std::function<bool(const pg::FoundNode&)>& wanted) {
  std::vector<std::string> names;
  for (const auto& node : nodes)
    if (wanted(node)) names.push_back(node.name);
  return join(names, ", ");
}

// What the file and the notes both say of a server that did not answer.
std::string description_of(const pg::Unverified& one) {
  auto text = one.name;
  if (!one.application_name.empty())
    text += ", which streams as " + config::in_quotes(one.application_name);
  text += ", from " + (one.port == 0 ? one.address : pg::to_string({one.address, one.port, {}}));
  return text + ": " + one.why;
}

void add_host(config::Config& config, config::Remarks& remarks, const pg::FoundNode& node) {
  if (config.host(node.host) != nullptr) return;
  config::Host host;
  host.name = node.host;
  host.address = node.at.address;
  const auto key = config::spell_key({"hosts", node.host, "remote"});
  const bool is_first = std::none_of(config.hosts.begin(), config.hosts.end(),
                                     [](const auto& h) { return h.remote && !h.remote->empty(); });
  if (node.where == Where::here) {
    host.remote.emplace();
  } else if (node.where == Where::elsewhere) {
    host.remote = kBySsh;
    if (is_first)
      remarks.at[key] =
          "zx must be installed there, and sshd must let this user in without a question.\n"
          "Without remote zx cannot fence there.";
  } else {
    remarks.at[key] =
        "The address is of this host, the server is not on it: a tunnel, or a container.\n"
        "Give the command that leads to its host; without it zx cannot fence there.\n"
        "remote = " +
        config::spell_list(kBySsh);
  }
  config.hosts.push_back(std::move(host));
}

std::string remark_of(const pg::FoundNode& node) {
  if (node.role == pg::Role::primary)
    return fmt::format("The primary when this was written, PostgreSQL {}.", node.version);
  auto text = fmt::format("A standby when this was written, PostgreSQL {}.", node.version);
  if (!node.application_name.empty() && node.application_name != node.name)
    text += fmt::format("\nIt streams as {}: synchronous_standby_names goes by that.",
                        config::in_quotes(node.application_name));
  return text;
}

// Debian keeps clusters in /var/lib/postgresql/VERSION/NAME, each with a unit of its own.
std::string debian_service(const std::string& data_dir) {
  constexpr std::string_view kParent = "/var/lib/postgresql/";
  if (!data_dir.starts_with(kParent)) return {};
  const auto parts = split(std::string_view(data_dir).substr(kParent.size()), '/');
  if (parts.size() != 2 || parts[0].empty() || parts[1].empty()) return {};
  return fmt::format("postgresql@{}-{}", parts[0], parts[1]);
}

void add_node(config::PgCluster& cluster, config::Remarks& remarks, const pg::FoundNode& found) {
  config::PgNode node;
  node.name = found.name;
  node.host = found.host;
  node.port = found.at.port;
  node.data_dir = found.data_dir;
  if (!found.config_file.empty() && found.config_file != found.data_dir + "/postgresql.conf")
    node.config_file = found.config_file;
  const std::vector<std::string> table{"pg", kCluster, "nodes", node.name};
  const auto key = [&](const char* name) {
    auto parts = table;
    parts.emplace_back(name);
    return config::spell_key(parts);
  };
  remarks.at[config::spell_key(table)] = remark_of(found);
  if (node.data_dir.empty())
    remarks.at[key("data_dir")] =
        "The role may not see it: SHOW data_directory, asked by a superuser, tells.";
  if (const auto service = debian_service(node.data_dir); !service.empty())
    remarks.at[key("service")] =
        "If systemd starts the server:\nservice = " + config::spell_string(service);
  cluster.nodes.push_back(std::move(node));
}

std::string tail_of(const config::Config& config, const pg::Discovery& found) {
  if (found.unverified.empty()) return {};
  std::string text =
      "These belong to the cluster too, but did not answer where they were looked for.\n"
      "Take the marks away when what follows is right.";
  std::vector<std::string> hosts;
  for (const auto& one : found.unverified) {
    text += "\n\n" + description_of(one);
    const bool is_new = config.host(one.host) == nullptr &&
                        std::find(hosts.begin(), hosts.end(), one.host) == hosts.end();
    if (is_new) {
      hosts.push_back(one.host);
      text += fmt::format("\n[{}]\naddress = {}", config::spell_key({"hosts", one.host}),
                          config::spell_string(one.address));
      text += "\nremote = " + config::spell_list(one.is_here ? os::Argv() : kBySsh);
    }
    const auto port = one.port == 0 ? "" : fmt::format(" {}", one.port);
    text += fmt::format("\n[{}]\nhost = {}\nport ={}\ndata_dir = {}",
                        config::spell_key({"pg", kCluster, "nodes", one.name}),
                        config::spell_string(one.host), port, config::spell_string(one.data_dir));
  }
  return text;
}

struct Draft {
  config::Config config;
  config::Remarks remarks;
};

void add_passwords(Draft& draft, config::PgCluster& cluster, const Options& given) {
  const auto remark = [&](const char* name, const char* text) {
    draft.remarks.at[config::spell_key({"pg", kCluster, name})] = text;
  };
  if (!given.password_file.empty())
    cluster.password_file = absolute(given.password_file);
  else
    remark("password_file",
           "The password of user is not here: without this key libpq looks for it in ~/.pgpass,\n"
           "$PGPASSFILE and $PGPASSWORD.\n"
           "password_file = \"/etc/zx/pg.pass\"");
  remark("replication_password_file",
         "The password that a rebuilt standby streams with:\n"
         "replication_password_file = \"/etc/zx/replication.pass\"");
}

Draft draft_of(const pg::Discovery& found, const pg::Dsn& dsn, const Options& given) {
  Draft draft;
  draft.remarks.head = fmt::format(
      "Made by zx config init at {} from the running cluster with the\n"
      "system identifier {}. Names may be changed here and everywhere below.\n",
      format_utc(system_clock().wall()), found.system_id);
  draft.remarks.at[config::spell_key({"platform", "environment"})] =
      "Where a mistake is dear, commands that destroy something ask for a name to be typed:\n"
      "environment = \"production\"";
  config::PgCluster cluster;
  cluster.name = kCluster;
  cluster.databases = found.databases;
  cluster.user = found.user;
  cluster.database = dsn.as.database;
  cluster.sslmode = dsn.as.sslmode;
  if (!dsn.as.sslrootcert.empty()) cluster.sslrootcert = absolute(dsn.as.sslrootcert);
  if (!found.replication_user.empty()) cluster.replication_user = found.replication_user;
  cluster.bin_dir = found.bin_dir;
  add_passwords(draft, cluster, given);
  for (const auto& node : found.nodes) {
    add_host(draft.config, draft.remarks, node);
    add_node(cluster, draft.remarks, node);
  }
  draft.config.pg.push_back(std::move(cluster));
  draft.remarks.tail = tail_of(draft.config, found);
  return draft;
}

// What the person must know before the file is used.
std::vector<std::string> notes_of(const pg::Discovery& found, const pg::Dsn& dsn,
                                  const Options& given) {
  std::vector<std::string> notes;
  for (const auto& one : found.unverified)
    notes.push_back("not verified, in the file as a comment: " + description_of(one));
  const auto grant = fmt::format("GRANT pg_monitor TO {}", sql_name(found.user));
  const auto blind = names_of(found.nodes, [](const auto& n) { return n.data_dir.empty(); });
  if (!blind.empty())
    notes.push_back(
        fmt::format("the data directory of {} could not be read: write data_dir into "
                    "the file, or {} and begin anew",
                    blind, grant));
  else if (!found.is_monitor)
    notes.push_back("zx status will want more than this role may see: " + grant);
  const auto cut_off = names_of(found.nodes, [](const auto& n) { return !n.is_fed; });
  if (!cut_off.empty() && found.is_monitor)
    notes.push_back(cut_off + ": in recovery, but no server of the cluster streams to it");
  const auto hidden = names_of(found.nodes, [](const auto& n) { return n.where == Where::hidden; });
  if (!hidden.empty())
    notes.push_back(hidden + ": not on this host, though its address is; remote is left to you");
  const auto local = names_of(found.nodes, [](const auto& n) {
    return n.where == Where::here && (n.at.address.starts_with("127.") || n.at.address == "::1" ||
                                      n.at.address == "localhost");
  });
  const auto far = names_of(found.nodes, [](const auto& n) { return n.where == Where::elsewhere; });
  if (!local.empty() && !far.empty())
    notes.push_back(
        fmt::format("{} cannot follow {} at a loopback address: change address of its "
                    "host",
                    far, local));
  for (const auto& sentence : found.left_out) notes.push_back(sentence);
  if (found.hidden_databases > 0)
    notes.push_back(fmt::format("{} database{} with control characters in the name left out",
                                found.hidden_databases, found.hidden_databases == 1 ? "" : "s"));
  if (!dsn.ignored.empty())
    notes.push_back("zx.toml has no key for " + join(dsn.ignored, ", ") + " of the DSN");
  if (!given.password_file.empty()) return notes;
  std::string way;
  if (getenv("PGPASSWORD") != nullptr) way = "keep $PGPASSWORD";
  if (getenv("PGPASSFILE") != nullptr) way = "keep $PGPASSFILE";
  if (!dsn.passfile.empty()) way = "set PGPASSFILE=" + shell_word(absolute(dsn.passfile));
  if (!way.empty())
    notes.push_back("no password is in the file: set password_file there, or " + way + " for zx");
  return notes;
}

Json or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

Json to_json(const pg::Discovery& found) {
  auto nodes = Json::array();
  for (const auto& node : found.nodes)
    nodes.push_back({{"name", node.name},
                     {"host", node.host},
                     {"address", node.at.address},
                     {"port", node.at.port},
                     {"role", name_of(node.role)},
                     {"here", node.where == Where::here},
                     {"version", node.version},
                     {"data_dir", or_null(node.data_dir)},
                     {"application_name", or_null(node.application_name)}});
  auto unverified = Json::array();
  for (const auto& one : found.unverified)
    unverified.push_back({{"name", one.name},
                          {"host", one.host},
                          {"address", or_null(one.address)},
                          {"port", one.port == 0 ? Json() : Json(one.port)},
                          {"data_dir", or_null(one.data_dir)},
                          {"application_name", or_null(one.application_name)},
                          {"why", one.why}});
  return Json{{"system_id", found.system_id},
              {"user", found.user},
              {"databases", found.databases},
              {"nodes", std::move(nodes)},
              {"unverified", std::move(unverified)}};
}

void show(Env& env, const pg::Discovery& found, const std::string& path) {
  env.screen.line(fmt::format("wrote {}: {} node{}, {} database{}", path, found.nodes.size(),
                              found.nodes.size() == 1 ? "" : "s", found.databases.size(),
                              found.databases.size() == 1 ? "" : "s"));
  Table table;
  table.head = {"NODE", "ROLE", "ADDRESS", "HOST", "DATA"};
  for (const auto& node : found.nodes)
    table.rows.push_back({node.name, name_of(node.role), pg::to_string(node.at), node.host,
                          node.data_dir.empty() ? Cell("not known", Tone::warn) : node.data_dir});
  env.screen.table(table);
  env.screen.line("");
  const bool is_whole = std::none_of(found.nodes.begin(), found.nodes.end(),
                                     [](const auto& n) { return n.data_dir.empty(); });
  env.screen.line(
      fmt::format("next: zx -c {} {}", shell_word(path), is_whole ? "status" : "config check"),
      Tone::dim);
}

Status check_free(const std::string& path) {
  if (path.empty() || !os::exists(path)) return {};
  return fail(Code::refused, path + " exists already", "name another file, or move that one away");
}

Result<int> run(Env& env, const Options& given) {
  ZX_TRY(check_free(given.write));
  ZX_ASSIGN(const auto dsn, pg::read_dsn(given.dsn));
  std::string password;
  if (!given.password_file.empty()) {
    ZX_ASSIGN(password, os::read_secret_file(absolute(given.password_file), ""));
  }
  // The keyword passfile, for all servers that are found; nothing else runs in this process yet.
  if (!dsn.passfile.empty()) setenv("PGPASSFILE", dsn.passfile.c_str(), 1);
  env.screen.progress("asking the servers");
  const auto found = pg::discover(dsn, password, env.shared.timeout.value_or(kPatience));
  if (const auto signal = os::interruption()) return fail(*signal);
  if (!found) return fail(found.error());

  const auto draft = draft_of(*found, dsn, given);
  const auto text = config::render(draft.config, draft.remarks);
  if (!given.write.empty()) {
    ZX_TRY(check_free(given.write));
    os::WriteOptions readable;  // there is no secret in it
    readable.mode = 0644;
    ZX_TRY(os::write_file(given.write, text, readable));
    show(env, *found, given.write);
  } else if (!env.screen.is_json()) {
    env.screen.raw(text);
  }
  const auto notes = notes_of(*found, dsn, given);
  for (const auto& note : notes) env.screen.note("note: " + note);
  auto json = to_json(*found);
  json["config"] = or_null(given.write.empty() ? "" : absolute(given.write));
  json["toml"] = text;
  json["notes"] = notes;
  env.screen.json(json);
  return 0;
}

}  // namespace

void add_config_init(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("config", "read, check and write zx.toml"), "init",
      "write a zx.toml for a cluster that runs",
      {.description =
           "Finds the servers of a PostgreSQL cluster, beginning at those that DSN names: a "
           "standby leads to its primary, the primary to its standbys. Standbys do not tell their "
           "port; those of other hosts are looked for at the ports of the servers that are known, "
           "so name them in DSN when they differ. Every server in the file has answered and has "
           "the cluster's system identifier; others are comments in it.\n\n"
           "The role needs pg_monitor to see everything. DSN must hold no password, as arguments "
           "can be read by everyone on the host: it comes from --password-file, ~/.pgpass, "
           "$PGPASSFILE or $PGPASSWORD. Nothing on the servers is changed.",
       .examples = {{"zx config init --dsn postgresql://zx@10.1.0.11", "print the file"},
                    {"zx config init --dsn 'host=db1,db2 user=zx' --write zx.toml", "write it"},
                    {"zx config init --dsn host=db1 --password-file pg.pass -o json",
                     "what was found, for a script"}},
       .exits = {Code::refused, Code::unreachable, Code::auth}},
      [given](Env& env) { return run(env, *given); });
  leaf->add_option("--dsn", given->dsn, "a server of the cluster, or several, as libpq takes them")
      ->type_name("DSN")
      ->required();
  auto* write = leaf->add_option("--write", given->write, "write this file, which must not exist");
  write->type_name("FILE");
  tree.complete(write, Complete::file);
  auto* password = leaf->add_option("--password-file", given->password_file,
                                    "a file whose first line is the password; zx.toml names it");
  password->type_name("FILE");
  tree.complete(password, Complete::file);
}

}  // namespace zx::commands
