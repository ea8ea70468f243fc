#include "lib/config/keys.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/config/document.h"

namespace zx::config {
namespace {

#define ZX_SLOT(member) [](const Place& p) -> Slot { return &p.member; }

const std::vector<Key> kKeys{
    {"platform.name", ZX_SLOT(platform->name), "What the platform is called in reports."},
    {"platform.environment",
     ZX_SLOT(platform->environment),
     "Which environment this is. In production a command that destroys something wants the name of "
     "its target typed out.",
     {.choices = {"staging", "production"}}},
    {"platform.state_dir",
     ZX_SLOT(platform->state_dir),
     "Directory of journals, locks and what was last seen. It must survive a restart of the host.",
     {.use = Use::path,
      .fallback = "/var/lib/zx for root, else $XDG_STATE_HOME/zx or ~/.local/state/zx"}},

    {"regions.*.role",
     ZX_SLOT(region->role),
     "What the region is for.",
     {.choices = {"primary", "hot-standby", "disaster-recovery"}}},
    {"regions.*.zones", ZX_SLOT(region->zones),
     "The availability zones of the region. A host may stand in one of them."},

    {"hosts.*.address",
     ZX_SLOT(host->address),
     "Name or IP address under which servers of this host are reached.",
     {.is_required = true}},
    {"hosts.*.region", ZX_SLOT(host->region), "The region that the host stands in."},
    {"hosts.*.zone", ZX_SLOT(host->zone), "The zone of that region."},
    {"hosts.*.remote",
     ZX_SLOT(host->remote),
     "The command in front of `zx node ...` on that host; [] is this host. {address} and {name} "
     "are replaced. Without the key zx can do nothing there, so it cannot fence there.",
     {.use = Use::argv}},
    {"hosts.*.program", ZX_SLOT(host->program), "The program zx on that host."},

    {"pg.*.databases", ZX_SLOT(cluster->databases), "The databases that applications use."},
    {"pg.*.user", ZX_SLOT(cluster->user), "The role that zx connects as."},
    {"pg.*.database", ZX_SLOT(cluster->database), "The database that probes connect to."},
    {"pg.*.password_file",
     ZX_SLOT(cluster->password_file),
     "A file whose first line is the password of user. Only its owner may be able to read it. A "
     "relative name is looked up in $CREDENTIALS_DIRECTORY, or beside zx.toml when that is not "
     "set.",
     {.use = Use::secret_file}},
    {"pg.*.password",
     ZX_SLOT(cluster->password),
     "The variable that holds the password, as \"${NAME}\". The password itself is refused.",
     {.use = Use::secret}},
    {"pg.*.replication_user", ZX_SLOT(cluster->replication_user),
     "The role that standbys stream as."},
    {"pg.*.replication_password_file",
     ZX_SLOT(cluster->replication_password_file),
     "Like password_file, for replication_user.",
     {.use = Use::secret_file}},
    {"pg.*.replication_password",
     ZX_SLOT(cluster->replication_password),
     "Like password, for replication_user.",
     {.use = Use::secret}},
    {"pg.*.sslmode",
     ZX_SLOT(cluster->sslmode),
     "How connections are encrypted, as in libpq.",
     {.choices = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}}},
    {"pg.*.sslrootcert",
     ZX_SLOT(cluster->sslrootcert),
     "The certificates that servers are checked against.",
     {.use = Use::path}},
    {"pg.*.bin_dir",
     ZX_SLOT(cluster->bin_dir),
     "Directory of pg_ctl, pg_rewind and the others.",
     {.use = Use::path}},

    {"pg.*.nodes.*.host",
     ZX_SLOT(node->host),
     "The host that the server runs on.",
     {.is_required = true}},
    {"pg.*.nodes.*.port",
     ZX_SLOT(node->port),
     "The port that the server listens on.",
     {.least = 1, .most = 65535}},
    {"pg.*.nodes.*.data_dir",
     ZX_SLOT(node->data_dir),
     "The data directory, on its host.",
     {.is_required = true, .use = Use::path}},
    {"pg.*.nodes.*.config_file",
     ZX_SLOT(node->config_file),
     "postgresql.conf, when it is not in data_dir.",
     {.use = Use::path}},
    {"pg.*.nodes.*.service", ZX_SLOT(node->service),
     "The systemd unit that starts and stops the server. Without it, and without start and stop, "
     "zx runs postgres itself and stops it by signals."},
    {"pg.*.nodes.*.start",
     ZX_SLOT(node->start),
     "The command that starts the server.",
     {.use = Use::argv}},
    {"pg.*.nodes.*.stop",
     ZX_SLOT(node->stop),
     "The command that stops the server.",
     {.use = Use::argv}},
    {"pg.*.nodes.*.priority",
     ZX_SLOT(node->priority),
     "Among equally fresh standbys the higher one is promoted. 0 never becomes primary.",
     {.least = 0, .most = 1000}},
    {"pg.*.nodes.*.nofailover", ZX_SLOT(node->nofailover), "Never promote this node."},

    {"pg.*.policy.max_lag", ZX_SLOT(cluster->policy.max_lag),
     "How many bytes a candidate may be behind the last known position of the primary."},
    {"pg.*.policy.require_sync", ZX_SLOT(cluster->policy.require_sync),
     "Promote only a standby that is known to have been synchronous."},
    {"pg.*.policy.require_fence", ZX_SLOT(cluster->policy.require_fence),
     "Do not promote while the old primary cannot be fenced. Switching it off risks two "
     "primaries."},
    {"pg.*.policy.automatic", ZX_SLOT(cluster->policy.automatic),
     "Whether the agent fails the cluster over by itself. Off, it only watches."},
    {"pg.*.policy.probe_interval", ZX_SLOT(cluster->policy.probe_interval),
     "How often the agent asks each server over the connection that it holds. The end of that "
     "connection is noticed at once, whatever the interval."},
    {"pg.*.policy.probe_deadline", ZX_SLOT(cluster->policy.probe_deadline),
     "How long one look at a server may take."},
    {"pg.*.policy.silent_after", ZX_SLOT(cluster->policy.silent_after),
     "A server that has not answered for this long counts as silent."},
    {"pg.*.policy.planned_restart_grace", ZX_SLOT(cluster->policy.planned_restart_grace),
     "How long a primary that is starting up or shutting down is waited for."},
    {"pg.*.policy.flap_window", ZX_SLOT(cluster->policy.flap_window),
     "After a failover by the agent, the next one within this time waits until a person has said "
     "zx failover ack."},
    {"pg.*.policy.observers",
     ZX_SLOT(cluster->policy.observers),
     "How many regions, the agent's own among them, must agree that the primary is gone before "
     "the agent acts. More than one needs agents there, and coordination by etcd.",
     {.least = 1, .most = 9}},
    {"pg.*.policy.rejoin",
     ZX_SLOT(cluster->policy.rejoin),
     "How the agent brings an old primary back: rewind, rebuild when a rewind cannot work, or "
     "manual for not at all.",
     {.choices = {"rewind", "rebuild", "manual"}}},
    {"pg.*.policy.fence_deadline", ZX_SLOT(cluster->policy.fence_deadline),
     "How long fencing the old primary may take."},
    {"pg.*.policy.promote_deadline", ZX_SLOT(cluster->policy.promote_deadline),
     "How long a promotion may take."},
    {"pg.*.policy.catchup_deadline", ZX_SLOT(cluster->policy.catchup_deadline),
     "How long a standby may take to catch up before a switchover, or to stream again."},
    {"pg.*.policy.stop_deadline", ZX_SLOT(cluster->policy.stop_deadline),
     "How long an orderly stop of a server, or the checkpoint on a new primary, may take."},
    {"pg.*.policy.rebuild_deadline", ZX_SLOT(cluster->policy.rebuild_deadline),
     "How long copying a whole server anew may take."},

    {"agent.name",
     ZX_SLOT(agent->name),
     "What this agent is called among others.",
     {.fallback = "the name of the host"}},
    {"agent.region", ZX_SLOT(agent->region), "The region that this agent looks from."},
    {"agent.listen", ZX_SLOT(agent->listen),
     "Numeric address and port of its HTTP endpoints. Empty: none. What changes anything goes "
     "through its Unix socket only."},
    {"agent.coordination",
     ZX_SLOT(agent->coordination),
     "How agents, and persons who run zx by hand, agree on who acts: by lock files when all are on "
     "one host, or by etcd.",
     {.choices = {"file", "etcd"}}},
    {"agent.etcd", ZX_SLOT(agent->etcd), "The URLs of etcd's members."},
    {"agent.etcd_user", ZX_SLOT(agent->etcd_user), "The user in etcd; empty: no authentication."},
    {"agent.etcd_password_file",
     ZX_SLOT(agent->etcd_password_file),
     "Like password_file of a cluster, for etcd_user.",
     {.use = Use::secret_file}},
    {"agent.etcd_password",
     ZX_SLOT(agent->etcd_password),
     "Like password of a cluster, for etcd_user.",
     {.use = Use::secret}},
    {"agent.etcd_ca_file",
     ZX_SLOT(agent->etcd_ca_file),
     "The certificates that etcd's members are checked against.",
     {.use = Use::path}},
    {"agent.etcd_cert_file",
     ZX_SLOT(agent->etcd_cert_file),
     "The certificate that the agent shows to etcd.",
     {.use = Use::path}},
    {"agent.etcd_key_file", ZX_SLOT(agent->etcd_key_file), "Its key.", {.use = Use::path}},
    {"agent.lease", ZX_SLOT(agent->lease),
     "How long etcd keeps an agent the leader, a guard in charge, and a person's run at work, "
     "without a word from it; whole seconds, at least 2."},
    {"agent.guard", ZX_SLOT(agent->guard),
     "The nodes on this host that the agent guards: when it can neither renew its lease nor see "
     "that every node that could take over still receives, it stops the server before the lease "
     "runs out. Needs coordination by etcd."},
};

#undef ZX_SLOT

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;  // clang 14 does not find it out by itself

const Place& fresh_place() {
  static Platform platform = [] {
    Platform fresh;
    fresh.state_dir = default_state_dir();
    return fresh;
  }();
  static Region region;
  static Host host;
  static PgCluster cluster;
  static PgNode node;
  static Agent agent;
  static const Place place{&platform, &region, &host, &cluster, &node, &agent};
  return place;
}

}  // namespace

const std::vector<Key>& keys() { return kKeys; }

const Key* find_key(std::string_view pattern) {
  for (const auto& key : kKeys)
    if (key.pattern == pattern) return &key;
  return nullptr;
}

std::string name_of(const Key& key) {
  return std::string(key.pattern.substr(key.pattern.rfind('.') + 1));
}

std::string_view table_of(const Key& key) { return key.pattern.substr(0, key.pattern.rfind('.')); }

std::vector<std::string> parts_after(std::string_view pattern) {
  const auto prefix = pattern.empty() ? std::string() : std::string(pattern) + ".";
  std::vector<std::string> parts;
  for (const auto& key : kKeys) {
    if (!key.pattern.starts_with(prefix)) continue;
    const auto rest = key.pattern.substr(prefix.size());
    const std::string part(rest.substr(0, rest.find('.')));
    if (std::find(parts.begin(), parts.end(), part) == parts.end()) parts.push_back(part);
  }
  return parts;
}

std::string expected_by(const Key& key) {
  const auto& limits = key.limits;
  if (!limits.choices.empty()) return "one of " + join(limits.choices, ", ");
  if (limits.use == Use::secret) return "\"${NAME}\" with the name of an environment variable";
  return std::visit(
      Overloaded{
          [&](std::string*) {
            return std::string(limits.use == Use::plain ? "a string" : "a path");
          },
          [&](int*) { return fmt::format("an integer from {} to {}", limits.least, limits.most); },
          [](bool*) { return std::string("true or false"); },
          [](std::uint64_t*) { return std::string("a size such as \"16 MiB\""); },
          [](Millis*) { return std::string("a duration such as \"30s\""); },
          [](auto*) { return std::string("a list of strings"); },
      },
      key.slot(fresh_place()));
}

std::string spell(const Slot& slot) {
  return std::visit(
      Overloaded{
          [](std::string* text) { return spell_string(*text); },
          [](int* number) { return std::to_string(*number); },
          [](bool* flag) { return std::string(*flag ? "true" : "false"); },
          [](std::uint64_t* bytes) { return spell_string(spell_bytes(*bytes)); },
          [](Millis* span) { return spell_string(spell_duration(*span)); },
          [](List* list) { return spell_list(*list); },
          [](std::optional<List>* list) { return *list ? spell_list(**list) : std::string(); },
      },
      slot);
}

std::string spell_default(const Key& key) { return spell(key.slot(fresh_place())); }

std::vector<Table> tables_of(Config& config) {
  std::vector<Table> tables;
  tables.push_back({"platform", {"platform"}, {.platform = &config.platform}});
  for (auto& region : config.regions)
    tables.push_back({"regions.*", {"regions", region.name}, {.region = &region}});
  for (auto& host : config.hosts)
    tables.push_back({"hosts.*", {"hosts", host.name}, {.host = &host}});
  for (auto& cluster : config.pg) {
    tables.push_back({"pg.*", {"pg", cluster.name}, {.cluster = &cluster}});
    for (auto& node : cluster.nodes)
      tables.push_back({"pg.*.nodes.*",
                        {"pg", cluster.name, "nodes", node.name},
                        {.cluster = &cluster, .node = &node}});
    tables.push_back({"pg.*.policy", {"pg", cluster.name, "policy"}, {.cluster = &cluster}});
  }
  tables.push_back({"agent", {"agent"}, {.agent = &config.agent}});
  return tables;
}

std::vector<const Key*> keys_in(const Table& table) {
  std::vector<const Key*> found;
  for (const auto& key : kKeys)
    if (table_of(key) == table.pattern) found.push_back(&key);
  return found;
}

std::vector<std::string> parts_of(const Table& table, const Key& key) {
  auto parts = table.parts;
  parts.push_back(name_of(key));
  return parts;
}

std::string default_state_dir() {
  if (geteuid() == 0) return "/var/lib/zx";
  // The XDG specification: a relative value is to be ignored.
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && state[0] == '/') return std::string(state) + "/zx";
  const char* home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/') {
    const auto* entry = getpwuid(geteuid());
    home = entry != nullptr ? entry->pw_dir : nullptr;
  }
  return home != nullptr ? std::string(home) + "/.local/state/zx" : std::string();
}

std::vector<KeyDoc> key_docs() {
  std::vector<KeyDoc> docs;
  for (const auto& key : kKeys) {
    KeyDoc doc;
    doc.pattern = key.pattern;
    doc.type = expected_by(key);
    for (const auto* article : {"a ", "an "})
      if (doc.type.starts_with(article)) doc.type.erase(0, std::string_view(article).size());
    doc.type = doc.type.substr(0, doc.type.find(" such as"));
    if (doc.type == "true or false") doc.type = "boolean";
    if (key.limits.use == Use::secret) doc.type = "\"${NAME}\"";
    const auto fallback = spell_default(key);
    if (key.limits.is_required)
      doc.fallback = "required";
    else if (!key.limits.fallback.empty())
      doc.fallback = key.limits.fallback;
    else if (fallback != "\"\"" && fallback != "[]")
      doc.fallback = fallback;
    doc.doc = key.doc;
    doc.secret = key.limits.use == Use::secret;
    docs.push_back(std::move(doc));
  }
  return docs;
}

}  // namespace zx::config
