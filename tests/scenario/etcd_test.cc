// Agents on several hosts, coordinated by real etcd: who leads, and what a fault of etcd does.
#include <doctest/doctest.h>

#include <dlfcn.h>
#include <netdb.h>

#include <atomic>
#include <cstring>

#include "lib/coord/etcd_coordinator.h"
#include "tests/scenario/etcd_servers.h"
#include "tests/scenario/eventually.h"

namespace zx::coord {
namespace {

using Role = Standing::Role;
using test::EtcdServers;
using test::eventually;

constexpr Millis kTtl{2'000};

// Lookups of hangs.invalid get no answer as long as one of these lives.
class Lookups {
 public:
  Lookups() { hangs_ = true; }
  ~Lookups() { hangs_ = false; }
  Lookups(const Lookups&) = delete;
  Lookups& operator=(const Lookups&) = delete;
  [[nodiscard]] int hanging() const { return hanging_; }
  static void hang() {
    ++hanging_;
    while (hangs_) pause_for(Millis(10));
    --hanging_;
  }

 private:
  inline static std::atomic<bool> hangs_{false};
  inline static std::atomic<int> hanging_{0};
};

using Agent = std::unique_ptr<Coordinator>;

Agent agent(const EtcdOptions& etcd, const std::string& name, Millis ttl = kTtl) {
  EtcdCoordinatorOptions options;
  options.etcd = etcd;
  options.prefix = "/zx/test";
  options.name = name;
  options.region = "east";
  options.ttl = ttl;
  auto made = etcd_coordinator(options);
  REQUIRE_MESSAGE(made.has_value(), test::why(made));
  return *std::move(made);
}

bool becomes(const Agent& one, Role role) {
  return eventually([&] { return one->standing().role == role; });
}

// Of those that still run, once one leads and the others know it.
std::size_t leader_of(const std::vector<Agent>& agents) {
  std::size_t leader = agents.size();
  REQUIRE(eventually([&] {
    std::size_t leading = 0, following = 0, running = 0;
    for (std::size_t i = 0; i < agents.size(); ++i) {
      if (!agents[i]) continue;
      ++running;
      const auto standing = agents[i]->standing();
      if (standing.role == Role::leader) ++leading, leader = i;
      if (standing.role == Role::follower && !standing.leader.empty()) ++following;
    }
    return leading == 1 && leading + following == running;
  }));
  return leader;
}

TEST_CASE("of three agents one leads; when it goes another does, with a higher token") {
  const EtcdServers etcd;
  std::vector<Agent> agents;
  for (const char* name : {"a", "b", "c"}) agents.push_back(agent(etcd.options(), name));
  const auto first = leader_of(agents);
  const auto token = agents[first]->standing().token;
  CHECK(token > 0);
  const auto other = (first + 1) % 3;
  CHECK(agents[other]->standing().leader == agents[first]->standing().leader);
  CHECK(agents[other]->lead().error().code == Code::locked);
  const auto lease = agents[first]->lead();
  REQUIRE_MESSAGE(lease.has_value(), test::why(lease));
  CHECK((*lease)->check().has_value());

  agents[first].reset();
  CHECK((*lease)->check().error().code == Code::refused);
  const auto second = leader_of(agents);
  CHECK(agents[second]->standing().token > token);
  CHECK(agents[second]->lead().has_value());
}

TEST_CASE("a leader whose key was taken away is told so by etcd, before it knows itself") {
  const EtcdServers etcd;
  const auto one = agent(etcd.options(), "a");
  REQUIRE(becomes(one, Role::leader));
  const auto lease = one->lead();
  REQUIRE(lease.has_value());
  const auto token = one->standing().token;
  etcd.call("kv/deleterange", {{"key", to_base64("/zx/test/leader")}});
  CHECK((*lease)->check().error().code == Code::refused);
  CHECK(eventually([&] { return one->standing().token > token; }));
  CHECK((*lease)->check().error().code == Code::refused);
}

TEST_CASE("without etcd nobody leads, and it comes back by itself") {
  EtcdServers etcd;
  const auto one = agent(etcd.options(), "a");
  REQUIRE(becomes(one, Role::leader));
  const auto lease = one->lead();
  REQUIRE(lease.has_value());
  const auto token = one->standing().token;

  SUBCASE("killed") {
    etcd.kill(0);
    CHECK(becomes(one, Role::cut_off));
    CHECK(one->standing().why.find("127.0.0.1") != std::string::npos);
    CHECK((*lease)->check().error().code == Code::refused);
    CHECK(one->lead().error().code == Code::unreachable);
    CHECK_FALSE(one->get("fact").has_value());
    etcd.start(0);
  }
  SUBCASE("silent for longer than the ttl: the local clock tells") {
    etcd.pause(0);
    CHECK(becomes(one, Role::cut_off));
    CHECK((*lease)->check().error().code == Code::refused);
    CHECK(one->lead().error().code == Code::unreachable);
    etcd.go_on(0);
  }
  CHECK(becomes(one, Role::leader));
  CHECK(one->standing().token >= token);
  CHECK((*lease)->check().error().code == Code::refused);
}

TEST_CASE("started before etcd, an agent is cut off until it is there") {
  EtcdServers etcd;
  etcd.kill(0);
  const auto one = agent(etcd.options(), "a");
  CHECK(one->standing().role == Role::cut_off);
  CHECK(!one->standing().why.empty());
  etcd.start(0);
  CHECK(becomes(one, Role::leader));
}

TEST_CASE("one of three members may fail, two may not") {
  EtcdServers etcd({.members = 3});
  std::vector<Agent> agents;
  for (const char* name : {"a", "b"}) agents.push_back(agent(etcd.options(), name, Millis(3'000)));
  const auto leader = leader_of(agents);
  auto& leading = *agents[leader];
  auto& following = *agents[1 - leader];

  etcd.kill(0);
  CHECK(eventually([&] { return leading.put("first", "x", 0).has_value(); }));
  (void)leader_of(agents);

  etcd.pause(1);
  CHECK(becomes(agents[0], Role::cut_off));
  CHECK(becomes(agents[1], Role::cut_off));
  CHECK_FALSE(following.get("first").has_value());
  etcd.go_on(1);
  (void)leader_of(agents);
  CHECK(eventually([&] {
    const auto value = following.get("first");
    return value && value->text == "x";
  }));
}

TEST_CASE("a leader that is cut off knows it before another leads") {
  EtcdServers etcd({.members = 3});
  auto its_side = etcd.options(), other_side = etcd.options();
  its_side.endpoints.resize(1);
  other_side.endpoints.erase(other_side.endpoints.begin());
  const auto one = agent(its_side, "a");
  REQUIRE(becomes(one, Role::leader));
  const auto lease = one->lead();
  REQUIRE(lease.has_value());
  const auto token = one->standing().token;
  const auto other = agent(other_side, "b");
  REQUIRE(becomes(other, Role::follower));

  etcd.pause(0);
  CHECK(becomes(other, Role::leader));
  CHECK(one->standing().role == Role::cut_off);
  CHECK(other->standing().token > token);
  CHECK((*lease)->check().error().code == Code::refused);
  etcd.go_on(0);
  CHECK(eventually([&] { return one->standing().role != Role::cut_off; }));
  CHECK((*lease)->check().error().code == Code::refused);
}

TEST_CASE("one that is no candidate never leads, and sees who does") {
  const EtcdServers etcd;
  EtcdCoordinatorOptions options;
  options.etcd = etcd.options();
  options.prefix = "/zx/test";
  options.name = "onlooker";
  options.ttl = kTtl;
  options.is_candidate = false;
  const auto onlooker = etcd_coordinator(options);
  REQUIRE(onlooker.has_value());
  CHECK(becomes(*onlooker, Role::follower));
  CHECK((*onlooker)->standing().leader.empty());
  CHECK((*onlooker)->lead().error().code == Code::locked);
  CHECK((*onlooker)->put("fact", "x", 0).has_value());
  const auto one = agent(etcd.options(), "a");
  CHECK(becomes(one, Role::leader));
  CHECK(eventually([&] { return (*onlooker)->standing().leader == "a"; }));
}

TEST_CASE("etcd that has lost its data is refused") {
  EtcdServers etcd;
  const auto one = agent(etcd.options(), "a");
  REQUIRE(becomes(one, Role::leader));
  for (int i = 0; i < 50; ++i) REQUIRE(one->put("fact" + std::to_string(i), "x", 0).has_value());
  etcd.kill(0);
  etcd.lose_data(0);
  etcd.start(0);
  REQUIRE(etcd.becomes_healthy(0));
  CHECK(eventually([&] {
    const auto standing = one->standing();
    return standing.role == Role::cut_off && standing.why.find("older data") != std::string::npos;
  }));
  CHECK(one->get("fact1").error().message.find("older data") != std::string::npos);
}

TEST_CASE("a full etcd cuts off with that reason") {
  const EtcdServers etcd({.quota_bytes = 1u << 20});
  const auto one = agent(etcd.options(), "a");
  REQUIRE(becomes(one, Role::leader));
  const std::string big(100'000, 'x');
  for (int i = 0; i < 30; ++i)
    if (const auto done = one->put("fact" + std::to_string(i), big, 0); !done) {
      CHECK(done.error().code == Code::disk_full);
      break;
    }
  CHECK(becomes(one, Role::cut_off));
  CHECK(one->standing().why.find("NOSPACE") != std::string::npos);
  CHECK(one->lead().error().code == Code::unreachable);
}

TEST_CASE("votes of the others are heard, as long as they are renewed") {
  const EtcdServers etcd;
  const auto left = agent(etcd.options(), "left");
  auto right = agent(etcd.options(), "right");
  const auto heard = [&](const Json& saw) {
    right->vote(saw);
    const auto votes = left->votes();
    return votes.size() == 1 && votes[0].agent == "right" && votes[0].region == "east" &&
           votes[0].saw == saw;
  };
  CHECK(eventually([&] { return heard({{"pg-a", "up"}}); }));
  CHECK(eventually([&] { return heard({{"pg-a", "silent"}}); }));
  // It lives, and holds its lease, but does not look any more.
  CHECK(eventually([&] { return left->votes().empty(); }));
  CHECK(right->standing().role != Role::cut_off);
  CHECK(eventually([&] { return heard({{"pg-a", "up"}}); }));
  right.reset();
  CHECK(eventually([&] { return left->votes().empty(); }));
}

TEST_CASE("a shared fact changes only from the version that was read") {
  const EtcdServers etcd;
  const auto left = agent(etcd.options(), "left");
  const auto right = agent(etcd.options(), "right");
  CHECK(left->get("fact")->version == 0);
  CHECK(left->put("fact", std::string("\0\xff\n", 3), 0).has_value());
  CHECK(right->put("fact", "late", 0).error().code == Code::locked);
  const auto value = right->get("fact");
  REQUIRE(value.has_value());
  CHECK(value->text == std::string("\0\xff\n", 3));
  CHECK(right->put("fact", "second", value->version).has_value());
  CHECK(left->put("fact", "late", value->version).error().code == Code::locked);
}

TEST_CASE("history is given up, so that the database does not grow for ever") {
  const EtcdServers etcd;
  EtcdCoordinatorOptions options;
  options.etcd = etcd.options();
  options.prefix = "/zx/test";
  options.name = "a";
  options.ttl = kTtl;
  options.compact_every = Millis(1);
  const auto one = etcd_coordinator(options);
  REQUIRE(one.has_value());
  EtcdClient client(etcd.options(), std::make_shared<EtcdSeen>());
  auto old = etcd_range("/zx/test/leader");
  old["request_range"]["revision"] = "2";
  CHECK(eventually([&] {
    const auto read = client.range(old, Deadline::after(Millis(1'000)));
    return !read && read.error().message.find("compacted") != std::string::npos;
  }));
  CHECK((*one)->standing().role == Role::leader);
}

TEST_CASE("a password is asked for, and its token renewed when it has expired") {
  const EtcdServers etcd({.token_ttl = 1});
  auto options = etcd.options();
  options.username = "agent";
  options.password = "right \"one\"";
  // Before authentication is enabled the user is of no matter.
  const auto one = agent(options, "a");
  REQUIRE(becomes(one, Role::leader));
  etcd.enable_auth("agent", options.password);
  // With its lease running out between, it would be cut off: each round is let in, or a new token
  // is.
  int rounds = 0;
  std::int64_t last = 0;
  CHECK(eventually([&] {
    one->vote(rounds);
    EtcdClient client(options, std::make_shared<EtcdSeen>());
    const auto keys = client.range(etcd_range("/zx/test/votes/a"), Deadline::after(kTtl));
    if (!keys || keys->empty()) return false;
    if (keys->front().mod_revision != last) ++rounds;
    last = keys->front().mod_revision;
    return rounds > 10;
  }));
  CHECK(one->standing().role == Role::leader);

  // A client that holds its token through the time in which it expires.
  EtcdClient holding(options, std::make_shared<EtcdSeen>());
  REQUIRE(holding.range(etcd_range("x"), Deadline::after(kTtl)).has_value());
  etcd.pause(0);
  CHECK(becomes(one, Role::cut_off));
  etcd.go_on(0);
  CHECK(holding.range(etcd_range("x"), Deadline::after(Millis(5'000))).has_value());
  CHECK(becomes(one, Role::leader));

  options.password = "wrong";
  const auto wrong = agent(options, "b");
  CHECK(eventually(
      [&] { return wrong->standing().why.find("authentication failed") != std::string::npos; }));
  CHECK(wrong->standing().role == Role::cut_off);
  CHECK(wrong->get("fact").error().code == Code::auth);
  options.username.clear();
  const auto none = agent(options, "c");
  CHECK(eventually([&] { return none->standing().why.find("user name") != std::string::npos; }));
  CHECK(none->get("fact").error().code == Code::auth);
}

TEST_CASE("TLS: a certificate on both sides, of the CA that is named") {
  const EtcdServers etcd({.tls = true});
  const auto one = agent(etcd.options(), "a");
  CHECK(becomes(one, Role::leader));
  CHECK(one->lead().has_value());

  auto untrusting = etcd.options();
  untrusting.ca_file.clear();
  const auto other = agent(untrusting, "b");
  CHECK(other->get("fact").error().code == Code::auth);
  CHECK(eventually([&] { return other->standing().why.find("certificate") != std::string::npos; }));

  auto anonymous = etcd.options();
  anonymous.cert_file.clear();
  anonymous.key_file.clear();
  CHECK_FALSE(agent(anonymous, "c")->get("fact").has_value());

  auto missing = etcd.options();
  missing.ca_file = "/nonexistent/ca.pem";
  CHECK(agent(missing, "d")->get("fact").error().code == Code::config);
}

TEST_CASE("a name lookup that hangs delays nobody") {
  Lookups lookups;
  const auto alone = [] {
    EtcdOptions options;
    options.endpoints = {"http://hangs.invalid:2379"};
    return agent(options, "b");
  }();
  CHECK(eventually([&] { return lookups.hanging() > 0; }));
  CHECK(alone->standing().role == Role::cut_off);
  CHECK(alone->get("fact").error().code == Code::timeout);
  CHECK(alone->standing().role == Role::cut_off);

  const EtcdServers etcd;
  auto options = etcd.options();
  options.endpoints.insert(options.endpoints.begin(), "http://hangs.invalid:2379");
  const auto one = agent(options, "a");
  CHECK(becomes(one, Role::leader));
  CHECK(one->lead().has_value());
  CHECK(lookups.hanging() > 1);  // all ends while they still hang
}

TEST_CASE("an endpoint that refuses or has no address does not stop the others") {
  const EtcdServers etcd;
  auto options = etcd.options();
  options.endpoints.insert(options.endpoints.begin(),
                           {"http://no-such-host.invalid:2379", "http://127.0.0.1:1"});
  const auto one = agent(options, "a");
  CHECK(becomes(one, Role::leader));
  CHECK(one->put("fact", "x", 0).has_value());
}

}  // namespace
}  // namespace zx::coord

// Takes the place of the C library's in this program.
extern "C" int getaddrinfo(const char* name, const char* service, const addrinfo* hints,
                           addrinfo** found) {
  if (name != nullptr && std::strcmp(name, "hangs.invalid") == 0) {
    zx::coord::Lookups::hang();
    return EAI_AGAIN;
  }
  using Lookup = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto lookup = reinterpret_cast<Lookup>(dlsym(RTLD_NEXT, "getaddrinfo"));
  return lookup(name, service, hints, found);
}
