// What no key can tell alone: references, what is missing, what contradicts.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/config/read.h"
#include "lib/os/socket_address.h"

namespace zx::config {
namespace {

template <class T>
std::vector<std::string> names_of(const std::vector<T>& things) {
  std::vector<std::string> names;
  for (const auto& thing : things) names.push_back(thing.name);
  return names;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string or_known(const std::string& word, const std::vector<std::string>& names) {
  const auto suggestion = meant(word, names);
  if (!suggestion.empty()) return suggestion;
  if (names.empty()) return "; there is none";
  constexpr std::size_t kMost = 8;
  std::vector<std::string> few(
      names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(names.size(), kMost)));
  return "; known: " + clean_utf8(join(few, ", ")) + (names.size() > kMost ? ", …" : "");
}

void check_required(Draft& draft) {
  for (const auto& table : tables_of(draft.config)) {
    for (const auto* key : keys_in(table)) {
      const auto parts = parts_of(table, *key);
      if (key->limits.is_required && !draft.is_given(parts))
        draft.add(table.parts,
                  fmt::format("missing key \"{}\" in [{}]", name_of(*key), spell_key(table.parts)));
    }
  }
}

// "{adress}" would reach ssh as it is.
void check_remote(Draft& draft, const Host& host) {
  if (!host.remote) return;
  for (const auto& word : *host.remote) {
    for (auto open = word.find('{'); open != std::string::npos; open = word.find('{', open + 1)) {
      const auto close = word.find('}', open);
      if (close == std::string::npos) break;
      const auto name = word.substr(open + 1, close - open - 1);
      if (name == "address" || name == "name") continue;
      const auto suggestion = meant("{" + name + "}", {"{address}", "{name}"});
      if (!suggestion.empty())
        draft.add({"hosts", host.name, "remote"},
                  fmt::format("{} has an unknown {}{}", spell_key({"hosts", host.name, "remote"}),
                              in_quotes("{" + name + "}"), suggestion));
    }
  }
}

void check_host(Draft& draft, const Host& host) {
  const auto& config = draft.config;
  check_remote(draft, host);
  const std::vector<std::string> of_region{"hosts", host.name, "region"};
  const std::vector<std::string> of_zone{"hosts", host.name, "zone"};
  if (host.region.empty()) {
    if (!host.zone.empty())
      draft.add(of_zone, fmt::format("{} is given without a region", spell_key(of_zone)));
    return;
  }
  const auto regions = names_of(config.regions);
  const auto region = std::find_if(config.regions.begin(), config.regions.end(),
                                   [&](const Region& one) { return one.name == host.region; });
  if (region == config.regions.end()) {
    draft.add(of_region, fmt::format("{} names the unknown region {}{}", spell_key(of_region),
                                     in_quotes(host.region), or_known(host.region, regions)));
  } else if (!host.zone.empty() && !contains(region->zones, host.zone)) {
    draft.add(of_zone, fmt::format("{} names the unknown zone {} of region {}{}",
                                   spell_key(of_zone), in_quotes(host.zone), in_quotes(host.region),
                                   or_known(host.zone, region->zones)));
  }
}

// What is set in the environment replaces the other way of the file.
void check_password(Draft& draft, const std::vector<std::string>& table, const std::string& key,
                    std::string& file, std::string& secret) {
  if (file.empty() || secret.empty()) return;
  auto of_secret = table;
  of_secret.push_back(key);
  auto of_file = table;
  of_file.push_back(key + "_file");
  const bool secret_from_environment = !draft.mark_of(of_secret).variable.empty();
  const bool file_from_environment = !draft.mark_of(of_file).variable.empty();
  if (secret_from_environment == file_from_environment) {
    draft.add(of_secret,
              fmt::format("{} stands beside {}_file; keep one of them", spell_key(of_secret), key));
    return;
  }
  (secret_from_environment ? file : secret).clear();
  draft.marks.erase(spell_key(secret_from_environment ? of_file : of_secret));
}

struct Taken {
  std::map<std::pair<std::string, int>, std::string> sockets;              // address and port
  std::map<std::pair<std::string, std::string>, std::string> directories;  // host and data_dir
};

void check_node(Draft& draft, const PgCluster& cluster, const PgNode& node, Taken& taken) {
  const auto& config = draft.config;
  const auto key = [&](const char* name) {
    return std::vector<std::string>{"pg", cluster.name, "nodes", node.name, name};
  };
  const auto self = spell_key({"pg", cluster.name, "nodes", node.name});
  if (!node.service.empty() && !(node.start.empty() && node.stop.empty()))
    draft.add(key("service"),
              fmt::format("{} stands beside {}; keep one of them", spell_key(key("service")),
                          node.start.empty() ? "stop" : "start"));
  if (node.host.empty()) return;
  const auto* host = config.host(node.host);
  if (host == nullptr) {
    draft.add(key("host"),
              fmt::format("{} names the unknown host {}{}", spell_key(key("host")),
                          in_quotes(node.host), or_known(node.host, names_of(config.hosts))));
    return;
  }
  // Two hosts of one address are one machine.
  const auto& address = host->address.empty() ? host->name : host->address;
  const auto [socket, is_new_socket] = taken.sockets.emplace(std::pair(address, node.port), self);
  if (!is_new_socket)
    draft.add(draft.is_given(key("port")) ? key("port") : key("host"),
              fmt::format("{} has the same address and port as {}: {}:{}", self, socket->second,
                          clean_utf8(address), node.port));
  if (node.data_dir.empty()) return;
  const auto [directory, is_new_directory] =
      taken.directories.emplace(std::pair(host->name, node.data_dir), self);
  if (!is_new_directory)
    draft.add(key("data_dir"),
              fmt::format("{} has the same host and data_dir as {}", self, directory->second));
}

// The slots of "pg-a" and "pg_a" would have one name: PostgreSQL allows no hyphen in it.
void check_slot_names(Draft& draft, const PgCluster& cluster) {
  std::map<std::string, std::string> taken;
  for (const auto& node : cluster.nodes) {
    auto name = node.name;
    std::replace(name.begin(), name.end(), '-', '_');
    const auto [first, is_new] = taken.emplace(name, node.name);
    if (is_new) continue;
    const std::vector<std::string> key{"pg", cluster.name, "nodes", node.name};
    draft.add(key,
              fmt::format("{} differs from {} only in \"-\" and \"_\": their replication slots "
                          "would have the same name",
                          spell_key(key), in_quotes(first->second)));
  }
}

// Below that every look would fail, or every server count as silent.
constexpr Millis kShortestLook{50};
void check_looks(Draft& draft, const PgCluster& cluster) {
  const auto& policy = cluster.policy;
  for (const auto& [name, span] : {std::pair("probe_deadline", policy.probe_deadline),
                                   std::pair("silent_after", policy.silent_after)}) {
    const std::vector<std::string> key{"pg", cluster.name, "policy", name};
    if (span < kShortestLook)
      draft.add(key, fmt::format("{} is {}; it takes a duration of at least {}", spell_key(key),
                                 format_duration(span), format_duration(kShortestLook)));
  }
}

constexpr Millis kShortestLease{2000};  // etcd's own least

void check_agent(Draft& draft) {
  auto& agent = draft.config.agent;
  const auto key = [](const char* name) { return std::vector<std::string>{"agent", name}; };
  const bool by_etcd = agent.coordination == "etcd";
  check_password(draft, {"agent"}, "etcd_password", agent.etcd_password_file, agent.etcd_password);
  if (!agent.listen.empty() && !agent.listen.starts_with("unix:/") &&
      !os::parse_socket_address(agent.listen))
    draft.add(key("listen"),
              fmt::format("agent.listen must be ADDRESS:PORT with a numeric address, such as "
                          "\"127.0.0.1:9180\" or \"[::1]:9180\", found {}",
                          in_quotes(agent.listen)));
  if (agent.name.find('/') != std::string::npos)
    draft.add(key("name"), fmt::format("agent.name has a \"/\", which no name of a file takes: {}",
                                       in_quotes(agent.name)));
  if (by_etcd && agent.etcd.empty())
    draft.add(key("coordination"), "agent.coordination is \"etcd\", and agent.etcd names no URL");
  for (const auto& url : agent.etcd)
    if (!url.starts_with("http://") && !url.starts_with("https://"))
      draft.add(key("etcd"), fmt::format("agent.etcd has {}, which is no http:// or https:// URL",
                                         in_quotes(url)));
  if (agent.lease < kShortestLease || agent.lease.count() % 1000 != 0)
    draft.add(key("lease"),
              fmt::format("agent.lease is {}; it takes whole seconds, at least {}",
                          format_duration(agent.lease), format_duration(kShortestLease)));
  if (!agent.region.empty() && !contains(names_of(draft.config.regions), agent.region))
    draft.add(key("region"),
              fmt::format("agent.region names the unknown region {}{}", in_quotes(agent.region),
                          or_known(agent.region, names_of(draft.config.regions))));
  if (!agent.guard.empty() && !by_etcd)
    draft.add(key("guard"), "agent.guard needs agent.coordination = \"etcd\"");
  std::vector<std::string> nodes;
  for (const auto& cluster : draft.config.pg)
    for (const auto& node : cluster.nodes) nodes.push_back(node.name);
  for (const auto& name : agent.guard)
    if (!contains(nodes, name))
      draft.add(key("guard"), fmt::format("agent.guard names the unknown node {}{}",
                                          in_quotes(name), or_known(name, nodes)));
}

}  // namespace

void check_references(Draft& draft) {
  check_required(draft);
  for (const auto& host : draft.config.hosts) check_host(draft, host);
  Taken taken;
  for (auto& cluster : draft.config.pg) {
    const std::vector<std::string> table{"pg", cluster.name};
    check_password(draft, table, "password", cluster.password_file, cluster.password);
    check_password(draft, table, "replication_password", cluster.replication_password_file,
                   cluster.replication_password);
    if (cluster.nodes.empty())
      draft.add({"pg", cluster.name},
                fmt::format("{} has no nodes; add a table [{}]", spell_key({"pg", cluster.name}),
                            spell_key({"pg", cluster.name, "nodes", "NAME"})));
    for (const auto& node : cluster.nodes) check_node(draft, cluster, node, taken);
    check_slot_names(draft, cluster);
    check_looks(draft, cluster);
    if (cluster.policy.observers > 1 && draft.config.agent.coordination != "etcd")
      draft.add({"pg", cluster.name, "policy", "observers"},
                fmt::format("{} is {}, which needs agent.coordination = \"etcd\"",
                            spell_key({"pg", cluster.name, "policy", "observers"}),
                            cluster.policy.observers));
  }
  check_agent(draft);
}

}  // namespace zx::config
