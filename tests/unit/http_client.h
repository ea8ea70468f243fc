// A client that says exactly the bytes that a test wants, to a server on the same thread.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "lib/net/http_server.h"
#include "lib/os/files.h"

namespace zx::test {

class HttpClient {
 public:
  explicit HttpClient(int port, int receive_buffer = 0)
      : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0)
      setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  }
  explicit HttpClient(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  }

  // A server that has closed already is no error: what it said before is what matters.
  void say(std::string_view bytes) const {
    while (!bytes.empty()) {
      const auto sent = send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) {
        REQUIRE((errno == EPIPE || errno == ECONNRESET));
        return;
      }
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  void say_no_more() const { shutdown(socket_.get(), SHUT_WR); }
  void leave() { socket_.close(); }

  // What has come until now.
  const std::string& heard() {
    char bytes[65536];
    while (socket_) {
      const auto count = recv(socket_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
      if (count > 0) {
        heard_.append(bytes, static_cast<std::size_t>(count));
        continue;
      }
      if (count == 0 || errno != EAGAIN) is_closed_ = true;
      break;
    }
    return heard_;
  }
  void forget() { heard_.clear(); }
  // By the server.
  bool is_closed() {
    (void)heard();
    return is_closed_;
  }

 private:
  os::Descriptor socket_;
  std::string heard_;
  bool is_closed_ = false;
};

// A server, and the loop that the test turns.
struct HttpPlace {
  explicit HttpPlace(net::HttpServer::Handler handler, net::HttpLimits limits = {},
                     const std::string& where = "127.0.0.1:0") {
    auto made = net::HttpServer::listen(loop, where, limits, std::move(handler));
    REQUIRE_MESSAGE(made.has_value(), (made ? std::string() : made.error().message));
    server = std::move(*made);
  }

  // Turns the loop until it is so. In slices: what the kernel still carries wakes no callback.
  [[nodiscard]] bool until(const std::function<bool()>& so) {
    const auto deadline = Deadline::after(Millis(20'000));
    while (!so() && !deadline.passed()) loop.run_until(so, Deadline::after(Millis(20)));
    return so();
  }
  [[nodiscard]] bool hears(HttpClient& client, std::string_view text) {
    return until([&] { return client.heard().find(text) != std::string::npos; });
  }
  [[nodiscard]] bool is_closed(HttpClient& client) {
    return until([&] { return client.is_closed(); });
  }
  // All that the server says to these bytes until it closes.
  [[nodiscard]] std::string answer_to(std::string_view bytes) {
    HttpClient client(server->port());
    client.say(bytes);
    REQUIRE_MESSAGE(is_closed(client), bytes);
    return client.heard();
  }
  [[nodiscard]] int port() const { return server->port(); }

  net::Loop loop;
  std::unique_ptr<net::HttpServer> server;
};

// "HTTP/1.1 404 Not Found…" -> 404; 0 when it is no response.
inline int status_of(std::string_view response) {
  if (response.substr(0, 9) != "HTTP/1.1 " || response.size() < 12) return 0;
  return std::stoi(std::string(response.substr(9, 3)));
}

inline std::size_t count_of(std::string_view text, std::string_view part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

inline std::string body_of(const std::string& response) {
  const auto end = response.find("\r\n\r\n");
  return end == response.npos ? std::string() : response.substr(end + 4);
}

}  // namespace zx::test
