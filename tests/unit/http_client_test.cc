// The HTTP client against a server that says what a test wants.
#include "lib/net/http_client.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "lib/os/files.h"
#include "tests/support.h"

namespace zx::net {
namespace {

// Answers one connection after the other; each request gets the same bytes, none of them silence.
class Server {
 public:
  explicit Server(std::string answer, const std::string& unix_path = {})
      : answer_(std::move(answer)) {
    sockaddr_storage place{};
    socklen_t size = 0;
    if (unix_path.empty()) {
      auto& address = reinterpret_cast<sockaddr_in&>(place);
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      size = sizeof address;
    } else {
      auto& address = reinterpret_cast<sockaddr_un&>(place);
      address.sun_family = AF_UNIX;
      unix_path.copy(address.sun_path, sizeof address.sun_path - 1);
      size = sizeof address;
    }
    listener_ = os::Descriptor(socket(place.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(bind(listener_.get(), reinterpret_cast<sockaddr*>(&place), size) == 0);
    REQUIRE(listen(listener_.get(), 8) == 0);
    size = sizeof place;
    REQUIRE(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&place), &size) == 0);
    if (unix_path.empty()) port_ = ntohs(reinterpret_cast<sockaddr_in&>(place).sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~Server() {
    shutdown(listener_.get(), SHUT_RDWR);
    {
      const std::scoped_lock guard(mutex_);
      if (open_ >= 0) shutdown(open_, SHUT_RDWR);
      is_over_ = true;
    }
    thread_.join();
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  [[nodiscard]] std::string url(const std::string& path = "/") const {
    return fmt::format("http://127.0.0.1:{}{}", port_, path);
  }
  [[nodiscard]] int connections() const { return connections_; }
  [[nodiscard]] std::string heard() const {
    const std::scoped_lock guard(mutex_);
    return heard_;
  }

 private:
  void serve() {
    while (true) {
      const os::Descriptor one(accept(listener_.get(), nullptr, nullptr));
      if (!one) return;
      ++connections_;
      {
        const std::scoped_lock guard(mutex_);
        if (is_over_) return;
        open_ = one.get();
      }
      char bytes[8192];
      while (true) {
        const auto count = recv(one.get(), bytes, sizeof bytes, 0);
        if (count <= 0) break;
        const std::scoped_lock guard(mutex_);
        heard_.append(bytes, static_cast<std::size_t>(count));
        if (answer_.empty()) continue;
        if (send(one.get(), answer_.data(), answer_.size(), MSG_NOSIGNAL) < 0) break;
        if (answer_.find("Content-Length") == std::string::npos) break;
      }
      const std::scoped_lock guard(mutex_);
      open_ = -1;
    }
  }

  const std::string answer_;
  os::Descriptor listener_;
  int port_ = 0;
  std::atomic<int> connections_{0};
  mutable std::mutex mutex_;
  std::string heard_;
  int open_ = -1;
  bool is_over_ = false;
  std::thread thread_;
};

std::string answer(const std::string& status, const std::string& body,
                   const std::string& headers = {}) {
  return fmt::format("HTTP/1.1 {}\r\n{}Content-Length: {}\r\n\r\n{}", status, headers, body.size(),
                     body);
}

HttpFetch to(const std::string& url) {
  HttpFetch request;
  request.url = url;
  return request;
}

TEST_CASE("any status is an answer, and the connection is used again") {
  const Server server(answer("503 Busy", "wait", "X-Why: load\r\nx-why: more\r\n"));
  HttpClient client;
  for (int i = 0; i < 3; ++i) {
    auto request = to(server.url("/path?q=1"));
    request.method = "POST";
    request.body = std::string("{\0}", 3);
    request.headers = {{"X-Mine", "yes"}, {"X-Empty", ""}};
    const auto fetched = client.fetch(request);
    REQUIRE_MESSAGE(fetched.has_value(), (fetched ? std::string() : fetched.error().message));
    CHECK(fetched->status == 503);
    CHECK(fetched->body == "wait");
    CHECK(fetched->header("x-WHY") == "load");
    CHECK(fetched->header("absent").empty());
  }
  CHECK(server.connections() == 1);
  const auto heard = server.heard();
  CHECK(heard.starts_with("POST /path?q=1 HTTP/1.1\r\n"));
  CHECK(heard.find("X-Mine: yes\r\n") != std::string::npos);
  CHECK(heard.find("X-Empty:\r\n") != std::string::npos);
  CHECK(heard.find("Expect") == std::string::npos);
  CHECK(heard.find(std::string("{\0}", 3)) != std::string::npos);
}

TEST_CASE("no redirect is followed and no proxy of the environment is used") {
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  const Server server(answer("302 Found", "", "Location: http://127.0.0.1:1/\r\n"));
  const auto fetched = HttpClient().fetch(to(server.url()));
  unsetenv("http_proxy");
  REQUIRE(fetched.has_value());
  CHECK(fetched->status == 302);
}

TEST_CASE("an answer over the limit is an error, not a part of it") {
  const Server server(answer("200 OK", std::string(1001, 'x')));
  auto request = to(server.url());
  request.response_limit = 1000;
  HttpClient client;
  CHECK(client.fetch(request).error().code == Code::failed);
  request.response_limit = 1001;
  CHECK(client.fetch(request)->body.size() == 1001);
}

TEST_CASE("silence ends with the deadline, and names the host") {
  const Server server("");
  auto request = to(server.url());
  request.timeout = Millis(100);
  const auto silent = HttpClient().fetch(request);
  CHECK(silent.error().code == Code::timeout);
  CHECK(silent.error().message.find("127.0.0.1:") != std::string::npos);
}

TEST_CASE("what cannot be reached or asked is told apart") {
  HttpClient client;
  const auto refused = client.fetch(to("http://user:secret@127.0.0.1:1/"));
  CHECK(refused.error().code == Code::unreachable);
  CHECK(refused.error().message.find("127.0.0.1:1") != std::string::npos);
  CHECK(refused.error().message.find("secret") == std::string::npos);
  CHECK(client.fetch(to("http://no-such-host.invalid/")).error().code == Code::unreachable);
  CHECK(client.fetch(to("file:///etc/passwd")).error().code == Code::config);
  CHECK(client.fetch(to("http://[")).error().code == Code::config);
  const auto broken = client.fetch(to("http://user:secret@[/"));
  CHECK(broken.error().code == Code::config);
  CHECK(broken.error().message.find("secret") == std::string::npos);
  CHECK(client.fetch(to("")).error().code == Code::config);
  const Server rubbish("rubbish\r\n\r\n");
  CHECK(client.fetch(to(rubbish.url())).error().code == Code::unreachable);
  const Server other(answer("200 OK", "x"));
  auto injected = to(other.url());
  injected.headers = {{"X-Mine", "yes\r\nHost: other"}};
  CHECK(client.fetch(injected).error().code == Code::internal);
}

TEST_CASE("a password goes into a header") {
  const Server server(answer("200 OK", ""));
  auto request = to(server.url());
  request.username = "user";
  request.password = "pass";
  CHECK(HttpClient().fetch(request).has_value());
  CHECK(server.heard().find("Authorization: Basic dXNlcjpwYXNz\r\n") != std::string::npos);
}

TEST_CASE("a Unix socket is reached by its path") {
  const test::Directory directory;
  const Server server(answer("200 OK", "here"), directory / "socket");
  auto request = to("http://localhost/status");
  request.unix_socket = directory / "socket";
  HttpClient client;
  const auto fetched = client.fetch(request);
  REQUIRE(fetched.has_value());
  CHECK(fetched->body == "here");
  request.unix_socket = directory / "none";
  CHECK(client.fetch(request).error().code == Code::unreachable);
  CHECK(client.fetch(request).error().message.find(directory / "none") != std::string::npos);
}

}  // namespace
}  // namespace zx::net
