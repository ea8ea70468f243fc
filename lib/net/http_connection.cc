#include "lib/net/http_connection.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <functional>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/status.hpp>

namespace zx::net {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::string_view kPlainText = "text/plain; charset=utf-8";
constexpr std::size_t kBatch = 64u << 10;
constexpr std::size_t kLargeBody = 8u << 10;
constexpr std::size_t kKeptOut = 16u << 10;
// So long a client may take to read the last response before its connection is cut.
constexpr Millis kLinger{2'000};

bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  for (const char c : text)
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
          kMarks.find(c) != kMarks.npos))
      return false;
  return !text.empty();
}

bool is_value(std::string_view text) {
  for (const char c : text)
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) return false;
  return true;
}

bool frames_the_message(std::string_view name) {
  for (const std::string_view own :
       {"content-length", "transfer-encoding", "connection", "date", "content-type"})
    if (boost::beast::iequals({name.data(), name.size()}, {own.data(), own.size()})) return true;
  return false;
}

bool can_be_sent(const HttpResponse& response) {
  if (response.status < 200 || response.status > 599 || !is_value(response.type)) return false;
  for (const auto& [name, value] : response.headers)
    if (!is_token(name) || !is_value(value) || frames_the_message(name)) return false;
  return true;
}

HttpResponse plain(int status, std::string_view text) {
  HttpResponse response;
  response.status = status;
  response.body.append(text).append("\n");
  return response;
}

void append_number(std::string& out, std::size_t number) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out.append(digits, end);
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (boost::beast::iequals({key.data(), key.size()}, {name.data(), name.size()})) return value;
  return {};
}

HttpReply::HttpReply(HttpConnection& connection, std::uint64_t serial)
    : connection_(&connection), serial_(serial) {
  intrusive_ptr_add_ref(connection_);
  connection_->reply_added(serial_);
}
HttpReply::HttpReply(const HttpReply& other)
    : connection_(other.connection_), serial_(other.serial_) {
  if (connection_ == nullptr) return;
  intrusive_ptr_add_ref(connection_);
  connection_->reply_added(serial_);
}
HttpReply::HttpReply(HttpReply&& other) noexcept
    : connection_(std::exchange(other.connection_, nullptr)), serial_(other.serial_) {}
HttpReply& HttpReply::operator=(HttpReply other) noexcept {
  std::swap(connection_, other.connection_);
  std::swap(serial_, other.serial_);
  return *this;
}
HttpReply::~HttpReply() {
  if (connection_ == nullptr) return;
  connection_->reply_dropped(serial_);
  intrusive_ptr_release(connection_);
}
void HttpReply::operator()(HttpResponse response) const {
  if (connection_ == nullptr) return;
  // The reply may be destroyed by what the answer sets off.
  const ConnectionPtr keep(connection_);
  keep->replied(serial_, std::move(response));
}

HttpConnection::HttpConnection(std::shared_ptr<HttpServer::Core> core, asio::io_context& context,
                               std::string peer)
    : core_(std::move(core)),
      socket_(context),
      peer_(std::move(peer)),
      reader_(core_->limits.header_bytes, core_->limits.body_bytes),
      deadline_(core_->after(core_->limits.request)),
      turn_(core_->next_turn()) {
  reader_.request().peer = peer_;
}

bool HttpConnection::assign(os::Descriptor socket) {
  error_code bad;
  // The family only matters to names, which are not asked for.
  socket_->assign(asio::generic::stream_protocol(AF_INET, 0), socket.get(), bad);
  if (bad) return false;
  descriptor_ = socket.release();
  return true;
}

void HttpConnection::start() { read(); }

// Goes on until bytes, a reply or room to write must be waited for.
void HttpConnection::proceed() {
  const ConnectionPtr self(this);
  for (;;) {
    auto step = HttpReader::Step::ready;
    while (phase_ == Phase::reading && !is_full()) {
      step = reader_.parse();
      if (step == HttpReader::Step::more) break;
      if (step == HttpReader::Step::ready)
        dispatch();
      else
        refuse(reader_.refusal(), reader_.why_refused());
    }
    if (phase_ == Phase::closed || phase_ == Phase::lingering) return;
    const bool needs_bytes = phase_ == Phase::reading && step == HttpReader::Step::more;
    if (needs_bytes && reader_.take_continue()) out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    if (!flush()) return;
    if (phase_ == Phase::handling) return;
    if (phase_ == Phase::closing) return linger();
    if (needs_bytes) return wait_for_bytes();
  }
}

void HttpConnection::dispatch() {
  phase_ = Phase::handling;
  deadline_ = core_->after(core_->limits.reply);
  const auto serial = serial_;
  is_dispatching_ = true;
  core_->handler(reader_.request(), HttpReply(*this, serial));
  is_dispatching_ = false;
  if (serial_ != serial) finish_request();
}

void HttpConnection::reply_added(std::uint64_t serial) {
  if (serial == serial_) ++live_replies_;
}

void HttpConnection::reply_dropped(std::uint64_t serial) {
  if (serial != serial_ || --live_replies_ > 0) return;
  if (phase_ != Phase::handling) return;
  answer(plain(500, "the request was not answered"), false);
}

void HttpConnection::replied(std::uint64_t serial, HttpResponse response) {
  if (serial != serial_ || phase_ != Phase::handling) return;
  if (!can_be_sent(response)) return answer(plain(500, "a response that cannot be sent"), false);
  answer(std::move(response), true);
}

void HttpConnection::answer(HttpResponse response, bool may_keep) {
  const bool keep = may_keep && reader_.keep_alive() && !core_->is_draining();
  encode(response, keep, reader_.request().method == "HEAD");
  ++serial_;
  live_replies_ = 0;
  phase_ = keep ? Phase::reading : Phase::closing;
  deadline_ = Monotonic::max();
  if (is_dispatching_) return;  // the handler may still look at the request
  finish_request();
  proceed();
}

void HttpConnection::finish_request() {
  reader_.next();
  has_begun_ = false;
}

// What cannot be read any further is answered and closed.
void HttpConnection::refuse(int status, std::string_view why) {
  auto response = plain(status, why);
  encode(response, false, reader_.request().method == "HEAD");
  phase_ = Phase::closing;
  deadline_ = Monotonic::max();
}

void HttpConnection::encode(HttpResponse& response, bool keep, bool is_head) {
  ++core_->counters.requests[static_cast<std::size_t>(response.status / 100)];
  const auto reason = boost::beast::http::obsolete_reason(
      boost::beast::http::int_to_status(static_cast<unsigned>(response.status)));
  out_ += "HTTP/1.1 ";
  append_number(out_, static_cast<std::size_t>(response.status));
  out_ += ' ';
  out_.append(reason.data(), reason.size());
  out_ += "\r\nDate: ";
  out_ += core_->date();
  const bool has_body = response.status != 204 && response.status != 304;
  if (has_body) {
    if (!response.body.empty()) {
      out_ += "\r\nContent-Type: ";
      out_ += response.type.empty() ? kPlainText : std::string_view(response.type);
    }
    out_ += "\r\nContent-Length: ";
    append_number(out_, response.body.size());
  }
  // HTTP/1.0 clients look for it.
  out_ += keep ? "\r\nConnection: keep-alive\r\n" : "\r\nConnection: close\r\n";
  for (const auto& [name, value] : response.headers) {
    out_ += name;
    out_ += ": ";
    out_ += value;
    out_ += "\r\n";
  }
  out_ += "\r\n";
  if (!has_body || is_head) return;
  if (response.body.size() >= kLargeBody)
    large_ = std::move(response.body);
  else
    out_ += response.body;
}

// Enough to write before the next request is read.
bool HttpConnection::is_full() const {
  return is_write_waiting_ || !large_.empty() || out_.size() >= kBatch;
}

// True when everything is written; otherwise proceed() is called when there is room, or it is
// closed.
bool HttpConnection::flush() {
  if (is_write_waiting_) return false;
  while (sent_ < out_.size() + large_.size()) {
    iovec parts[2];
    std::size_t count = 0;
    std::size_t skip = sent_;
    for (auto* part : {&out_, &large_}) {
      if (skip < part->size()) parts[count++] = {part->data() + skip, part->size() - skip};
      skip -= std::min(skip, part->size());
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count;
    const auto written = ::sendmsg(descriptor_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (written >= 0) {
      sent_ += static_cast<std::size_t>(written);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      wait_until_writable();
      return false;
    } else if (errno != EINTR) {
      close();
      return false;
    }
  }
  sent_ = 0;
  large_ = {};
  if (out_.capacity() > kKeptOut) out_ = {};
  out_.clear();
  return true;
}

void HttpConnection::wait_until_writable() {
  is_write_waiting_ = true;
  if (write_deadline_ == Monotonic::max()) write_deadline_ = core_->after(core_->limits.write);
  socket_->async_wait(Socket::wait_write, [self = ConnectionPtr(this)](const error_code& bad) {
    self->is_write_waiting_ = false;
    if (self->phase_ == Phase::closed) return;
    if (bad) return self->close();
    if (!self->flush()) return;
    self->write_deadline_ = Monotonic::max();
    self->proceed();
  });
}

void HttpConnection::wait_for_bytes() {
  if (!has_begun_) {
    has_begun_ = !reader_.is_idle();
    has_bytes_ = has_begun_;
    deadline_ = core_->after(has_begun_ ? core_->limits.request : core_->limits.idle);
    turn_ = core_->next_turn();
    if (!has_begun_ && core_->is_draining()) return close();
  }
  read();
}

void HttpConnection::read() {
  const auto room = reader_.room();
  socket_->async_read_some(asio::buffer(room.data(), room.size()),
                           [self = ConnectionPtr(this)](const error_code& bad, std::size_t count) {
                             if (self->phase_ != Phase::reading) return;
                             if (bad) return self->close();
                             if (!self->has_begun_) {
                               self->has_begun_ = true;
                               self->turn_ = self->core_->next_turn();
                               self->deadline_ = self->core_->after(self->core_->limits.request);
                             }
                             self->has_bytes_ = true;
                             self->reader_.filled(count);
                             self->proceed();
                           });
}

// Closing a socket with unread bytes resets the connection, and the client may lose the response:
// so what it still sends is read until it closes too.
void HttpConnection::linger() {
  if (phase_ != Phase::lingering) {
    phase_ = Phase::lingering;
    deadline_ = core_->after(kLinger);
    turn_ = core_->next_turn();
    if (::shutdown(descriptor_, SHUT_WR) != 0) return close();
  }
  const auto scrap = reader_.scrap();
  socket_->async_read_some(asio::buffer(scrap.data(), scrap.size()),
                           [self = ConnectionPtr(this)](const error_code& bad, std::size_t) {
                             if (self->phase_ != Phase::lingering) return;
                             if (bad)
                               self->close();
                             else
                               self->linger();
                           });
}

void HttpConnection::sweep(Monotonic now) {
  const ConnectionPtr self(this);
  if (now >= write_deadline_) return close();
  if (now < deadline_) return;
  if (phase_ == Phase::handling) {
    answer(plain(503, "no answer in time"), false);
  } else if (phase_ == Phase::reading && has_begun_ && has_bytes_) {
    refuse(408, "the request did not come in time");
    proceed();
  } else {
    close();
  }
}

void HttpConnection::close_if_idle() {
  if (phase_ == Phase::reading && !is_write_waiting_ && reader_.is_idle()) close();
}

bool HttpConnection::gives_way() const {
  return phase_ == Phase::lingering || (phase_ == Phase::reading && !is_write_waiting_);
}

void HttpConnection::close() {
  if (phase_ == Phase::closed) return;
  phase_ = Phase::closed;
  const ConnectionPtr self(this);
  socket_.reset();
  core_->forget(*this);
}

}  // namespace zx::net
