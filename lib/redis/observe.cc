#include "lib/redis/observe.h"

#include <algorithm>
#include <array>
#include <map>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/os/host_name.h"
#include "lib/redis/info.h"

namespace zx::redis {
namespace {

constexpr std::array kSettings{"dir", "dbfilename", "appenddirname", "aclfile", "min-replicas-*"};

template <class Facts>
Target target_in(const Facts& facts, const std::string& name) {
  Target target;
  target.name = name;
  target.address = facts.address;
  target.port = facts.port;
  return target;
}

// Commands of one look; they are all out at once, and the last answer ends it.
class Asking : public std::enable_shared_from_this<Asking> {
 public:
  Asking(Connection::Pointer connection, NodeFacts facts, Deadline deadline,
         std::function<void(NodeFacts)> done)
      : connection_(std::move(connection)),
        facts_(std::move(facts)),
        deadline_(deadline),
        done_(std::move(done)) {}

  void start() {
    left_ = 1 + kSettings.size();
    connection_->command({"INFO"}, deadline_, [self = shared_from_this()](Outcome<Reply> reply) {
      self->on_info(std::move(reply));
      self->one_less();
    });
    for (const auto* name : kSettings)
      connection_->command({"CONFIG", "GET", name}, deadline_,
                           [self = shared_from_this()](Outcome<Reply> reply) {
                             self->on_setting(reply);
                             self->one_less();
                           });
  }

 private:
  void one_less() {
    if (--left_ > 0) return;
    if (!config_error_.empty() && facts_.answered()) facts_.warnings.push_back(config_error_);
    std::exchange(done_, nullptr)(std::move(facts_));
  }

  void fail_with(const Failed& failed) {
    facts_.failure = failed.why;
    facts_.error = error_of(target_in(facts_, facts_.name), failed);
  }

  void on_info(Outcome<Reply> reply) {
    facts_.at = wall_now();
    if (!reply) return fail_with(reply.error());
    if (auto status = read_info(reply->text, facts_); !status)
      return fail_with(Failed{Failure::not_redis, status.error(), {}});
    if (facts_.is_loading()) fail_with(Failed{Failure::loading, facts_.error, {}});
  }

  void on_setting(const Outcome<Reply>& reply) {
    if (reply) {
      facts_.has_config = true;
      return read_config(*reply, facts_);
    }
    if (config_error_.empty())
      config_error_ = "its settings are not known: " + reply.error().error.message;
  }

  Connection::Pointer connection_;
  NodeFacts facts_;
  Deadline deadline_;
  std::function<void(NodeFacts)> done_;
  std::size_t left_ = 0;
  std::string config_error_;
};

class AskingSentinel : public std::enable_shared_from_this<AskingSentinel> {
 public:
  AskingSentinel(Connection::Pointer connection, SentinelFacts facts, Deadline deadline,
                 std::function<void(SentinelFacts)> done)
      : connection_(std::move(connection)),
        facts_(std::move(facts)),
        deadline_(deadline),
        done_(std::move(done)) {}

  void start(const std::string& master_name) {
    const auto ask = [&](const char* what, auto then) {
      ++left_;
      connection_->command({"SENTINEL", what, master_name}, deadline_,
                           [self = shared_from_this(), then](const Outcome<Reply>& reply) {
                             then(*self, reply);
                             self->one_less();
                           });
    };
    ask("MASTER", [](auto& self, const auto& reply) { self.on_master(reply); });
    ask("REPLICAS", [](auto& self, const auto& reply) {
      if (reply) read_replicas(*reply, self.facts_);
    });
    ask("CKQUORUM", [](auto& self, const auto& reply) {
      if (self.facts_.knows_master) read_quorum(reply, self.facts_);
    });
  }

 private:
  void one_less() {
    if (--left_ > 0) return;
    std::exchange(done_, nullptr)(std::move(facts_));
  }

  void on_master(const Outcome<Reply>& reply) {
    facts_.at = wall_now();
    facts_.failure = Failure::none;
    if (reply) {
      if (auto status = read_master(*reply, facts_); !status)
        fail_with(Failed{Failure::error, status.error(), {}});
      return;
    }
    const auto& said = reply.error().reply;
    if (said.starts_with("ERR No such master")) return;
    auto failed = reply.error();
    if (said.starts_with("ERR unknown command")) {
      failed.why = Failure::not_redis;
      failed.error.message = "a server with data answers there, not a Sentinel";
      failed.error.hint = "sentinel.nodes in zx.toml names the Sentinels, often on port 26379";
    }
    fail_with(failed);
  }

  void fail_with(const Failed& failed) {
    facts_.failure = failed.why;
    facts_.error = error_of(target_in(facts_, "Sentinel"), failed);
  }

  Connection::Pointer connection_;
  SentinelFacts facts_;
  Deadline deadline_;
  std::function<void(SentinelFacts)> done_;
  std::size_t left_ = 0;
};

// One server or Sentinel of one look.
template <class Facts>
struct Watched : std::enable_shared_from_this<Watched<Facts>> {
  using Ask =
      std::function<void(const Connection::Pointer&, Facts, Deadline, std::function<void(Facts)>)>;
  Facts facts;
  Target target;
  Ask ask;
  Monotonic started{};
  Deadline deadline = Deadline::after(Millis(0));
  Connection::Pointer connection;
  bool done = false;

  void finish(Facts found) {
    facts = std::move(found);
    facts.took = since(started);
    // A server that loads answers, and the connection is good.
    if (!facts.answered() && facts.failure != Failure::loading) connection.reset();
    done = true;
  }

  void start(net::Loop& loop) {
    if (!connection) return open(loop);
    ask(connection, facts, deadline, [self = this->shared_from_this(), &loop](Facts found) {
      // The end of a held connection says that something happened since, not what is the case now.
      if (found.failure != Failure::broken) return self->finish(std::move(found));
      self->connection.reset();
      self->open(loop);
    });
  }

  void open(net::Loop& loop) {
    Connection::open(loop, target, deadline,
                     [self = this->shared_from_this()](Outcome<Connection::Pointer> opened) {
                       if (!opened) {
                         self->facts.at = wall_now();
                         self->facts.failure = opened.error().why;
                         self->facts.error = error_of(self->target, opened.error());
                         return self->finish(self->facts);
                       }
                       self->connection = *opened;
                       self->ask(*opened, self->facts, self->deadline,
                                 [self](Facts found) { self->finish(std::move(found)); });
                     });
  }
};

// For what others call the node: a replica and a Sentinel know its number, zx.toml may say a name.
using Numbers = std::map<std::string, std::vector<std::string>>;
void look_up(net::Loop& loop, const std::vector<Target>& targets,
             const std::shared_ptr<Numbers>& numbers) {
  for (const auto& target : targets)
    if (!target.address.starts_with('/'))
      net::resolve(loop, target.address,
                   [numbers, name = target.name](Result<std::vector<std::string>> found) {
                     if (found) (*numbers)[name] = *std::move(found);
                   });
}

std::string place_of(const Target& target) {
  return fmt::format("{}:{}", target.address, target.port);
}

}  // namespace

Result<Target> target_of(const config::Config& config, const config::RedisDeployment& deployment,
                         const std::string& name) {
  const auto* node = deployment.node(name);
  if (node == nullptr)
    return fail(Code::not_found, "no node named " + name + " in redis." + deployment.name);
  const auto* host = config.host(node->host);
  Target target;
  target.name = name;
  target.address = host != nullptr ? host->address : node->host;
  target.port = node->port;
  target.user = deployment.user;
  ZX_ASSIGN(target.password, config::password_of(config, deployment));
  return target;
}

Result<std::vector<Target>> targets_of(const config::Config& config,
                                       const config::RedisDeployment& deployment) {
  std::vector<Target> targets;
  for (const auto& node : deployment.nodes) {
    ZX_ASSIGN(targets.emplace_back(), target_of(config, deployment, node.name));
  }
  return targets;
}

Result<std::vector<Target>> sentinel_targets_of(const config::Config& config,
                                                const config::RedisDeployment& deployment) {
  std::vector<Target> targets;
  if (deployment.sentinel.nodes.empty()) return targets;
  ZX_ASSIGN(const auto password, config::sentinel_password_of(config, deployment));
  for (const auto& node : deployment.sentinel.nodes) {
    const auto endpoint = config::endpoint_of(config, node);
    Target target;
    target.name = "Sentinel";
    target.address = endpoint.address;
    target.port = endpoint.port;
    target.user = deployment.sentinel.user;
    target.password = password;
    targets.push_back(std::move(target));
  }
  return targets;
}

Result<Audience> audience_of(const config::Config& config,
                             const config::RedisDeployment& deployment) {
  Audience audience;
  ZX_ASSIGN(audience.nodes, targets_of(config, deployment));
  ZX_ASSIGN(audience.sentinels, sentinel_targets_of(config, deployment));
  audience.master_name = deployment.sentinel.master_name;
  audience.known = audience.nodes;
  return audience;
}

void ask_facts(const Connection::Pointer& connection, NodeFacts facts, Deadline deadline,
               std::function<void(NodeFacts)> done) {
  std::make_shared<Asking>(connection, std::move(facts), deadline, std::move(done))->start();
}

void ask_sentinel(const Connection::Pointer& connection, const std::string& master_name,
                  SentinelFacts facts, Deadline deadline, std::function<void(SentinelFacts)> done) {
  std::make_shared<AskingSentinel>(connection, std::move(facts), deadline, std::move(done))
      ->start(master_name);
}

struct Observer::Impl {
  explicit Impl(bool h) : holds(h) {}
  bool holds;
  net::Loop loop;
  std::map<std::string, Connection::Pointer> connections;  // by place; they end before the loop

  template <class Facts>
  std::vector<std::shared_ptr<Watched<Facts>>> begin(const std::vector<Target>& targets,
                                                     Deadline deadline,
                                                     const typename Watched<Facts>::Ask& ask) {
    std::vector<std::shared_ptr<Watched<Facts>>> all;
    for (const auto& target : targets) {
      auto watched = std::make_shared<Watched<Facts>>();
      watched->target = target;
      watched->ask = ask;
      if constexpr (requires { watched->facts.name; }) watched->facts.name = target.name;
      watched->facts.address = target.address;
      watched->facts.port = target.port;
      watched->facts.at = wall_now();
      watched->started = monotonic_now();
      watched->deadline = deadline;
      if (const auto held = connections.find(place_of(target)); held != connections.end())
        watched->connection = std::exchange(held->second, nullptr);
      all.push_back(watched);
      watched->start(loop);
    }
    return all;
  }

  template <class Facts>
  std::vector<Facts> end(const std::vector<std::shared_ptr<Watched<Facts>>>& all) {
    std::vector<Facts> found;
    for (const auto& watched : all) {
      const auto& facts = watched->facts;
      log::debug(fmt::format("{} ({}): {} after {}", watched->target.name,
                             place_of(watched->target),
                             facts.failure == Failure::none ? "answered" : name_of(facts.failure),
                             format_duration(facts.took)));
      found.push_back(facts);
      if (holds && watched->done)
        connections[place_of(watched->target)] = std::exchange(watched->connection, nullptr);
      else
        watched->connection.reset();
    }
    return found;
  }
};

Observer::Observer(bool holds) : impl_(std::make_unique<Impl>(holds)) {}
Observer::~Observer() = default;

Snapshot Observer::observe(const Audience& audience, Millis span) {
  auto& self = *impl_;
  const auto deadline = Deadline::after(span);
  const auto numbers = std::make_shared<Numbers>();
  look_up(self.loop, audience.nodes, numbers);
  if (!audience.sentinels.empty()) look_up(self.loop, audience.known, numbers);
  const auto nodes = self.begin<NodeFacts>(audience.nodes, deadline, &ask_facts);
  const auto sentinels = self.begin<SentinelFacts>(
      audience.sentinels, deadline,
      [name = audience.master_name](const auto& connection, SentinelFacts facts, Deadline by,
                                    auto done) {
        ask_sentinel(connection, name, std::move(facts), by, std::move(done));
      });
  const auto are_done = [](const auto& all) {
    return std::all_of(all.begin(), all.end(), [](const auto& one) { return one->done; });
  };
  self.loop.run_until([&] { return are_done(nodes) && are_done(sentinels); },
                      Deadline(deadline.at() + Millis(500)));
  Snapshot snapshot;
  snapshot.at = wall_now();
  snapshot.observer = os::host_name();
  snapshot.deadline = span;
  snapshot.nodes = self.end(nodes);
  snapshot.sentinels = self.end(sentinels);
  for (auto& facts : snapshot.nodes) facts.addresses = (*numbers)[facts.name];
  Snapshot known;
  for (const auto& target : audience.known) {
    auto& node = known.nodes.emplace_back();
    node.address = target.address;
    node.port = target.port;
    node.addresses = (*numbers)[target.name];
  }
  mark_phantoms(snapshot.sentinels, known);
  return snapshot;
}

Snapshot observe(const Audience& audience, Millis span) {
  return Observer(false).observe(audience, span);
}

void name_hosts(Snapshot& snapshot, const config::Config& config,
                const config::RedisDeployment& deployment) {
  for (auto& facts : snapshot.nodes) {
    const auto* node = deployment.node(facts.name);
    if (node == nullptr) continue;
    facts.host = node->host;
    if (const auto* host = config.host(node->host)) facts.address = host->address;
  }
}

}  // namespace zx::redis
