// HAProxy in front of a cluster: it asks the agent which server may be written to.
#include <sys/un.h>

#include "tests/scenario/agent.h"

namespace zx {
namespace {

using test::Agent;
using test::Cluster;

constexpr const char* kHaproxy = "/usr/sbin/haproxy";

// What an operator writes: one backend, one line a server, named as zx names the node.
std::string haproxy_config(const Cluster& cluster, const Agent& agent, int port,
                           const std::string& socket) {
  std::string text = fmt::format(R"(global
  stats socket {} mode 600 level admin
defaults
  mode tcp
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  timeout check 2s
listen pg_write
  bind 127.0.0.1:{}
  option httpchk
  http-check send meth GET uri-lf /pg/%[srv_name]/primary
  http-check expect status 200
  default-server check addr 127.0.0.1 port {} inter 50ms fall 1 rise 1 on-marked-down shutdown-sessions
)",
                                 socket, port, agent.port());
  for (const auto& member : cluster.lab().members())
    text += fmt::format("  server {} {}:{}\n", member.name, member.host, member.port);
  return text;
}

// HAProxy's word on its servers, through its socket: those that it sends clients to.
std::optional<std::vector<std::string>> servers_up(const std::string& path) {
  const os::Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return {};
  const std::string question = "show stat\n";
  if (::write(socket.get(), question.data(), question.size()) != std::ssize(question)) return {};
  std::string text;
  std::array<char, 8192> buffer{};
  for (ssize_t count = 0; (count = ::read(socket.get(), buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<std::size_t>(count));
  std::vector<std::string> up;
  for (const auto& line : test::lines_of(text)) {
    const auto fields = split(line, ',');
    constexpr std::size_t kName = 1, kStatus = 17;
    if (fields.size() <= kStatus || fields[0] != "pg_write" || !fields[kName].starts_with("pg-"))
      continue;
    if (fields[kStatus].starts_with("UP")) up.push_back(fields[kName]);
  }
  return up;
}

// Asks it without pause, from the first time that it knows the one primary.
class HaproxySampler {
 public:
  explicit HaproxySampler(std::string socket) : socket_(std::move(socket)) {
    REQUIRE(test::eventually([&] {
      const auto up = servers_up(socket_);
      return up && up->size() == 1;
    }));
    thread_ = std::thread([this] { look(); });
  }
  ~HaproxySampler() { end(); }
  HaproxySampler(const HaproxySampler&) = delete;
  HaproxySampler& operator=(const HaproxySampler&) = delete;

  // Each different answer, in the order of time: "pg-a", "", "pg-b".
  std::vector<std::string> finish() {
    end();
    CHECK(unanswered_ == 0);
    return seen_;
  }

 private:
  void end() {
    ended_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void look() {
    while (!ended_) {
      const auto up = servers_up(socket_);
      if (!up)
        ++unanswered_;
      else if (const auto now = join(*up, " "); seen_.empty() || seen_.back() != now)
        seen_.push_back(now);
      pause_for(Millis(3));
    }
  }
  std::string socket_;
  std::vector<std::string> seen_;
  int unanswered_ = 0;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

TEST_CASE("a client behind HAProxy goes on writing after the primary was killed") {
  if (!os::exists(kHaproxy)) {
    MESSAGE("skipped: there is no " << kHaproxy);
    return;
  }
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  const auto socket = cluster.beside("haproxy.sock");
  const int port = test::free_ports(1).front();
  test::write(cluster.beside("haproxy.cfg"), haproxy_config(cluster, agent, port, socket));
  test::Background haproxy({kHaproxy, "-db", "-f", cluster.beside("haproxy.cfg")});
  HaproxySampler sampler(socket);
  CHECK(servers_up(socket) == test::only("pg-a"));

  auto dsn = pg::parse_conninfo(cluster.lab().conninfo("pg-a", "zhi_xuan_inventory"));
  REQUIRE(dsn.has_value());
  pg::set_value(*dsn, "host", "127.0.0.1");
  pg::set_value(*dsn, "port", std::to_string(port));
  test::Writer writer(pg::to_string(*dsn));
  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(agent.becomes_healthy());
  const auto promoted = agent.primary();
  REQUIRE(test::eventually([&] { return servers_up(socket) == test::only(promoted); }));
  const auto rows = [&] {
    return std::stol(cluster.sql(promoted, "SELECT count(*) FROM zx_writer", "zhi_xuan_inventory"));
  };
  const auto before = rows();
  REQUIRE(test::eventually([&] { return rows() > before + 10; }));
  CHECK(writer.finish().errors >= 1);
  CHECK(sampler.finish() == std::vector<std::string>{"pg-a", "", promoted});
  test::check_served(cluster, promoted);
  agent.stop();
  haproxy.signal(SIGTERM);
  (void)haproxy.finish();
}

}  // namespace
}  // namespace zx
