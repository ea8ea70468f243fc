// An HTTP/1.1 server on a Loop. All of it, the replies too, belongs to the thread that runs the
// loop.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/error.h"
#include "lib/net/http_target.h"
#include "lib/net/loop.h"

namespace zx::net {

// Its views hold until the handler returns.
struct HttpRequest {
  std::string_view method;
  std::string_view target;  // as it was sent
  std::string path;         // percent-decoded, without the query; dots in it are left as they are
  QueryList query;
  std::vector<std::pair<std::string_view, std::string_view>> headers;
  std::string_view body;
  std::string_view peer;  // numeric address without the port; "unix" on a Unix socket

  // The first of that name, in whatever case; empty when there is none.
  [[nodiscard]] std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;  // 200 to 599
  std::string type;  // of the body; empty: text/plain; charset=utf-8
  std::string body;  // not sent with 204 and 304, nor to HEAD
  // Names are tokens, values without line ends; not those that frame the message (Content-Length,
  // Transfer-Encoding, Connection, Date, Content-Type). A response that breaks this becomes a 500.
  std::vector<std::pair<std::string, std::string>> headers;
};

class HttpConnection;

// Answers one request, at once or later; the first call counts. It may outlive the connection and
// the server: then it does nothing. When the last copy goes without a call, the client gets a 500.
class HttpReply {
 public:
  HttpReply(const HttpReply& other);
  HttpReply(HttpReply&& other) noexcept;
  HttpReply& operator=(HttpReply other) noexcept;
  ~HttpReply();
  void operator()(HttpResponse response) const;

 private:
  friend class HttpConnection;
  HttpReply(HttpConnection& connection, std::uint64_t serial);
  HttpConnection* connection_ = nullptr;  // counted
  std::uint64_t serial_ = 0;
};

// Times are coarse: they are looked at every quarter of a second, of short ones more often.
struct HttpLimits {
  std::size_t header_bytes = 8u << 10;  // request line and headers: 414, 431
  std::size_t body_bytes = 1u << 20;    // 413
  // One more takes the place of the one that has waited longest for its client, idle or in the
  // middle of a request; when all are being answered it is closed at once.
  std::size_t connections = 1024;
  Millis request{10'000};  // from its first byte to its last: 408; of a new connection from accept
  Millis reply{30'000};    // the handler has not answered: 503
  Millis write{10'000};    // a client that does not read is cut off
  Millis idle{60'000};     // between two requests
};

struct HttpCounters {
  std::size_t open = 0;  // connections now
  // Rejected ones were over the limit, evicted ones had to make room.
  std::uint64_t accepted = 0, rejected = 0, evicted = 0;
  std::array<std::uint64_t, 6> requests{};  // answered, by the first digit of the status
};

class HttpServer {
 public:
  // Must not throw.
  using Handler = std::function<void(const HttpRequest&, HttpReply)>;

  // `where` and its errors as of ListenSocket::open(). Must end before the loop.
  [[nodiscard]] static Result<std::unique_ptr<HttpServer>> listen(Loop& loop,
                                                                  const std::string& where,
                                                                  HttpLimits limits,
                                                                  Handler handler);
  ~HttpServer();  // closes all connections at once
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  [[nodiscard]] int port() const;  // 0 on a Unix socket
  [[nodiscard]] const HttpCounters& counters() const;

  // Stops listening, closes idle connections, lets begun requests be answered, and closes what is
  // left at the deadline. Then calls `done`, never from inside drain(); not at all when the server
  // is destroyed before.
  void drain(Deadline deadline, std::function<void()> done);

  class Core;

 private:
  explicit HttpServer(std::shared_ptr<Core> core);
  std::shared_ptr<Core> core_;  // shared with what is in flight on the loop
};

}  // namespace zx::net
