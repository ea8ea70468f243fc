// A client that increments one key on whichever of several servers takes it, and knows what it was
// answered: redis_writer EVERY_MS PASSWORD_FILE PORT…
//
// Prints "writing" at its first answer, and, when stdin is closed, one line of JSON: increments that
// were acknowledged, those without an answer, and the longest time between two answers.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kAnswerMs = 300;

std::string command(const std::vector<std::string>& words) {
  std::string out = "*" + std::to_string(words.size()) + "\r\n";
  for (const auto& word : words) out += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
  return out;
}

class Server {
 public:
  ~Server() { close(); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  bool open(int port, const std::string& password) {
    close();
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 &&
        !(errno == EINPROGRESS && wait(POLLOUT)))
      return false;
    return password.empty() || ask({"AUTH", password}) == "+OK";
  }
  // The first line of the reply; empty when there was none.
  std::string ask(const std::vector<std::string>& words) {
    const auto text = command(words);
    if (send(fd_, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()))
      return {};
    std::string line;
    while (line.find("\r\n") == std::string::npos) {
      if (!wait(POLLIN)) return {};
      char buffer[512];
      const auto got = recv(fd_, buffer, sizeof buffer, 0);
      if (got <= 0) return {};
      line.append(buffer, static_cast<std::size_t>(got));
    }
    return line.substr(0, line.find("\r\n"));
  }

 private:
  bool wait(short events) const {
    pollfd one{fd_, events, 0};
    return poll(&one, 1, kAnswerMs) == 1 && (one.revents & events) != 0;
  }
  int fd_ = -1;
};

bool is_over() {
  pollfd in{0, POLLIN, 0};
  char byte = 0;
  return poll(&in, 1, 0) == 1 && read(0, &byte, 1) <= 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: redis_writer EVERY_MS PASSWORD_FILE PORT...\n");
    return 2;
  }
  const int every_ms = std::atoi(argv[1]);
  std::string password;
  std::ifstream file(argv[2]);
  std::getline(file, password);
  std::vector<int> ports;
  for (int i = 3; i < argc; ++i) ports.push_back(std::atoi(argv[i]));

  long acknowledged = 0, unanswered = 0;
  double longest_ms = 0;
  Clock::time_point last{};
  Server server;
  std::size_t at = 0;
  bool is_open = false;
  while (!is_over()) {
    if (!is_open) is_open = server.open(ports[at % ports.size()], password);
    const auto reply = is_open ? server.ask({"INCR", "zx-bench"}) : std::string();
    if (!reply.empty() && reply.front() == ':') {
      const auto now = Clock::now();
      if (acknowledged++ == 0) {
        std::puts("writing");
        std::fflush(stdout);
      } else {
        longest_ms =
            std::max(longest_ms, std::chrono::duration<double, std::milli>(now - last).count());
      }
      last = now;
    } else {
      if (is_open && reply.empty()) ++unanswered;
      is_open = false;
      ++at;
    }
    usleep(static_cast<useconds_t>(is_open ? every_ms : 1) * 1000);
  }
  std::printf("{\"acknowledged\": %ld, \"unanswered\": %ld, \"longest_gap_ms\": %.1f}\n",
              acknowledged, unanswered, longest_ms);
  return 0;
}
