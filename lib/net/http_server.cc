#include "lib/net/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <functional>
#include <utility>

#include <fmt/format.h>

#include <boost/asio/post.hpp>

#include "lib/net/http_connection.h"
#include "lib/net/loop_impl.h"

namespace zx::net {
namespace {

constexpr int kAcceptsAtOnce = 64;

// A deadline is then at most an eighth late.
Millis tick_for(const HttpLimits& limits) {
  const auto least = std::min({limits.request, limits.reply, limits.write, limits.idle});
  return std::clamp(least / 8, Millis(5), Millis(250));
}

std::string peer_name(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET)
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text, sizeof text);
  else if (address.ss_family == AF_INET6)
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, text,
              sizeof text);
  else
    return "unix";
  return text;
}

// Of the one connection, not of the listener.
bool is_of_the_peer(int number) {
  switch (number) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENOPROTOOPT:
    case EPERM:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH: return true;
    default: return false;
  }
}

}  // namespace

HttpServer::Core::Core(Loop& loop, ListenSocket socket, HttpLimits limits_, Handler handler_)
    : limits(limits_),
      handler(std::move(handler_)),
      port(socket.port()),
      listening_(std::move(socket)),
      loop_(loop.impl()),
      timer_(loop),
      tick_(tick_for(limits_)) {
  acceptable_.emplace(loop, listening_->get());
}

void HttpServer::Core::start() { accept_later(); }

void HttpServer::Core::stop() {
  is_stopped_ = true;
  drained_.clear();
  acceptable_.reset();
  listening_.reset();
  timer_.reset();
  while (!connections_.empty()) connections_.back()->close();
  loop_.reset();
}

void HttpServer::Core::accept_later() {
  acceptable_->arm(Watch::For::read, [self = shared_from_this()] {
    if (self->listening_) self->accept_waiting();
  });
}

void HttpServer::Core::accept_waiting() {
  for (int i = 0; i < kAcceptsAtOnce; ++i) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    os::Descriptor socket(::accept4(listening_->get(), reinterpret_cast<sockaddr*>(&address), &size,
                                    SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) {
      add(std::move(socket), peer_name(address));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      break;
    } else if (!is_of_the_peer(errno)) {
      // No descriptor or memory left: the listener stays readable, so the next sweep asks again.
      is_out_of_descriptors_ = true;
      sweep_later();
      return;
    }
  }
  accept_later();
}

void HttpServer::Core::add(os::Descriptor socket, std::string peer) {
  if (connections_.size() >= limits.connections && !make_room()) {
    ++counters.rejected;
    return;
  }
  sweep_later();
  auto connection =
      ConnectionPtr(new HttpConnection(shared_from_this(), loop_->context, std::move(peer)));
  if (!connection->assign(std::move(socket))) {
    ++counters.rejected;
    return;
  }
  ++counters.accepted;
  connection->index = connections_.size();
  connections_.push_back(connection);
  counters.open = connections_.size();
  connection->start();
}

// Clients that are slow, or keep idle connections, must not keep a load balancer's check out.
bool HttpServer::Core::make_room() {
  HttpConnection* longest = nullptr;
  for (const auto& connection : connections_)
    if (connection->gives_way() && (longest == nullptr || connection->turn() < longest->turn()))
      longest = connection.get();
  if (longest == nullptr) return false;
  ++counters.evicted;
  longest->close();
  return true;
}

void HttpServer::Core::forget(HttpConnection& connection) {
  const auto index = connection.index;
  std::swap(connections_[index], connections_.back());
  connections_[index]->index = index;
  connections_.pop_back();
  counters.open = connections_.size();
  tell_when_drained();
}

void HttpServer::Core::look_at_clock() {
  now_ = std::chrono::steady_clock::now();
  const std::time_t second = std::time(nullptr);
  if (second == date_second_) return;
  date_second_ = second;
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  std::tm utc{};
  gmtime_r(&second, &utc);
  date_ = fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[utc.tm_wday], utc.tm_mday,
                      kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

// One timer for all connections; it rests when there is none.
void HttpServer::Core::sweep_later() {
  if (is_sweeping_) return;
  is_sweeping_ = true;
  look_at_clock();
  timer_->at(Deadline(now_ + tick_), [self = shared_from_this()] {
    self->is_sweeping_ = false;
    if (!self->is_stopped_) self->sweep();
  });
}

void HttpServer::Core::sweep() {
  look_at_clock();
  const bool is_over = drain_until_ && now_ >= *drain_until_;
  // From the end: a connection that closes is replaced by the last one.
  for (auto i = connections_.size(); i-- > 0;) {
    const auto connection = connections_[i];
    if (is_over)
      connection->close();
    else
      connection->sweep(now_);
  }
  if (std::exchange(is_out_of_descriptors_, false) && listening_) accept_waiting();
  if (!connections_.empty()) sweep_later();
}

void HttpServer::Core::drain(Deadline deadline, std::function<void()> done) {
  acceptable_.reset();
  listening_.reset();
  drained_.push_back(std::move(done));
  drain_until_ = drain_until_ ? std::min(*drain_until_, deadline.at()) : deadline.at();
  for (auto i = connections_.size(); i-- > 0;) {
    const auto connection = connections_[i];
    connection->close_if_idle();
  }
  tell_when_drained();
}

void HttpServer::Core::tell_when_drained() {
  if (!drain_until_ || !connections_.empty()) return;
  for (auto& done : std::exchange(drained_, {})) {
    boost::asio::post(loop_->context, [self = shared_from_this(), done = std::move(done)] {
      if (!self->is_stopped_) done();
    });
  }
}

HttpServer::HttpServer(std::shared_ptr<Core> core) : core_(std::move(core)) {}
HttpServer::~HttpServer() { core_->stop(); }

Result<std::unique_ptr<HttpServer>> HttpServer::listen(Loop& loop, const std::string& where,
                                                       HttpLimits limits, Handler handler) {
  ZX_ASSIGN(auto socket, ListenSocket::open(where));
  auto core = std::make_shared<Core>(loop, std::move(socket), limits, std::move(handler));
  core->start();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(core)));
}

int HttpServer::port() const { return core_->port; }
const HttpCounters& HttpServer::counters() const { return core_->counters; }
void HttpServer::drain(Deadline deadline, std::function<void()> done) {
  core_->drain(deadline, std::move(done));
}

}  // namespace zx::net
