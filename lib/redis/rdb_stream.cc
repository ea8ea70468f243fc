#include "lib/redis/rdb_stream.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/net/loop.h"
#include "lib/os/files.h"
#include "lib/os/signals.h"

namespace zx::redis {
namespace {

constexpr Millis kLook{100};  // how often a wait asks whether zx was interrupted
constexpr std::size_t kBuffer = 1u << 18;
constexpr std::size_t kLongestReply = 4096;

std::string where(const Target& target) {
  const auto at = target.address.starts_with('/')
                      ? target.address
                      : fmt::format("{}:{}", target.address, target.port);
  return target.name.empty() ? at : fmt::format("{} ({})", target.name, at);
}

Error interruption() {
  return os::interruption().value_or(Error{Code::interrupted, "interrupted", {}, {}, false});
}

// Until `events` or the deadline; an Error when zx is interrupted. False: the deadline.
Result<bool> wait_for(int descriptor, short events, const Deadline& deadline) {
  while (true) {
    if (os::interrupted()) return fail(interruption());
    pollfd watched{descriptor, events, 0};
    const auto left = std::min(deadline.left(), kLook);
    const int ready = ::poll(&watched, 1, static_cast<int>(left.count()));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return fail(errno_error(Code::io, "cannot poll", errno));
    if (deadline.passed()) return false;
  }
}

Result<std::vector<std::string>> addresses_of(const Target& target, const Deadline& deadline) {
  net::Loop loop;
  std::optional<Result<std::vector<std::string>>> found;
  net::resolve(loop, target.address,
               [&](Result<std::vector<std::string>> addresses) { found = std::move(addresses); });
  loop.run_until([&] { return found.has_value(); }, deadline);
  if (!found)
    return fail(Code::unreachable, fmt::format("{} could not be looked up in time", where(target)));
  if (!*found) return fail(found->error());
  return **found;
}

Result<os::Descriptor> connect_to(const sockaddr* address, socklen_t size, const Target& target,
                                  const Deadline& deadline) {
  os::Descriptor socket(
      ::socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return fail(errno_error(Code::io, "cannot make a socket", errno));
  const auto refused = [&](int number) {
    auto error = errno_error(Code::unreachable, "cannot connect to " + where(target), number);
    error.retryable = true;
    return fail(std::move(error));
  };
  if (::connect(socket.get(), address, size) != 0 && errno != EINPROGRESS) return refused(errno);
  ZX_ASSIGN(const bool ready, wait_for(socket.get(), POLLOUT, deadline));
  if (!ready)
    return fail(Code::unreachable, fmt::format("no connection to {} in time", where(target)));
  int number = 0;
  socklen_t length = sizeof number;
  ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &number, &length);
  if (number != 0) return refused(number);
  return socket;
}

Result<os::Descriptor> connect_to(const Target& target, const Deadline& deadline) {
  if (target.address.starts_with('/')) {
    sockaddr_un local{};
    local.sun_family = AF_UNIX;
    if (target.address.size() >= sizeof local.sun_path)
      return fail(Code::config, target.address + " is too long for a Unix socket");
    std::memcpy(local.sun_path, target.address.data(), target.address.size());
    return connect_to(reinterpret_cast<const sockaddr*>(&local), sizeof local, target, deadline);
  }
  ZX_ASSIGN(const auto addresses, addresses_of(target, deadline));
  Result<os::Descriptor> last = fail(Code::unreachable, where(target) + " has no address");
  for (const auto& address : addresses) {
    addrinfo hints{};
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (::getaddrinfo(address.c_str(), std::to_string(target.port).c_str(), &hints, &list) != 0)
      continue;
    last = connect_to(list->ai_addr, list->ai_addrlen, target, deadline);
    ::freeaddrinfo(list);
    if (last) return last;
  }
  return last;
}

std::string encoded(const Command& command) {
  auto text = fmt::format("*{}\r\n", command.size());
  for (const auto& word : command) text += fmt::format("${}\r\n{}\r\n", word.size(), word);
  return text;
}

class Puller {
 public:
  Puller(const Target& target, const PullOptions& options) : target_(target), options_(options) {}
  Result<Pulled> run(const RdbSink& sink);

 private:
  Status send(const Command& command, const Deadline& deadline);
  // One line of an answer, without its end.
  Result<std::string> line(const Deadline& deadline);
  // An answer that must be +OK.
  Status ask(const Command& command, const Deadline& deadline);
  Status introduce();
  Result<std::size_t> receive(const Deadline& deadline);  // 0: the server closed it
  tl::unexpected<Error> stalled(const SyncReply& reply) const;

  const Target& target_;
  const PullOptions& options_;
  os::Descriptor socket_;
  std::vector<char> buffer_ = std::vector<char>(kBuffer);
  std::string unread_;
};

Status Puller::send(const Command& command, const Deadline& deadline) {
  const auto text = encoded(command);
  std::string_view left = text;
  while (!left.empty()) {
    const auto put = ::send(socket_.get(), left.data(), left.size(), MSG_NOSIGNAL);
    if (put > 0) left.remove_prefix(static_cast<std::size_t>(put));
    if (put >= 0 || errno == EINTR) continue;
    if (errno != EAGAIN)
      return fail(errno_error(Code::unreachable, "cannot ask " + where(target_), errno));
    ZX_ASSIGN(const bool ready, wait_for(socket_.get(), POLLOUT, deadline));
    if (!ready) return fail(Code::timeout, where(target_) + " took no question in time");
  }
  return {};
}

Result<std::size_t> Puller::receive(const Deadline& deadline) {
  while (true) {
    const auto got = ::recv(socket_.get(), buffer_.data(), buffer_.size(), 0);
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno == EINTR) continue;
    if (errno != EAGAIN)
      return fail(
          errno_error(Code::failed, "the connection to " + where(target_) + " broke", errno));
    ZX_ASSIGN(const bool ready, wait_for(socket_.get(), POLLIN, deadline));
    if (!ready) return fail(Code::timeout, where(target_) + " said nothing");
  }
}

Result<std::string> Puller::line(const Deadline& deadline) {
  while (true) {
    if (const auto newline = unread_.find('\n'); newline != std::string::npos) {
      auto text = unread_.substr(0, newline);
      unread_.erase(0, newline + 1);
      if (!text.empty() && text.back() == '\r') text.pop_back();
      return text;
    }
    if (unread_.size() > kLongestReply)
      return fail(Code::failed, where(target_) + " does not answer as a Redis server does");
    ZX_ASSIGN(const auto got, receive(deadline));
    if (got == 0) return fail(Code::failed, where(target_) + " closed the connection");
    unread_.append(buffer_.data(), got);
  }
}

Status Puller::ask(const Command& command, const Deadline& deadline) {
  ZX_TRY(send(command, deadline));
  ZX_ASSIGN(const auto answer, line(deadline));
  if (answer == "+OK") return {};
  auto said = first_line(answer.starts_with('-') ? answer.substr(1) : answer);
  const bool is_auth = said.starts_with("WRONGPASS") || said.starts_with("NOAUTH") ||
                       said.starts_with("NOPERM") || command.front() == "AUTH";
  return fail(is_auth ? Code::auth : Code::server, fmt::format("{}: {}", where(target_), said));
}

Status Puller::introduce() {
  const auto deadline = options_.until.at_most(options_.connect_within);
  ZX_ASSIGN(socket_, connect_to(target_, deadline));
  if (!target_.password.empty()) {
    Command auth{"AUTH"};
    if (!target_.user.empty()) auth.push_back(target_.user);
    auth.push_back(target_.password);
    ZX_TRY(ask(auth, deadline));
  }
  // Without it the server saves to its own disk first.
  ZX_TRY(ask({"REPLCONF", "capa", "eof"}, deadline));
  if (!options_.rdb_only) return {};
  auto only = ask({"REPLCONF", "rdb-only", "1"}, deadline);
  if (!only && only.error().code == Code::server)
    only.error().hint = "servers before 6.2 cannot send a copy alone: use --bgsave for this one";
  return only;
}

tl::unexpected<Error> Puller::stalled(const SyncReply& reply) const {
  const auto what = reply.has_begun() ? fmt::format("stopped after {} bytes", reply.bytes())
                                      : std::string("has not begun");
  if (options_.until.passed())
    return fail(Code::timeout,
                fmt::format("the copy from {} {} by the deadline", where(target_), what));
  return fail(Code::timeout, fmt::format("the copy from {} {}: silent for {}", where(target_), what,
                                         format_duration(options_.idle)));
}

Result<Pulled> Puller::run(const RdbSink& sink) {
  const auto began = monotonic_now();
  ZX_TRY(introduce());
  ZX_TRY(send({"SYNC"}, options_.until.at_most(options_.connect_within)));
  SyncReply reply;
  Pulled pulled;
  bool was_told = false;
  const auto take = [&](std::string_view bytes) -> Status {
    const RdbSink first = [&](std::string_view part) -> Status {
      if (!std::exchange(was_told, true)) {
        pulled.waited = since(began);
        if (reply.announced() && options_.on_length) ZX_TRY(options_.on_length(*reply.announced()));
      }
      return sink(part);
    };
    return reply.feed(bytes, first);
  };
  const auto place = [&](Error error) {
    return fail_while(std::move(error), "taking a copy from " + where(target_));
  };
  if (auto fed = take(std::exchange(unread_, {})); !fed) return place(fed.error());
  while (!reply.is_done()) {
    // A server that never pauses is not waited for, and so not looked up from.
    if (os::interrupted()) return fail(interruption());
    if (options_.until.passed()) return stalled(reply);
    const auto got = receive(options_.until.at_most(options_.idle));
    if (!got && got.error().code == Code::timeout) return stalled(reply);
    if (!got) return place(got.error());
    auto status = *got == 0 ? reply.closed() : take({buffer_.data(), *got});
    if (!status) return place(status.error());
  }
  pulled.bytes = reply.bytes();
  pulled.was_announced = reply.announced().has_value();
  pulled.took = since(began);
  return pulled;
}

}  // namespace

Result<Pulled> pull_rdb(const Target& target, const PullOptions& options, const RdbSink& sink) {
  return Puller(target, options).run(sink);
}

}  // namespace zx::redis
