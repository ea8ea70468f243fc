#include "lib/net/loop.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <functional>
#include <map>
#include <mutex>
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
  // One wait of the descriptor, and who is called when it ends.
  struct Wait {
    std::function<void()> ready;
    unsigned round;
  };
  Impl(asio::io_context& context, int fd) : descriptor(context, fd) {}
  // `round` tells a late completion of an earlier arm() from the current one.
  asio::posix::stream_descriptor descriptor;
  unsigned round = 0;
  std::weak_ptr<Wait> reading;  // under way
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
  // Who waits for an answer where the end was waited for needs no second wait.
  if (const auto pending = impl_->reading.lock(); pending && what == For::read) {
    *pending = {std::move(ready), round};
    return;
  }
  auto wait = std::make_shared<Impl::Wait>(Impl::Wait{std::move(ready), round});
  if (what == For::read) impl_->reading = wait;
  impl_->descriptor.async_wait(
      what == For::read ? Wait::wait_read : Wait::wait_write,
      [keep = impl_, what, wait = std::move(wait)](const boost::system::error_code& e) {
        if (what == For::read) keep->reading.reset();
        if (!e && keep->round == wait->round) wait->ready();
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

namespace {

using Found = Result<std::vector<std::string>>;

// A name that was known is not waited for any longer than this.
constexpr Millis kLookupTakes{100};

// The names that were looked up, and who waits for one. At most one thread a name asks: a resolver
// that hangs keeps it for as long as it hangs.
class Lookups {
 public:
  // Never destroyed: threads may come back after the end of main().
  static Lookups& all() {
    static auto* lookups = new Lookups;
    return *lookups;
  }
  // What was found last, if anything was; `tell` is called by another thread.
  std::vector<std::string> ask(const std::string& host, std::function<void(const Found&)> tell) {
    const std::lock_guard lock(mutex_);
    auto& name = names_[host];
    name.waiting.push_back(std::move(tell));
    if (!std::exchange(name.is_asked, true))
      std::thread([this, host] { answer(host, look_up(host)); }).detach();
    return name.last;
  }

 private:
  struct Name {
    std::vector<std::string> last;
    bool is_asked = false;
    std::vector<std::function<void(const Found&)>> waiting;
  };
  struct Answer {
    int status = 0;
    std::vector<std::string> addresses;
  };

  static Answer look_up(const std::string& host) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    Answer answer;
    answer.status = getaddrinfo(host.c_str(), nullptr, &hints, &list);
    for (const auto* entry = list; entry != nullptr; entry = entry->ai_next) {
      char text[INET6_ADDRSTRLEN + 16];
      if (getnameinfo(entry->ai_addr, entry->ai_addrlen, text, sizeof text, nullptr, 0,
                      NI_NUMERICHOST) == 0)
        answer.addresses.emplace_back(text);
    }
    if (list != nullptr) freeaddrinfo(list);
    return answer;
  }
  void answer(const std::string& host, Answer answer) {
    std::vector<std::function<void(const Found&)>> waiting;
    Found found =
        fail(Code::unreachable, "cannot resolve " + host + ": " + gai_strerror(answer.status));
    {
      const std::lock_guard lock(mutex_);
      auto& name = names_[host];
      name.is_asked = false;
      waiting.swap(name.waiting);
      // That there is no such name is an answer; that nobody answers says nothing new.
      if (!answer.addresses.empty() || answer.status == EAI_NONAME)
        name.last = std::move(answer.addresses);
      if (!name.last.empty()) found = name.last;
    }
    for (const auto& tell : waiting) tell(found);
  }

  std::mutex mutex_;
  std::map<std::string, Name> names_;
};

}  // namespace

void resolve(Loop& loop, const std::string& host, std::function<void(Found)> done) {
  in6_addr address{};
  if (inet_pton(AF_INET, host.c_str(), &address) == 1 ||
      inet_pton(AF_INET6, host.c_str(), &address) == 1) {
    loop.post([host, done = std::move(done)] { done(std::vector<std::string>{host}); });
    return;
  }
  // The pending timer keeps both this and the loop's run() alive; a loop that goes away under a
  // resolver that hangs takes it along.
  struct Waiter {
    Waiter(asio::io_context& context, std::function<void(Found)> d)
        : timer(context), done(std::move(d)) {}
    asio::steady_timer timer;
    std::function<void(Found)> done;
    void answer(const Found& found) {
      if (auto callback = std::exchange(done, nullptr)) callback(found);
    }
  };
  auto waiter = std::make_shared<Waiter>(loop.impl()->context, std::move(done));
  std::weak_ptr<Loop::Impl> weak_loop = loop.impl();
  std::weak_ptr<Waiter> weak = waiter;
  auto last = Lookups::all().ask(host, [weak_loop, weak](const Found& found) {
    const auto alive = weak_loop.lock();
    if (!alive) return;
    asio::post(alive->context, [weak, found] {
      const auto self = weak.lock();
      if (!self) return;
      self->timer.cancel();
      self->answer(found);
    });
  });
  waiter->timer.expires_after(last.empty() ? Millis(std::chrono::hours(24)) : kLookupTakes);
  waiter->timer.async_wait([waiter, last = std::move(last)](const boost::system::error_code& e) {
    if (!e && !last.empty()) waiter->answer(last);
  });
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
