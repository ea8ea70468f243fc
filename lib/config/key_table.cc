// Every key of zx.toml, in the order of the manual.
#include "lib/config/keys.h"

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

    {"redis.*.user", ZX_SLOT(deployment->user),
     "The ACL user that zx logs in as; empty: the default user. To look at a server it needs "
     "+info, "
     "+config|get, +ping and +client|setname; without the last three less is known. To copy its "
     "data +replconf and +sync, to restore them also +config|set, +replicaof, +bgsave, +lastsave, "
     "+time and +bgrewriteaof; none of these needs a right to keys. Runs see each other on the "
     "servers by +client|list, +client|kill, +multi and +exec."},
    {"redis.*.password_file",
     ZX_SLOT(deployment->password_file),
     "A file whose first line is the password. The rules are those of pg.*.password_file. zx "
     "encrypts nothing on its way to Redis: where the network is not trusted, let address and port "
     "be those of a local stunnel.",
     {.use = Use::secret_file}},
    {"redis.*.password",
     ZX_SLOT(deployment->password),
     "The variable that holds the password, as \"${NAME}\". The password itself is refused.",
     {.use = Use::secret}},
    {"redis.*.bin_dir",
     ZX_SLOT(deployment->bin_dir),
     "Directory of redis-server.",
     {.use = Use::path}},

    {"redis.*.nodes.*.host",
     ZX_SLOT(redis_node->host),
     "The host that the server runs on.",
     {.is_required = true}},
    {"redis.*.nodes.*.port",
     ZX_SLOT(redis_node->port),
     "The port that the server listens on.",
     {.least = 1, .most = 65535}},
    {"redis.*.nodes.*.data_dir",
     ZX_SLOT(redis_node->data_dir),
     "The directory of its RDB and AOF files, on its host. Without it zx asks the server, and "
     "knows "
     "nothing while that is down.",
     {.use = Use::path}},
    {"redis.*.nodes.*.config_file",
     ZX_SLOT(redis_node->config_file),
     "Its redis.conf, on its host. Without it zx asks the server, as for data_dir.",
     {.use = Use::path}},
    {"redis.*.nodes.*.service", ZX_SLOT(redis_node->service),
     "The systemd unit that starts and stops the server. Without it, and without start and stop, "
     "zx runs redis-server itself and stops it by signals."},
    {"redis.*.nodes.*.start",
     ZX_SLOT(redis_node->start),
     "The command that starts the server.",
     {.use = Use::argv}},
    {"redis.*.nodes.*.stop",
     ZX_SLOT(redis_node->stop),
     "The command that stops the server.",
     {.use = Use::argv}},
    {"redis.*.nodes.*.priority",
     ZX_SLOT(redis_node->priority),
     "Among equally fresh replicas the higher one is promoted. 0 never becomes master. Redis's own "
     "replica-priority, which Sentinel goes by, counts the other way round.",
     {.least = 0, .most = 1000}},

    {"redis.*.sentinel.master_name", ZX_SLOT(deployment->sentinel.master_name),
     "What the Sentinels call the master. Empty: this deployment has no Sentinels."},
    {"redis.*.sentinel.nodes", ZX_SLOT(deployment->sentinel.nodes),
     "The Sentinels, each as \"HOST:PORT\" with the name of a host of this file or an address."},
    {"redis.*.sentinel.quorum",
     ZX_SLOT(deployment->sentinel.quorum),
     "How many Sentinels must agree that the master is gone; set on a Sentinel that must be told "
     "of the master anew.",
     {.least = 1, .most = 99}},
    {"redis.*.sentinel.user", ZX_SLOT(deployment->sentinel.user),
     "The ACL user that zx logs in to the Sentinels as; empty: the default user."},
    {"redis.*.sentinel.password_file",
     ZX_SLOT(deployment->sentinel.password_file),
     "Like password_file, for the Sentinels.",
     {.use = Use::secret_file}},
    {"redis.*.sentinel.password",
     ZX_SLOT(deployment->sentinel.password),
     "Like password, for the Sentinels.",
     {.use = Use::secret}},

    {"redis.*.policy.max_lag", ZX_SLOT(deployment->policy.max_lag),
     "How many bytes of the replication stream a candidate may be behind the last known offset of "
     "the master."},
    {"redis.*.policy.require_fence", ZX_SLOT(deployment->policy.require_fence),
     "Do not promote while the old master cannot be fenced on its host. One that is out of reach "
     "is "
     "waited for until it refuses writes by itself, where its min-replicas-to-write and "
     "min-replicas-max-lag (in redis.conf, so that a restart keeps them) say so and all its "
     "replicas answer. Switching it off waits for neither and risks two masters."},
    {"redis.*.policy.automatic", ZX_SLOT(deployment->policy.automatic),
     "Whether the agent fails the deployment over by itself, where no Sentinel does. Off, it only "
     "watches."},
    {"redis.*.policy.probe_interval", ZX_SLOT(deployment->policy.probe_interval),
     "How often the agent asks each server over the connection that it holds. The end of that "
     "connection is noticed at once, whatever the interval."},
    {"redis.*.policy.probe_deadline", ZX_SLOT(deployment->policy.probe_deadline),
     "How long one look at a server may take."},
    {"redis.*.policy.silent_after", ZX_SLOT(deployment->policy.silent_after),
     "A server that has not answered for this long counts as silent. A master whose process its "
     "host sees at work all the while, as in a long script, has ten times as long."},
    {"redis.*.policy.flap_window", ZX_SLOT(deployment->policy.flap_window),
     "After a failover by the agent, the next one within this time waits for a person."},
    {"redis.*.policy.fence_deadline", ZX_SLOT(deployment->policy.fence_deadline),
     "How long fencing the old master may take."},
    {"redis.*.policy.promote_deadline", ZX_SLOT(deployment->policy.promote_deadline),
     "How long a promotion may take."},
    {"redis.*.policy.sync_deadline", ZX_SLOT(deployment->policy.sync_deadline),
     "How long a replica may take to copy the data set anew and catch up."},

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

}  // namespace

const std::vector<Key>& keys() { return kKeys; }

}  // namespace zx::config
