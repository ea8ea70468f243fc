// etcd on loopback for a test: one member or several, with faults, a password or TLS on demand.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "lib/base/clock.h"
#include "lib/coord/etcd_client.h"
#include "lib/net/http_client.h"
#include "lib/os/files.h"
#include "tests/support.h"

namespace zx::test {

struct EtcdSetup {
  int members = 1;
  std::uint64_t quota_bytes = 0;  // 0: etcd's own
  bool tls = false;               // clients must show a certificate too
  int token_ttl = 300;            // seconds, of a token of authentication
};

// Ports that nothing listens on now.
inline std::vector<int> free_ports(int count) {
  std::vector<os::Descriptor> held;
  std::vector<int> ports;
  for (int i = 0; i < count; ++i) {
    held.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(bind(held.back().get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(getsockname(held.back().get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    ports.push_back(ntohs(address.sin_port));
  }
  return ports;
}

class EtcdServers {
 public:
  explicit EtcdServers(const EtcdSetup& setup = {}) : setup_(setup), directory_(base()) {
    if (setup_.tls) make_certificates();
    ports_ = free_ports(2 * setup_.members);
    pids_.resize(setup_.members, 0);
    for (int i = 0; i < setup_.members; ++i) start(i);
    for (int i = 0; i < setup_.members; ++i) REQUIRE(becomes_healthy(i));
  }
  ~EtcdServers() {
    for (int i = 0; i < setup_.members; ++i) kill(i);
  }
  EtcdServers(const EtcdServers&) = delete;
  EtcdServers& operator=(const EtcdServers&) = delete;

  [[nodiscard]] int members() const { return setup_.members; }
  [[nodiscard]] std::string endpoint(int i) const {
    return fmt::format("http{}://127.0.0.1:{}", setup_.tls ? "s" : "", ports_[2 * i]);
  }
  // How a client reaches them, without a password.
  [[nodiscard]] coord::EtcdOptions options() const {
    coord::EtcdOptions options;
    for (int i = 0; i < setup_.members; ++i) options.endpoints.push_back(endpoint(i));
    if (setup_.tls) {
      options.ca_file = directory_ / "ca.pem";
      options.cert_file = directory_ / "client.pem";
      options.key_file = directory_ / "client.key";
    }
    return options;
  }
  [[nodiscard]] const Directory& directory() const { return directory_; }

  void pause(int i) const { REQUIRE(::kill(pids_[i], SIGSTOP) == 0); }
  void go_on(int i) const { REQUIRE(::kill(pids_[i], SIGCONT) == 0); }
  void kill(int i) {
    if (pids_[i] <= 0) return;
    ::kill(pids_[i], SIGKILL);
    (void)waitpid(pids_[i], nullptr, 0);
    pids_[i] = 0;
  }
  // Starts it on its old ports; does not wait.
  void start(int i) {
    std::vector<std::string> cluster;
    for (int j = 0; j < setup_.members; ++j) cluster.push_back(fmt::format("m{}={}", j, peer(j)));
    os::Argv argv{"/usr/bin/setpriv",
                  "--pdeathsig",
                  "KILL",
                  "/usr/bin/etcd",
                  "--name",
                  fmt::format("m{}", i),
                  "--data-dir",
                  data(i),
                  "--log-level",
                  "error",
                  "--listen-client-urls",
                  endpoint(i),
                  "--advertise-client-urls",
                  endpoint(i),
                  "--listen-peer-urls",
                  peer(i),
                  "--initial-advertise-peer-urls",
                  peer(i),
                  "--initial-cluster",
                  join(cluster, ","),
                  "--heartbeat-interval",
                  "50",
                  "--election-timeout",
                  "500",
                  "--auth-token-ttl",
                  std::to_string(setup_.token_ttl)};
    if (setup_.quota_bytes != 0)
      argv.insert(argv.end(), {"--quota-backend-bytes", std::to_string(setup_.quota_bytes)});
    if (setup_.tls)
      argv.insert(argv.end(), {"--cert-file", directory_ / "server.pem", "--key-file",
                               directory_ / "server.key", "--client-cert-auth", "--trusted-ca-file",
                               directory_ / "ca.pem"});
    spawn(i, argv);
  }
  // All that it knew is gone, as with a new disk.
  void lose_data(int i) { std::filesystem::remove_all(data(i)); }
  [[nodiscard]] bool becomes_healthy(int i) const {
    const auto deadline = Deadline::after(Millis(60'000));
    net::HttpClient client;
    while (!deadline.passed()) {
      const auto answer = client.fetch(request(i, "/health"));
      if (answer && answer->status == 200 && answer->body.find("true") != std::string::npos)
        return true;
      pause_for(Millis(20));
    }
    return false;
  }

  // POST /v3/PATH; must succeed.
  Json call(const std::string& path, const Json& body, const std::string& token = {}) const {
    auto asked = request(0, "/v3/" + path);
    asked.method = "POST";
    asked.body = dump_line(body);
    if (!token.empty()) asked.headers = {{"Authorization", token}};
    const auto answer = net::HttpClient().fetch(asked);
    REQUIRE_MESSAGE(answer.has_value(), (answer ? std::string() : answer.error().message));
    REQUIRE_MESSAGE(answer->status == 200, answer->body);
    const auto json = parse_json(answer->body, "answer");
    REQUIRE(json.has_value());
    return *json;
  }
  // From now on only this user is let in.
  void enable_auth(const std::string& user, const std::string& password) const {
    const Json root{{"name", "root"}, {"password", password}};
    call("auth/user/add", root);
    call("auth/role/add", Json{{"name", "root"}});
    call("auth/user/grant", Json{{"user", "root"}, {"role", "root"}});
    if (user != "root") {
      call("auth/user/add", Json{{"name", user}, {"password", password}});
      call("auth/user/grant", Json{{"user", user}, {"role", "root"}});
    }
    call("auth/enable", Json::object());
  }

 private:
  static std::filesystem::path base() {
    const char* named = std::getenv("ZX_LAB_BASE");
    return named != nullptr ? std::filesystem::path(named) : std::filesystem::temp_directory_path();
  }
  [[nodiscard]] std::string data(int i) const { return directory_ / fmt::format("m{}", i); }
  [[nodiscard]] std::string peer(int i) const {
    return fmt::format("http://127.0.0.1:{}", ports_[2 * i + 1]);
  }
  [[nodiscard]] net::HttpFetch request(int i, const std::string& path) const {
    const auto all = options();
    net::HttpFetch request;
    request.url = endpoint(i) + path;
    request.timeout = Millis(5'000);
    request.ca_file = all.ca_file;
    request.cert_file = all.cert_file;
    request.key_file = all.key_file;
    return request;
  }
  void spawn(int i, const os::Argv& argv) {
    REQUIRE(pids_[i] == 0);
    std::vector<char*> words;
    for (const auto& word : argv) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    const auto log = directory_ / fmt::format("m{}.log", i);
    posix_spawn_file_actions_t files;
    REQUIRE(posix_spawn_file_actions_init(&files) == 0);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    const int error = posix_spawn(&pids_[i], words[0], &files, nullptr, words.data(), environ);
    posix_spawn_file_actions_destroy(&files);
    REQUIRE_MESSAGE(error == 0, words[0]);
  }
  void make_certificates() const {
    const auto openssl = [&](os::Argv words) {
      words.insert(words.begin(), "/usr/bin/openssl");
      const auto result = run_program(words);
      REQUIRE_MESSAGE(result.ok(), result.err);
    };
    const std::string key = "ec";
    openssl({"req", "-x509", "-newkey", key, "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", "/CN=test CA", "-keyout", directory_ / "ca.key", "-out",
             directory_ / "ca.pem"});
    write(directory_ / "san", "subjectAltName=IP:127.0.0.1,DNS:localhost\n");
    for (const std::string name : {"server", "client"}) {
      openssl({"req", "-newkey", key, "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
               "/CN=" + name, "-keyout", directory_ / (name + ".key"), "-out",
               directory_ / (name + ".csr")});
      openssl({"x509", "-req", "-days", "2", "-in", directory_ / (name + ".csr"), "-CA",
               directory_ / "ca.pem", "-CAkey", directory_ / "ca.key", "-CAcreateserial",
               "-extfile", directory_ / "san", "-out", directory_ / (name + ".pem")});
    }
  }

  EtcdSetup setup_;
  Directory directory_;
  std::vector<int> ports_;  // client and peer of each member
  std::vector<pid_t> pids_;
};

}  // namespace zx::test
