// Something that listens in the place of a Redis server and says what a test wants.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "lib/os/files.h"
#include "lib/redis/reply_reader.h"

namespace zx::test {

// One client of it; blocking, on the thread of the server.
class FakePeer {
 public:
  explicit FakePeer(int fd) : socket_(fd) {}
  // The words of the next command; empty when the client has gone.
  redis::Command next() {
    while (true) {
      if (const auto asked = reader_.next()) {
        redis::Command words;
        for (const auto& item : asked->items) words.push_back(item.text);
        return words;
      }
      char bytes[4096];
      const auto got = recv(socket_.get(), bytes, sizeof bytes, 0);
      if (got <= 0) return {};
      reader_.feed({bytes, static_cast<std::size_t>(got)});
    }
  }
  void say(const std::string& bytes) {
    (void)send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  // AUTH and CLIENT SETNAME, as a server without complaints answers them.
  void welcome() {
    if (auto words = next(); !words.empty() && words.front() == "AUTH") {
      say("+OK\r\n");
      next();
    }
    say("+OK\r\n");
  }
  void wait_for_end() {
    while (!next().empty()) {
    }
  }
  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  os::Descriptor socket_;
  redis::ReplyReader reader_;
};

// Serves one client after the other, each by `serve`.
class FakeRedis {
 public:
  explicit FakeRedis(std::function<void(FakePeer&)> serve) : serve_(std::move(serve)) {
    socket_ = os::Descriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(listen(socket_.get(), 8) == 0);
    socklen_t size = sizeof address;
    REQUIRE(getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      while (true) {
        const int fd = accept(socket_.get(), nullptr, nullptr);
        if (fd < 0) return;
        FakePeer peer(fd);
        serve_(peer);
      }
    });
  }
  // After the clients have gone.
  ~FakeRedis() {
    shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
  }
  FakeRedis(const FakeRedis&) = delete;
  FakeRedis& operator=(const FakeRedis&) = delete;

  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] redis::Target target(const std::string& password = {}) const {
    redis::Target target;
    target.name = "redis-a";
    target.address = "127.0.0.1";
    target.port = port_;
    target.password = password;
    return target;
  }

 private:
  std::function<void(FakePeer&)> serve_;
  os::Descriptor socket_;
  int port_ = 0;
  std::thread thread_;
};

}  // namespace zx::test
