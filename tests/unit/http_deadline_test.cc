// Time and numbers: clients that are slow, silent, too many; the end of the server.
#include <sys/resource.h>

#include "lib/net/http_server.h"
#include "tests/unit/http_client.h"

namespace zx::net {
namespace {

using test::count_of;
using test::HttpClient;
using test::HttpPlace;
using test::status_of;

const std::string kGet = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const std::string kLastGet = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

void fine(const HttpRequest&, const HttpReply& reply) { reply({}); }

// Every limit far away but the one that a test is about.
HttpLimits patient() {
  HttpLimits limits;
  limits.request = limits.reply = limits.write = limits.idle = Millis(600'000);
  return limits;
}

TEST_CASE("a request that does not end is a 408, though its bytes keep coming") {
  auto limits = patient();
  limits.request = Millis(200);
  limits.header_bytes = 16u << 20;
  HttpPlace place(fine, limits);
  HttpClient silent(place.port()), half(place.port()), dribbling(place.port());
  half.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhel");
  dribbling.say("GET / HTTP/1.1\r\n");
  CHECK(place.until([&] {
    if (!dribbling.is_closed()) dribbling.say("A: b\r\n");
    return dribbling.is_closed();
  }));
  CHECK(status_of(dribbling.heard()) == 408);
  CHECK(place.is_closed(half));
  CHECK(status_of(half.heard()) == 408);
  CHECK(place.is_closed(silent));
  CHECK(silent.heard().empty());
}

TEST_CASE("the deadline of a request starts again with the next one, and not with empty lines") {
  auto limits = patient();
  limits.request = Millis(300);
  HttpPlace place(fine, limits);
  HttpClient client(place.port());
  client.say(kGet + "GET / HT");
  REQUIRE(place.hears(client, " 200 "));
  CHECK(place.hears(client, " 408 "));
  HttpClient empty(place.port());
  CHECK(place.until([&] {
    if (!empty.is_closed()) empty.say("\r\n");
    return empty.is_closed();
  }));
}

TEST_CASE("an idle connection is closed without a word") {
  auto limits = patient();
  limits.idle = Millis(100);
  HttpPlace place(fine, limits);
  HttpClient client(place.port());
  client.say(kGet);
  REQUIRE(place.hears(client, " 200 "));
  CHECK(place.is_closed(client));
  CHECK(count_of(client.heard(), "HTTP/1.1 ") == 1);
}

TEST_CASE("a client that does not read is cut off") {
  auto limits = patient();
  limits.write = Millis(100);
  HttpPlace place(
      [](const HttpRequest&, const HttpReply& reply) {
        HttpResponse response;
        response.body.assign(20'000'000, 'x');
        reply(std::move(response));
      },
      limits);
  HttpClient client(place.port(), 4096);
  client.say(kGet);
  REQUIRE(place.until([&] { return place.server->counters().accepted == 1; }));
  CHECK(place.until([&] { return place.server->counters().open == 0; }));
}

TEST_CASE("a handler that does not answer in time is a 503; what it says later is not heard") {
  auto limits = patient();
  limits.reply = Millis(100);
  std::vector<HttpReply> kept;
  HttpPlace place([&](const HttpRequest&, HttpReply reply) { kept.push_back(std::move(reply)); },
                  limits);
  HttpClient client(place.port());
  client.say(kGet + kGet);
  REQUIRE(place.hears(client, " 503 "));
  kept.at(0)({});
  CHECK(place.is_closed(client));
  CHECK(count_of(client.heard(), "HTTP/1.1 ") == 1);
  CHECK(kept.size() == 1);
}

TEST_CASE("at the limit the connection that waits longest for its client makes room") {
  auto limits = patient();
  limits.connections = 3;
  HttpPlace place(fine, limits);
  HttpClient slow(place.port()), idle(place.port()), silent(place.port());
  idle.say(kGet);
  REQUIRE(place.hears(idle, " 200 "));
  slow.say("GET / HT");
  idle.say(kGet.substr(0, 5));  // has begun to wait later than the others
  REQUIRE(place.until([&] { return place.server->counters().open == 3; }));
  const auto check = [&](HttpClient& gone, HttpClient& stays) {
    HttpClient client(place.port());
    client.say(kGet);
    CHECK(place.hears(client, " 200 "));
    CHECK(place.is_closed(gone));
    CHECK_FALSE(stays.is_closed());
    client.leave();
    REQUIRE(place.until([&] { return place.server->counters().open == 2; }));
  };
  check(slow, idle);
  CHECK(place.server->counters().evicted == 1);
  HttpClient fourth(place.port());
  REQUIRE(place.until([&] { return place.server->counters().open == 3; }));
  check(silent, idle);
  CHECK(place.server->counters().evicted == 2);
  CHECK(place.server->counters().rejected == 0);
  idle.say(kGet.substr(5));
  CHECK(place.until([&] { return count_of(idle.heard(), " 200 ") == 2; }));
}

TEST_CASE("a check is answered while slow clients hold every connection") {
  auto limits = patient();
  limits.connections = 64;
  HttpPlace place(fine, limits);
  std::vector<std::unique_ptr<HttpClient>> slow;
  for (std::size_t i = 0; i < 2 * limits.connections; ++i) {
    slow.push_back(std::make_unique<HttpClient>(place.port()));
    slow.back()->say("GET / HTTP/1.1\r\nX-Slow: ");
  }
  REQUIRE(place.until([&] { return place.server->counters().accepted == 2 * limits.connections; }));
  for (int i = 0; i < 10; ++i) {
    HttpClient client(place.port());
    client.say(kGet);
    CHECK(place.hears(client, " 200 "));
  }
  CHECK(place.server->counters().rejected == 0);
  CHECK(place.server->counters().open == limits.connections);
}

TEST_CASE("a connection over the limit is closed at once when all others are being answered") {
  auto limits = patient();
  limits.connections = 2;
  std::vector<HttpReply> kept;
  HttpPlace place([&](const HttpRequest&, HttpReply reply) { kept.push_back(std::move(reply)); },
                  limits);
  HttpClient first(place.port()), second(place.port());
  first.say(kGet);
  second.say(kGet);
  REQUIRE(place.until([&] { return kept.size() == 2; }));
  HttpClient third(place.port());
  CHECK(place.is_closed(third));
  CHECK(third.heard().empty());
  CHECK(place.server->counters().rejected == 1);
  CHECK(place.server->counters().evicted == 0);
  for (const auto& reply : kept) reply({});
  CHECK(place.hears(first, " 200 "));
  CHECK(place.hears(second, " 200 "));
}

TEST_CASE("without descriptors the server waits, and does not spin") {
  HttpPlace place(fine);
  HttpClient client(place.port());
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  auto low = before;
  low.rlim_cur = 256;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  std::vector<os::Descriptor> all;
  for (int fd = 0; (fd = dup(0)) >= 0;) all.emplace_back(fd);
  client.say(kGet);
  unsigned turns = 0;
  place.loop.run_until([&] { return ++turns > 1000; }, Deadline::after(Millis(600)));
  CHECK(turns < 100);
  CHECK(place.server->counters().accepted == 0);
  all.clear();
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(place.hears(client, " 200 "));
}

TEST_CASE("a drain closes the idle, lets the busy end, and says when all have gone") {
  std::vector<HttpReply> kept;
  HttpPlace place([&](const HttpRequest& request, HttpReply reply) {
    if (request.path == "/late")
      kept.push_back(std::move(reply));
    else
      reply({});
  });
  HttpClient idle(place.port()), fresh(place.port()), late(place.port()), half(place.port());
  idle.say(kGet);
  REQUIRE(place.hears(idle, " 200 "));
  late.say("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
  half.say("GET / HTTP/1.1\r\n");
  REQUIRE(place.until([&] { return !kept.empty() && place.server->counters().open == 4; }));
  place.loop.run_until([] { return false; }, Deadline::after(Millis(20)));

  bool is_done = false;
  place.server->drain(Deadline::after(Millis(600'000)), [&] { is_done = true; });
  CHECK(place.is_closed(idle));
  CHECK(place.is_closed(fresh));
  const auto other = HttpServer::listen(place.loop, "127.0.0.1:" + std::to_string(place.port()),
                                        HttpLimits{}, fine);
  CHECK(other.has_value());
  CHECK(!is_done);

  kept[0]({});
  CHECK(place.is_closed(late));
  CHECK(status_of(late.heard()) == 200);
  CHECK(late.heard().find("\r\nConnection: close\r\n") != std::string::npos);
  half.say("Host: x\r\n\r\n");
  CHECK(place.is_closed(half));
  CHECK(status_of(half.heard()) == 200);
  CHECK(!is_done);
  late.leave();
  half.leave();
  CHECK(place.until([&] { return is_done; }));
}

TEST_CASE("a drain ends at its deadline, whoever is still there") {
  std::vector<HttpReply> kept;
  HttpPlace place([&](const HttpRequest&, HttpReply reply) { kept.push_back(std::move(reply)); });
  HttpClient busy(place.port());
  busy.say(kGet);
  REQUIRE(place.until([&] { return kept.size() == 1; }));
  unsigned done = 0;
  place.server->drain(Deadline::after(Millis(100)), [&] { ++done; });
  place.server->drain(Deadline::after(Millis(600'000)), [&] { ++done; });
  CHECK(place.until([&] { return done == 2; }));
  CHECK(busy.is_closed());
  kept[0]({});
  // Nothing is left that would keep the loop from ending.
  place.server.reset();
  place.loop.run();
}

TEST_CASE("a drain of a server that nobody talks to is done soon, but not at once") {
  HttpPlace place(fine);
  bool is_done = false;
  place.server->drain(Deadline::after(Millis(600'000)), [&] { is_done = true; });
  CHECK(!is_done);
  place.loop.run();
  CHECK(is_done);
}

TEST_CASE("a drained server may be destroyed by its last word") {
  HttpPlace place(fine);
  place.server->drain(Deadline::after(Millis(1'000)), [&] { place.server.reset(); });
  place.loop.run();
  CHECK(!place.server);
}

}  // namespace
}  // namespace zx::net
