#include "lib/net/loop.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <thread>
#include <utility>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "lib/net/loop_impl.h"

namespace zx::net {

namespace asio = boost::asio;

Loop::Loop() : impl_(std::make_shared<Impl>()) {}
Loop::~Loop() = default;

void Loop::run() {
  impl_->context.restart();
  impl_->context.run();
}

void Loop::run_until(const std::function<bool()>& done, Deadline deadline) {
  impl_->context.restart();
  while (!done()) {
    if (impl_->context.run_one_until(deadline.at()) == 0) return;
  }
}

void Loop::post(std::function<void()> work) { asio::post(impl_->context, std::move(work)); }

struct Timer::Impl {
  explicit Impl(asio::io_context& context) : timer(context) {}
  asio::steady_timer timer;
};

Timer::Timer(Loop& loop) : impl_(std::make_shared<Impl>(loop.impl()->context)) {}
Timer::~Timer() { cancel(); }

void Timer::at(Deadline deadline, std::function<void()> fire) {
  impl_->timer.expires_at(deadline.at());
  impl_->timer.async_wait(
      [keep = impl_, fire = std::move(fire)](const boost::system::error_code& e) {
        if (!e) fire();
      });
}

void Timer::cancel() { impl_->timer.cancel(); }

struct Watch::Impl {
  Impl(asio::io_context& context, int fd) : descriptor(context, fd) {}
  // `round` tells a late completion of an earlier arm() from the current one.
  asio::posix::stream_descriptor descriptor;
  unsigned round = 0;
};

Watch::Watch(Loop& loop, int descriptor)
    : impl_(std::make_shared<Impl>(loop.impl()->context, descriptor)) {}

Watch::~Watch() {
  ++impl_->round;
  impl_->descriptor.release();  // cancels the waits; the owner closes the descriptor
}

void Watch::arm(For what, std::function<void()> ready) {
  const auto round = ++impl_->round;
  using Wait = asio::posix::stream_descriptor;
  impl_->descriptor.async_wait(
      what == For::read ? Wait::wait_read : Wait::wait_write,
      [keep = impl_, round, ready = std::move(ready)](const boost::system::error_code& e) {
        if (!e && keep->round == round) ready();
      });
}

void Watch::arm_both(std::function<void()> ready) {
  const auto round = ++impl_->round;
  const auto shared = std::make_shared<std::function<void()>>(std::move(ready));
  using Wait = asio::posix::stream_descriptor;
  for (const auto what : {Wait::wait_read, Wait::wait_write})
    impl_->descriptor.async_wait(what,
                                 [keep = impl_, round, shared](const boost::system::error_code& e) {
                                   if (e || keep->round != round) return;
                                   ++keep->round;
                                   (*shared)();
                                 });
}

void resolve(Loop& loop, const std::string& host,
             std::function<void(Result<std::vector<std::string>>)> done) {
  in6_addr address{};
  if (inet_pton(AF_INET, host.c_str(), &address) == 1 ||
      inet_pton(AF_INET6, host.c_str(), &address) == 1) {
    loop.post([host, done = std::move(done)] { done(std::vector<std::string>{host}); });
    return;
  }
  using Work = asio::executor_work_guard<asio::io_context::executor_type>;
  // The guard keeps run() from ending while the lookup is out; the weak pointer lets the loop go
  // away under a resolver that hangs.
  auto guard = std::make_shared<Work>(loop.impl()->context.get_executor());
  auto callback = std::make_shared<decltype(done)>(std::move(done));
  std::weak_ptr<Loop::Impl> weak = loop.impl();
  std::thread([host, weak, guard, callback]() mutable {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    const int status = getaddrinfo(host.c_str(), nullptr, &hints, &list);
    std::vector<std::string> addresses;
    for (const auto* entry = list; entry != nullptr; entry = entry->ai_next) {
      char text[INET6_ADDRSTRLEN + 16];
      if (getnameinfo(entry->ai_addr, entry->ai_addrlen, text, sizeof text, nullptr, 0,
                      NI_NUMERICHOST) == 0)
        addresses.emplace_back(text);
    }
    if (list != nullptr) freeaddrinfo(list);
    const auto alive = weak.lock();
    if (!alive) return;
    asio::post(alive->context, [host, status, addresses = std::move(addresses), callback, guard] {
      if (addresses.empty())
        (*callback)(
            fail(Code::unreachable, "cannot resolve " + host + ": " + gai_strerror(status)));
      else
        (*callback)(addresses);
    });
  }).detach();
}

void tcp_probe(Loop& loop, const std::string& address, int port, Deadline deadline,
               std::function<void(Tcp)> done) {
  struct Attempt {
    explicit Attempt(asio::io_context& context) : socket(context), timer(context) {}
    asio::ip::tcp::socket socket;
    asio::steady_timer timer;
    bool over = false;
  };
  boost::system::error_code bad;
  const auto parsed = asio::ip::make_address(address, bad);
  if (bad) {
    loop.post([done = std::move(done)] { done(Tcp::unreachable); });
    return;
  }
  auto attempt = std::make_shared<Attempt>(loop.impl()->context);
  auto finish =
      std::make_shared<std::function<void(Tcp)>>([attempt, done = std::move(done)](Tcp found) {
        if (std::exchange(attempt->over, true)) return;
        boost::system::error_code ignored;
        attempt->socket.close(ignored);
        attempt->timer.cancel();
        done(found);
      });
  attempt->timer.expires_at(deadline.at());
  attempt->timer.async_wait([finish](const boost::system::error_code& e) {
    if (!e) (*finish)(Tcp::silent);
  });
  attempt->socket.async_connect(asio::ip::tcp::endpoint(parsed, static_cast<unsigned short>(port)),
                                [finish](const boost::system::error_code& e) {
                                  if (!e)
                                    (*finish)(Tcp::accepted);
                                  else if (e == asio::error::connection_refused)
                                    (*finish)(Tcp::refused);
                                  else if (e != asio::error::operation_aborted)
                                    (*finish)(Tcp::unreachable);
                                });
}

}  // namespace zx::net
