#include "lib/ha/pg_world.h"

#include <algorithm>

#include "lib/ha/pg_claim.h"
#include "lib/net/tcp.h"
#include "lib/pg/conninfo.h"
#include "lib/pg/node_ops.h"
#include "lib/pg/observe.h"

namespace zx::ha {
namespace {

constexpr Millis kKeep{2'000};  // for a host to keep a password

class RealWorld final : public PgWorld {
 public:
  RealWorld(const config::Config& config, const config::PgCluster& cluster, coord::Shared* shared,
            Looking looking)
      : config_(config),
        cluster_(cluster),
        shared_(shared),
        watches_(looking == Looking::holds),
        observer_(watches_) {}
  bool watches() const override { return watches_; }
  const config::Config& config() const override { return config_; }
  const config::PgCluster& cluster() const override { return cluster_; }
  coord::Shared* shared() override { return shared_; }

  pg::Snapshot observe(const std::vector<std::string>& nodes, Millis deadline) override {
    std::vector<pg::Target> targets;
    for (const auto& node : cluster_.nodes) {
      if (!nodes.empty() && std::find(nodes.begin(), nodes.end(), node.name) == nodes.end())
        continue;
      auto target = pg::target_of(config_, cluster_, node.name);
      // A password that cannot be read is found when the configuration is checked before the chain
      // begins; if it vanishes later the servers answer with an authentication failure.
      if (target) targets.push_back(*target);
    }
    auto snapshot = observer_.observe(targets, deadline);
    pg::name_hosts(snapshot, config_, cluster_);
    return snapshot;
  }

  Result<Json> on_host_of(const std::string& name, const std::string& op, Json request,
                          Millis deadline) override {
    const auto* node = cluster_.node(name);
    if (node == nullptr) return fail(Code::not_found, "no node named " + name);
    const auto* host = config_.host(node->host);
    if (host == nullptr) return fail(Code::config, "no host named " + node->host);
    request["dir"] = pg::to_json(pg::data_dir_of(cluster_, *node));
    auto result = pg::on_host(*host, op, request, deadline);
    if (!result) return fail(result.error());
    return result;
  }

  std::vector<pg::Testimony> ask_around(const std::string& name, Millis deadline) override {
    const auto target = pg::target_of(config_, cluster_, name);
    if (!target) return {};
    Json request{{"name", name},
                 {"address", target->address},
                 {"port", target->port},
                 {"user", target->user},
                 {"password", target->password},
                 {"database", target->database},
                 {"sslmode", target->sslmode}};
    request["deadline_ms"] = deadline.count();
    std::vector<std::string> hosts;
    for (const auto& node : cluster_.nodes) {
      const auto* host = config_.host(node.host);
      // Its own host is asked too: only the way from here to its port may be cut.
      const bool elsewhere = host != nullptr && host->remote && !host->remote->empty();
      if (elsewhere && std::find(hosts.begin(), hosts.end(), node.host) == hosts.end())
        hosts.push_back(node.host);
    }
    return all_at_once<pg::Testimony>(hosts, [&](const std::string& host) {
      pg::Testimony testimony;
      testimony.observer = host;
      testimony.node = name;
      const auto answer = pg::on_host(*config_.host(host), "pg-probe", request, deadline);
      if (!answer) {
        testimony.error = answer.error().message;
        return testimony;
      }
      testimony.failure = pg::failure_named(get_string(*answer, "failure"));
      testimony.role = pg::role_named(get_string(*answer, "role"));
      testimony.error = get_string(*answer, "error");
      return testimony;
    });
  }

  bool refuses(const std::string& name, int tries, Millis apart, Millis deadline) override {
    const auto target = pg::target_of(config_, cluster_, name);
    return target && net::refuses_tcp(target->address, target->port, tries, apart, deadline);
  }

  Result<pg::CurrentUpstream> current_upstream(const std::string& node, Deadline d) override {
    ZX_ASSIGN(const auto target, pg::target_of(config_, cluster_, node));
    return pg::current_upstream(target, d);
  }
  Result<pg::Frozen> freeze(const std::string& node, Deadline d) override {
    ZX_ASSIGN(const auto target, pg::target_of(config_, cluster_, node));
    return pg::freeze(target, d);
  }
  Status set_upstream(const std::string& node, const std::string& conninfo, const std::string& slot,
                      bool add_password, Deadline d) override {
    ZX_ASSIGN(const auto target, pg::target_of(config_, cluster_, node));
    auto text = conninfo;
    if (add_password && !conninfo.empty()) {
      ZX_ASSIGN(const auto password, config::replication_password_of(config_, cluster_));
      if (password.empty())
        return fail(Code::config,
                    "primary_conninfo of " + node + " has a password that zx does not know",
                    "set replication_password_file of the cluster");
      ZX_ASSIGN(auto parsed, pg::parse_conninfo(conninfo));
      const auto kept = on_host_of(node, "pg-write-passfile",
                                   {{"user", pg::value_of(parsed, "user")}, {"password", password}},
                                   d.at_most(kKeep).left());
      if (kept)
        pg::set_value(parsed, "passfile", get_string(*kept, "path"));
      else  // where nobody can write a file it stays where it was
        pg::set_value(parsed, "password", password);
      text = pg::to_string(parsed);
    }
    return pg::set_upstream(target, text, slot, d);
  }
  Result<pg::Receiver> wait_streaming(const std::string& node, const std::string& from,
                                      Deadline d) override {
    ZX_ASSIGN(const auto target, pg::target_of(config_, cluster_, node));
    ZX_ASSIGN(const auto source, pg::target_of(config_, cluster_, from));
    const auto seen = pg::observe({source}, cluster_.policy.probe_deadline);
    return pg::wait_streaming(target, seen.nodes.front(), d);
  }
  Result<pg::Promoted> promote(const std::string& node, const std::function<Status()>& before,
                               Deadline d) override {
    ZX_ASSIGN(const auto target, pg::target_of(config_, cluster_, node));
    return pg::promote(target, before, d);
  }
  Status write_canary(const std::string& node, const std::string& text, Deadline d) override {
    ZX_ASSIGN(const auto target, pg::target_of(config_, cluster_, node));
    return pg::write_canary(target, text, d);
  }
  Result<std::vector<std::string>> make_slots(const std::string& node,
                                              const std::vector<std::string>& slots,
                                              Deadline d) override {
    ZX_ASSIGN(const auto target, pg::target_of(config_, cluster_, node));
    return pg::make_slots(target, slots, d);
  }
  Result<std::vector<std::string>> drop_slots(const std::string& node,
                                              const std::vector<std::string>& slots,
                                              Deadline d) override {
    ZX_ASSIGN(const auto target, pg::target_of(config_, cluster_, node));
    return pg::drop_slots(target, slots, d);
  }
  Status set_sync_names(const std::string& node, const std::string& names, Deadline d) override {
    ZX_ASSIGN(const auto target, pg::target_of(config_, cluster_, node));
    return pg::set_sync_names(target, names, d);
  }
  Status checkpoint(const std::string& node, Deadline d) override {
    ZX_ASSIGN(const auto target, pg::target_of(config_, cluster_, node));
    return pg::checkpoint(target, d);
  }

  Result<std::unique_ptr<coord::Lease>> claim(const std::vector<std::string>& nodes,
                                              const std::string& command, Deadline d) override {
    std::vector<pg::Target> targets;
    for (const auto& node : nodes) {
      ZX_ASSIGN(targets.emplace_back(), pg::target_of(config_, cluster_, node));
    }
    return claim_servers(targets, command, d);
  }

  Result<coord::GuardState> guard(const std::string& node) override {
    return shared_ != nullptr ? shared_->guard(node) : PgWorld::guard(node);
  }
  Status bar(const std::string& node) override {
    return shared_ != nullptr ? shared_->bar(node) : PgWorld::bar(node);
  }

 private:
  const config::Config& config_;
  const config::PgCluster& cluster_;
  coord::Shared* shared_;
  bool watches_;
  pg::Observer observer_;
};

}  // namespace

std::unique_ptr<PgWorld> real_world(const config::Config& config, const config::PgCluster& cluster,
                                    coord::Shared* shared, Looking looking) {
  return std::make_unique<RealWorld>(config, cluster, shared, looking);
}

std::string follow_conninfo(const config::Config& config, const config::PgCluster& cluster,
                            const std::string& base, const std::string& node,
                            const std::string& upstream) {
  pg::Conninfo conninfo;
  if (const auto parsed = pg::parse_conninfo(base); parsed && !base.empty()) {
    conninfo = *parsed;
    pg::remove_value(conninfo, "hostaddr");
  } else {
    pg::set_value(conninfo, "user", cluster.replication_user);
    pg::set_value(conninfo, "application_name", node);
    if (!cluster.sslmode.empty()) pg::set_value(conninfo, "sslmode", cluster.sslmode);
    if (!cluster.sslrootcert.empty()) pg::set_value(conninfo, "sslrootcert", cluster.sslrootcert);
  }
  const auto* target = cluster.node(upstream);
  const auto* host = target != nullptr ? config.host(target->host) : nullptr;
  pg::set_value(conninfo, "host", host != nullptr ? host->address : upstream);
  pg::set_value(conninfo, "port", std::to_string(target != nullptr ? target->port : 5432));
  return pg::to_string(conninfo);
}

}  // namespace zx::ha
