// Private to this room: one connection of an HttpServer, and what they share.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/smart_ptr/intrusive_ref_counter.hpp>

#include "lib/net/http_reader.h"
#include "lib/net/http_server.h"
#include "lib/net/listen.h"

namespace zx::net {

using ConnectionPtr = boost::intrusive_ptr<HttpConnection>;

class HttpServer::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(Loop& loop, ListenSocket socket, HttpLimits limits, Handler handler);
  void start();
  void stop();
  void drain(Deadline deadline, std::function<void()> done);

  // For connections.
  void forget(HttpConnection& connection);
  // The deadline of something that begins now, by the clock of the last sweep.
  [[nodiscard]] Monotonic after(Millis limit) const { return now_ + tick_ + limit; }
  [[nodiscard]] bool is_draining() const { return drain_until_.has_value(); }
  [[nodiscard]] std::string_view date() const { return date_; }
  // Grows with every connection that begins to wait for its client.
  [[nodiscard]] std::uint64_t next_turn() { return ++turn_of_last_; }

  const HttpLimits limits;
  const Handler handler;
  HttpCounters counters;
  int port = 0;

 private:
  void accept_later();
  void accept_waiting();
  void add(os::Descriptor socket, std::string peer);
  [[nodiscard]] bool make_room();
  void sweep_later();
  void sweep();
  void tell_when_drained();
  void look_at_clock();

  std::optional<ListenSocket> listening_;
  std::shared_ptr<Loop::Impl> loop_;
  std::optional<Watch> acceptable_;
  std::optional<Timer> timer_;
  const Millis tick_;
  Monotonic now_{};
  std::string date_;
  long date_second_ = 0;
  std::uint64_t turn_of_last_ = 0;
  bool is_sweeping_ = false;
  bool is_out_of_descriptors_ = false;
  bool is_stopped_ = false;
  std::vector<ConnectionPtr> connections_;
  std::optional<Monotonic> drain_until_;
  std::vector<std::function<void()>> drained_;
};

class HttpConnection
    : public boost::intrusive_ref_counter<HttpConnection, boost::thread_unsafe_counter> {
 public:
  HttpConnection(std::shared_ptr<HttpServer::Core> core, boost::asio::io_context& context,
                 std::string peer);
  [[nodiscard]] bool assign(os::Descriptor socket);
  void start();
  void sweep(Monotonic now);
  void close();
  void close_if_idle();
  // It waits for its client, and nothing that was asked is lost when it is closed.
  [[nodiscard]] bool gives_way() const;
  [[nodiscard]] std::uint64_t turn() const { return turn_; }  // when that began

  std::size_t index = 0;  // among the connections of the server

 private:
  friend class HttpReply;
  using Socket = boost::asio::basic_stream_socket<boost::asio::generic::stream_protocol,
                                                  boost::asio::io_context::executor_type>;
  enum class Phase { reading, handling, closing, lingering, closed };

  void proceed();
  void dispatch();
  void answer(HttpResponse response, bool may_keep);
  void refuse(int status, std::string_view why);
  void finish_request();
  void encode(HttpResponse& response, bool keep, bool is_head);
  [[nodiscard]] bool is_full() const;
  [[nodiscard]] bool flush();
  void sent(std::size_t count);
  void wait_until_writable();
  void wait_for_bytes();
  void read();
  void linger();

  void reply_added(std::uint64_t serial);
  void reply_dropped(std::uint64_t serial);
  void replied(std::uint64_t serial, HttpResponse response);

  std::shared_ptr<HttpServer::Core> core_;
  std::optional<Socket> socket_;  // none once closed: a late HttpReply may outlive the loop
  int descriptor_ = -1;
  std::string peer_;
  HttpReader reader_;
  Phase phase_ = Phase::reading;
  Monotonic deadline_ = Monotonic::max();        // of the phase
  Monotonic write_deadline_ = Monotonic::max();  // of a write that waits
  std::uint64_t turn_ = 0;
  bool has_begun_ = true;  // a request's deadline runs; a new connection's from accept
  bool has_bytes_ = false;
  bool is_dispatching_ = false;
  bool is_write_waiting_ = false;

  std::uint64_t serial_ = 0;  // of the request at hand
  unsigned live_replies_ = 0;

  // Responses wait here for one write; a large body beside them is not copied.
  std::string out_;
  std::string large_;
  std::size_t sent_ = 0;  // of both
};

}  // namespace zx::net
