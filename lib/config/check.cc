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

// Both kinds of node have these members. `table` is {"pg", "main", "nodes", "pg-a"}.
template <class Node>
void check_node(Draft& draft, const std::vector<std::string>& table, const Node& node,
                Taken& taken) {
  const auto& config = draft.config;
  const auto key = [&](const char* name) {
    auto parts = table;
    parts.emplace_back(name);
    return parts;
  };
  const auto self = spell_key(table);
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
template <class Policy>
void check_looks(Draft& draft, const std::vector<std::string>& table, const Policy& policy) {
  for (const auto& [name, span] : {std::pair("probe_deadline", policy.probe_deadline),
                                   std::pair("silent_after", policy.silent_after)}) {
    auto key = table;
    key.insert(key.end(), {"policy", name});
    if (span < kShortestLook)
      draft.add(key, fmt::format("{} is {}; it takes a duration of at least {}", spell_key(key),
                                 format_duration(span), format_duration(kShortestLook)));
  }
}

void check_has_nodes(Draft& draft, std::vector<std::string> table, bool has_nodes) {
  if (has_nodes) return;
  const auto self = spell_key(table);
  auto wanted = table;
  wanted.insert(wanted.end(), {"nodes", "NAME"});
  draft.add(table, fmt::format("{} has no nodes; add a table [{}]", self, spell_key(wanted)));
}

// Without a password there is no login, and the user would be ignored.
void check_user(Draft& draft, std::vector<std::string> table, const std::string& user,
                const std::string& file, const std::string& secret) {
  if (user.empty() || !file.empty() || !secret.empty()) return;
  table.emplace_back("user");
  draft.add(table, fmt::format("{} is given without password_file or password", spell_key(table)));
}

void check_sentinel(Draft& draft, const RedisDeployment& deployment, Taken& taken) {
  const auto& sentinel = deployment.sentinel;
  const auto key = [&](const char* name) {
    return std::vector<std::string>{"redis", deployment.name, "sentinel", name};
  };
  const bool has_name = !sentinel.master_name.empty();
  if (has_name && sentinel.nodes.empty())
    draft.add(key("master_name"), fmt::format("{} is given without nodes, the Sentinels",
                                              spell_key(key("master_name"))));
  if (!has_name && !sentinel.nodes.empty())
    draft.add(key("nodes"),
              fmt::format("{} is given without master_name", spell_key(key("nodes"))));
  // A Sentinel takes no other name either.
  const auto is_fine = [](unsigned char c) {
    return (c >= '0' && c <= '9') || ((c | 0x20u) >= 'a' && (c | 0x20u) <= 'z') || c == '.' ||
           c == '-' || c == '_';
  };
  if (!std::all_of(sentinel.master_name.begin(), sentinel.master_name.end(), is_fine))
    draft.add(key("master_name"),
              fmt::format("{} takes only A-z 0-9 and \".-_\", as Sentinel does, found {}",
                          spell_key(key("master_name")), in_quotes(sentinel.master_name)));
  if (!sentinel.nodes.empty() && sentinel.quorum > std::ssize(sentinel.nodes))
    draft.add(key("quorum"),
              fmt::format("{} is {}, but nodes has only {}", spell_key(key("quorum")),
                          sentinel.quorum, sentinel.nodes.size()));
  const auto hosts = names_of(draft.config.hosts);
  const auto self = spell_key(key("nodes"));
  for (const auto& node : sentinel.nodes) {
    const auto endpoint = endpoint_of(draft.config, node);
    if (endpoint.port < 1 || endpoint.port > 65535 || endpoint.address.empty()) {
      draft.add(key("nodes"), fmt::format("{} takes HOST:PORT, found {}", self, in_quotes(node)));
      continue;
    }
    const auto name = node.substr(0, node.rfind(':'));
    // A bare word may be a name of the resolver, but one that looks like a host is a slip.
    const auto suggestion = contains(hosts, name) ? std::string() : meant(name, hosts);
    const bool is_address = name.find_first_of(".:") != std::string::npos;
    if (!suggestion.empty() && !is_address) {
      draft.add(key("nodes"),
                fmt::format("{} names the unknown host {}{}", self, in_quotes(name), suggestion));
      continue;
    }
    const auto [socket, is_new] =
        taken.sockets.emplace(std::pair(endpoint.address, endpoint.port), self);
    if (!is_new)
      draft.add(key("nodes"),
                fmt::format("{} has {}, the same address and port as {}", self, in_quotes(node),
                            socket->second == self ? "another of it" : socket->second));
  }
}

void check_deployment(Draft& draft, RedisDeployment& deployment, Taken& taken) {
  const std::vector<std::string> table{"redis", deployment.name};
  const std::vector<std::string> of_sentinel{"redis", deployment.name, "sentinel"};
  auto& sentinel = deployment.sentinel;
  check_password(draft, table, "password", deployment.password_file, deployment.password);
  check_password(draft, of_sentinel, "password", sentinel.password_file, sentinel.password);
  check_user(draft, table, deployment.user, deployment.password_file, deployment.password);
  check_user(draft, of_sentinel, sentinel.user, sentinel.password_file, sentinel.password);
  check_has_nodes(draft, table, !deployment.nodes.empty());
  for (const auto& node : deployment.nodes)
    check_node(draft, {"redis", deployment.name, "nodes", node.name}, node, taken);
  check_looks(draft, table, deployment.policy);
  check_sentinel(draft, deployment, taken);
}

// Which cluster or deployment: named, or the only one.
void check_subject(Draft& draft, const char* key, const std::string& name,
                   const std::vector<std::string>& names) {
  if (!name.empty() && !contains(names, name))
    draft.add({"backup", key}, fmt::format("backup.{} names {}, which is not in this file{}", key,
                                           in_quotes(name), or_known(name, names)));
  if (name.empty() && names.size() > 1 && !draft.config.backup.repository.empty())
    draft.add({"backup", key},
              fmt::format("backup.{} must name one of {}", key, clean_utf8(join(names, ", "))));
}

void check_backup(Draft& draft) {
  const auto& config = draft.config;
  const auto& backup = config.backup;
  check_subject(draft, "pg", backup.pg, names_of(config.pg));
  check_subject(draft, "redis", backup.redis, names_of(config.redis));
  if (backup.repository.empty() && (!backup.files.empty() || !backup.checks.empty()))
    draft.add({"backup"}, "backup.repository is not given");
  if (!backup.metrics_file.empty() && !backup.metrics_file.ends_with(".prom"))
    draft.add({"backup", "metrics_file"},
              fmt::format("backup.metrics_file must end in .prom, or node_exporter does not read "
                          "it, found {}",
                          in_quotes(backup.metrics_file)));
  // zx runs from timers and shells alike: it may not matter in which directory.
  const auto is_plain = [&](const std::vector<std::string>& key, const std::string& path) {
    const auto parts = split(path, '/');
    if (path.empty() ||
        (path.starts_with('/') && std::find(parts.begin(), parts.end(), "..") == parts.end()))
      return;
    draft.add(key, fmt::format("{} must begin with \"/\" and have no \"..\", found {}",
                               spell_key(key), in_quotes(path)));
  };
  is_plain({"backup", "repository"}, backup.repository);
  is_plain({"backup", "scratch"}, backup.scratch);
  for (const auto& files : backup.files)
    is_plain({"backup", "files", files.name, "path"}, files.path);
  const auto is_in = [](const std::string& inner, const std::string& outer) {
    return inner == outer ||
           (inner.starts_with(outer) && (outer.ends_with('/') || inner[outer.size()] == '/'));
  };
  for (const auto& cluster : config.pg)
    for (const auto& node : cluster.nodes)
      if (!backup.repository.empty() && !node.data_dir.empty() &&
          is_in(backup.repository, node.data_dir))
        draft.add({"backup", "repository"},
                  fmt::format("backup.repository lies in the data directory of {}, which a rebuild "
                              "of the server removes",
                              node.name));
  for (std::size_t i = 0; i < backup.files.size(); ++i) {
    const auto& files = backup.files[i];
    const std::vector<std::string> key{"backup", "files", files.name, "path"};
    if (files.path.empty()) continue;
    if (!backup.repository.empty() &&
        (is_in(backup.repository, files.path) || is_in(files.path, backup.repository)))
      draft.add(key, fmt::format("{} and backup.repository lie in one another", spell_key(key)));
    for (std::size_t j = 0; j < i; ++j)
      if (is_in(files.path, backup.files[j].path) || is_in(backup.files[j].path, files.path))
        draft.add(key, fmt::format("{} and {} lie in one another", spell_key(key),
                                   spell_key({"backup", "files", backup.files[j].name, "path"})));
  }
}

void check_service(Draft& draft, const Service& service) {
  const std::vector<std::string> table{"services", service.name};
  const auto key = [&](const char* name) {
    return std::vector<std::string>{"services", service.name, name};
  };
  const bool has_commands = !service.start.empty() && !service.stop.empty();
  if (!service.service.empty() && !(service.start.empty() && service.stop.empty()))
    draft.add(key("service"),
              fmt::format("{} stands beside {}; keep one of them", spell_key(key("service")),
                          service.start.empty() ? "stop" : "start"));
  else if (service.service.empty() && !has_commands)
    draft.add(table, fmt::format("{} has neither service, nor start and stop", spell_key(table)));
  if (service.instances.empty())
    draft.add(table, fmt::format("{} has no instances", spell_key(table)));
  for (const auto& instance : service.instances) {
    const auto host = instance.substr(0, instance.rfind(':'));
    const auto endpoint = endpoint_of(draft.config, instance);
    if (endpoint.port < 1 || endpoint.port > 65535)
      draft.add(key("instances"), fmt::format("{} takes HOST:PORT, found {}",
                                              spell_key(key("instances")), in_quotes(instance)));
    else if (draft.config.host(host) == nullptr)
      draft.add(key("instances"),
                fmt::format("{} names the unknown host {}{}", spell_key(key("instances")),
                            in_quotes(host), or_known(host, names_of(draft.config.hosts))));
  }
  if (!service.health_http.empty() && !service.health_http.starts_with('/'))
    draft.add({"services", service.name, "health", "http"},
              fmt::format("{} must begin with \"/\", found {}",
                          spell_key({"services", service.name, "health", "http"}),
                          in_quotes(service.health_http)));
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
    check_has_nodes(draft, table, !cluster.nodes.empty());
    for (const auto& node : cluster.nodes)
      check_node(draft, {"pg", cluster.name, "nodes", node.name}, node, taken);
    check_slot_names(draft, cluster);
    check_looks(draft, table, cluster.policy);
    if (cluster.policy.observers > 1 && draft.config.agent.coordination != "etcd")
      draft.add({"pg", cluster.name, "policy", "observers"},
                fmt::format("{} is {}, which needs agent.coordination = \"etcd\"",
                            spell_key({"pg", cluster.name, "policy", "observers"}),
                            cluster.policy.observers));
  }
  for (auto& deployment : draft.config.redis) check_deployment(draft, deployment, taken);
  check_agent(draft);
  check_backup(draft);
  for (const auto& service : draft.config.services) check_service(draft, service);
}

}  // namespace zx::config
