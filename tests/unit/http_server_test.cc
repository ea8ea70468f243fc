// What a client sees of the HTTP server: sockets on loopback, byte by byte where it matters.
#include "lib/net/http_server.h"

#include "tests/unit/http_client.h"

namespace zx::net {
namespace {

using test::body_of;
using test::count_of;
using test::HttpClient;
using test::HttpPlace;
using test::status_of;

const std::string kGet = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const std::string kLastGet = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

HttpResponse text(std::string body) {
  HttpResponse response;
  response.body = std::move(body);
  return response;
}

void say_path(const HttpRequest& request, const HttpReply& reply) {
  reply(text(request.path + (request.body.empty() ? "" : "=" + std::string(request.body))));
}

// Keeps the replies, to give them later or never.
struct Kept {
  std::vector<HttpReply> replies;
  HttpServer::Handler handler() {
    return [this](const HttpRequest&, HttpReply reply) { replies.push_back(std::move(reply)); };
  }
};

TEST_CASE("a request comes apart into what was meant") {
  HttpRequest seen;
  std::string host, accept, nothing, method, target, body, peer;
  HttpPlace place([&](const HttpRequest& request, const HttpReply& reply) {
    seen.path = request.path;
    seen.query = request.query;
    host = request.header("HOST");
    accept = request.header("accept");
    nothing = request.header("Cookie");
    method = request.method;
    target = request.target;
    body = request.body;
    peer = request.peer;
    reply(text("fine"));
  });
  const auto answer = place.answer_to(
      "POST /a%20b/%C3%A9?k=v+w&flag&x=%26&k= HTTP/1.1\r\nHost: shop\r\nAccept:  text/html \r\n"
      "Content-Length: 5\r\nConnection: close\r\n\r\nhello");
  CHECK(status_of(answer) == 200);
  CHECK(body_of(answer) == "fine");
  CHECK(answer.find("\r\nContent-Length: 4\r\n") != std::string::npos);
  CHECK(answer.find("\r\nContent-Type: text/plain; charset=utf-8\r\n") != std::string::npos);
  CHECK(method == "POST");
  CHECK(target == "/a%20b/%C3%A9?k=v+w&flag&x=%26&k=");
  CHECK(seen.path == "/a b/\xC3\xA9");
  CHECK(seen.query == QueryList{{"k", "v w"}, {"flag", ""}, {"x", "&"}, {"k", ""}});
  CHECK(host == "shop");
  CHECK(accept == "text/html");
  CHECK(nothing.empty());
  CHECK(body == "hello");
  CHECK(peer == "127.0.0.1");
}

TEST_CASE("a connection stays open as the client's version and words have it") {
  HttpPlace place(say_path);
  HttpClient client(place.port());
  for (const std::string path : {"/one", "/two", "/three"}) {
    client.forget();
    client.say("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK(place.hears(client, "\r\n\r\n" + path));
  }
  CHECK(place.server->counters().accepted == 1);
  client.say(kLastGet);
  CHECK(place.is_closed(client));

  const auto old = place.answer_to("GET /old HTTP/1.0\r\n\r\n");
  CHECK(body_of(old) == "/old");
  CHECK(old.find("\r\nConnection: close\r\n") != std::string::npos);

  HttpClient old_but_kept(place.port());
  old_but_kept.say("GET /first HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  CHECK(place.hears(old_but_kept, "/first"));
  CHECK(old_but_kept.heard().find("\r\nConnection: keep-alive\r\n") != std::string::npos);
  old_but_kept.say("GET /second HTTP/1.0\r\n\r\n");
  CHECK(place.is_closed(old_but_kept));
  CHECK(old_but_kept.heard().find("/second") != std::string::npos);
}

TEST_CASE("pipelined requests are answered in their order, however many come at once") {
  HttpPlace place(say_path);
  std::string requests, bodies;
  for (int i = 0; i < 3000; ++i) {
    const auto path = "/" + std::to_string(i);
    requests += "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    bodies += path + "=abc,";
  }
  HttpClient client(place.port());
  // The kernel may not take all before the server reads.
  std::string_view left = requests;
  while (!left.empty()) {
    client.say(left.substr(0, 30'000));
    left.remove_prefix(std::min<std::size_t>(left.size(), 30'000));
    place.loop.run_until([] { return false; }, Deadline::after(Millis(1)));
    (void)client.heard();
  }
  REQUIRE(place.hears(client, "/2999=abc"));
  std::string found, all = client.heard();
  for (auto at = all.find("\r\n\r\n"); at != all.npos; at = all.find("\r\n\r\n", at + 4)) {
    const auto end = all.find("HTTP/1.1", at);
    found += all.substr(at + 4, end == all.npos ? end : end - at - 4) + ",";
  }
  CHECK(found == bodies);
}

TEST_CASE("a late reply holds back those behind it, not those before") {
  std::vector<HttpReply> kept;
  HttpPlace place([&](const HttpRequest& request, HttpReply reply) {
    if (request.path == "/late")
      kept.push_back(std::move(reply));
    else
      reply(text("<" + request.path + ">"));
  });
  HttpClient client(place.port());
  client.say(
      "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /late HTTP/1.1\r\nHost: x\r\n\r\n"
      "GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
  REQUIRE(place.until([&] { return kept.size() == 1; }));
  CHECK(place.hears(client, "</a>"));
  CHECK(client.heard().find("</b>") == std::string::npos);
  kept[0](text("<late>"));
  CHECK(place.hears(client, "</b>"));
  CHECK(client.heard().find("<late>") < client.heard().find("</b>"));
  kept[0](text("<twice>"));
  client.say(kLastGet);
  CHECK(place.is_closed(client));
  CHECK(client.heard().find("<twice>") == std::string::npos);
}

TEST_CASE("it does not matter how the bytes are cut") {
  HttpPlace place(say_path);
  HttpClient client(place.port());
  const std::string requests =
      "\r\nPOST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
      "POST /chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n8;name=\"v\"\r\ndefghijk\r\n0\r\nTrailer: t\r\n\r\n"
      "POST /empty HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
      "POST /bare HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: t\r\n\r\n" +
      kLastGet;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    client.say(requests.substr(i, 1));
    // Until the server has taken the byte, so that it never gets two.
    place.loop.run_until([] { return false; }, Deadline::after(Millis(1)));
  }
  REQUIRE(place.is_closed(client));
  CHECK(client.heard().find("/plain=hello") != std::string::npos);
  CHECK(client.heard().find("/chunked=abcdefghijk") != std::string::npos);
  CHECK(count_of(client.heard(), "HTTP/1.1 200 OK") == 5);
}

TEST_CASE("HEAD, 204 and 304 have no body") {
  HttpPlace place([](const HttpRequest& request, const HttpReply& reply) {
    auto response = text(std::string(100'000, 'x'));
    if (request.path != "/") response.status = std::stoi(request.path.substr(1));
    reply(std::move(response));
  });
  const auto head = place.answer_to("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  CHECK(status_of(head) == 200);
  CHECK(head.find("\r\nContent-Length: 100000\r\n") != std::string::npos);
  CHECK(body_of(head).empty());
  for (const std::string status : {"204", "304"}) {
    const auto bare =
        place.answer_to("GET /" + status + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    CHECK(status_of(bare) == std::stoi(status));
    CHECK(bare.find("Content-Length") == std::string::npos);
    CHECK(body_of(bare).empty());
  }
}

TEST_CASE("a client that asks before it sends the body is told to go on, once") {
  HttpPlace place(say_path);
  HttpClient client(place.port());
  client.say(
      "PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n"
      "Connection: close\r\n\r\n");
  REQUIRE(place.hears(client, "HTTP/1.1 100 Continue\r\n\r\n"));
  client.say("4\r\n");
  place.loop.run_until([] { return false; }, Deadline::after(Millis(20)));
  client.say("body\r\n0\r\n\r\n");
  REQUIRE(place.is_closed(client));
  CHECK(count_of(client.heard(), "100 Continue") == 1);
  CHECK(client.heard().find("/a=body") != std::string::npos);

  const auto at_once = place.answer_to(
      "PUT /b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"
      "Connection: close\r\n\r\nbody");
  CHECK(status_of(at_once) == 200);
  const auto too_much = place.answer_to(
      "PUT /b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4000000\r\n\r\n");
  CHECK(status_of(too_much) == 413);
  CHECK(status_of(place.answer_to("PUT /b HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n")) ==
        417);
}

TEST_CASE("what is not HTTP is refused with the reason, and closed") {
  unsigned handled = 0;
  HttpPlace place([&](const HttpRequest&, const HttpReply& reply) {
    ++handled;
    reply({});
  });
  const std::pair<int, std::string> cases[] = {
      {400, "hello\r\n\r\n"},
      {400, "GET /\r\n\r\n"},
      {400, "GET  / HTTP/1.1\r\nHost: x\r\n\r\n"},
      {400, "G\x01T / HTTP/1.1\r\nHost: x\r\n\r\n"},
      {400, "GET / HTTP/1.1\nHost: x\n\n"},
      {400, "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: x\r\nA: b\x01\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost : x\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"},
      {400, "GET relative HTTP/1.1\r\nHost: x\r\n\r\n"},
      {400, "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n"},
      {400, "GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n"},
      {400, "GET /?a=%2 HTTP/1.1\r\nHost: x\r\n\r\n"},
      {400, "CONNECT shop:443 HTTP/1.1\r\nHost: x\r\n\r\n"},
      {505, "GET / HTTP/2.0\r\nHost: x\r\n\r\n"},
      {505, "GET / HTTP/1.2\r\nHost: x\r\n\r\n"},
      {505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
  };
  for (const auto& [status, given] : cases) {
    const auto& bytes = given;  // clang 14 captures no structured binding
    INFO(bytes);
    const auto answer = place.answer_to(bytes + kGet);
    CHECK(status_of(answer) == status);
    CHECK(answer.find("\r\nConnection: close\r\n") != std::string::npos);
    CHECK(count_of(answer, "HTTP/1.1 ") == 1);
    CHECK(!body_of(answer).empty());
  }
  CHECK(handled == 0);
}

TEST_CASE("a body whose end two servers could see in two places is refused") {
  unsigned handled = 0;
  HttpPlace place([&](const HttpRequest&, const HttpReply& reply) {
    ++handled;
    reply({});
  });
  const std::string post = "POST / HTTP/1.1\r\nHost: x\r\n";
  const std::string chunked = "Transfer-Encoding: chunked\r\n";
  const std::pair<int, std::string> cases[] = {
      {400, post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"},
      {400, post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"},
      {400, post + "Content-Length: 5, 5\r\n\r\nhello"},
      {400, post + "Content-Length: 5,6\r\n\r\nhello!"},
      {400, post + "Content-Length: +5\r\n\r\nhello"},
      {400, post + "Content-Length: -1\r\n\r\n"},
      {400, post + "Content-Length: 0x5\r\n\r\nhello"},
      {400, post + "Content-Length: 5 5\r\n\r\nhello"},
      {400, post + "Content-Length:\r\n\r\n"},
      {400, post + "Content-Length : 5\r\n\r\nhello"},
      {400, post + "Content-Length: 18446744073709551621\r\n\r\nhello"},
      {400, post + "Content-Length: 5\r\n" + chunked + "\r\n0\r\n\r\n"},
      {400, post + chunked + "Content-Length: 5\r\n\r\n0\r\n\r\n"},
      {400, post + chunked + chunked + "\r\n0\r\n\r\n"},
      {400, post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
      {400, post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.0\r\n" + chunked + "\r\n0\r\n\r\n"},
      {501, post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
      {501, post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
      {501, post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
      {501, post + "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"},
      {501, post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"},
      {400, post + chunked + "\r\nx\r\nhello\r\n0\r\n\r\n"},
      {400, post + chunked + "\r\n-1\r\nhello\r\n0\r\n\r\n"},
      {400, post + chunked + "\r\n5\r\nhelloXX0\r\n\r\n"},
      {400, post + chunked + "\r\n5\nhello\r\n0\r\n\r\n"},
      {400, post + chunked + "\r\n5 \r\nhello\r\n0\r\n\r\n"},
      {400, post + chunked + "\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"},
      {400, post + chunked + "\r\n0\r\nContent-Length: 9\r\n\r\n"},
      {413, post + chunked + "\r\nffffffffffffffff\r\nhello\r\n0\r\n\r\n"},
  };
  for (const auto& [status, given] : cases) {
    const auto& bytes = given;  // clang 14 captures no structured binding
    INFO(bytes);
    const auto answer = place.answer_to(bytes + kGet);
    CHECK(status_of(answer) == status);
    CHECK(count_of(answer, "HTTP/1.1 ") == 1);
  }
  CHECK(handled == 0);
}

TEST_CASE("a request may be as large as the limits, and not larger") {
  HttpLimits limits;
  limits.header_bytes = 300;
  limits.body_bytes = 100'000;
  HttpPlace place([](const HttpRequest& request,
                     const HttpReply& reply) { reply(text(std::to_string(request.body.size()))); },
                  limits);
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nPad: ";
  const auto padded = [&](std::size_t size) {
    return head + std::string(size - head.size() - 4, 'p') + "\r\n\r\n";
  };
  CHECK(status_of(place.answer_to(padded(300))) == 200);
  CHECK(status_of(place.answer_to(padded(301))) == 431);
  CHECK(status_of(place.answer_to(padded(100'000))) == 431);
  CHECK(status_of(place.answer_to("GET /" + std::string(300, 'a'))) == 414);
  CHECK(status_of(place.answer_to(std::string(400, 'G'))) == 414);

  const auto with_length = [&](std::size_t size) {
    return "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " +
           std::to_string(size) + "\r\n\r\n" + std::string(size, 'b');
  };
  CHECK(body_of(place.answer_to(with_length(100'000))) == "100000");
  CHECK(status_of(place.answer_to(with_length(100'001))) == 413);

  const auto in_chunks = [&](std::size_t size) {
    std::string all =
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (; size >= 1000; size -= 1000) all += "3e8\r\n" + std::string(1000, 'c') + "\r\n";
    for (; size > 0; --size) all += "1\r\nc\r\n";
    return all + "0\r\n\r\n";
  };
  CHECK(body_of(place.answer_to(in_chunks(100'000))) == "100000");
  CHECK(status_of(place.answer_to(in_chunks(100'001))) == 413);
  const std::string start = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  CHECK(status_of(place.answer_to(start + "1;" + std::string(30'000, 'e'))) == 400);
  CHECK(status_of(place.answer_to(start + "0\r\nT: " + std::string(30'000, 't'))) == 400);
}

TEST_CASE("a response that would break the message becomes a 500") {
  HttpResponse given;
  HttpPlace place([&](const HttpRequest&, const HttpReply& reply) { reply(given); });
  given.headers = {{"Retry-After", "3"}, {"X-Limit", "a b"}};
  given.type = "application/json";
  given.body = "{}";
  given.status = 429;
  const auto fine = place.answer_to(kLastGet);
  CHECK(status_of(fine) == 429);
  CHECK(fine.find("\r\nRetry-After: 3\r\nX-Limit: a b\r\n\r\n{}") != std::string::npos);
  CHECK(fine.find("\r\nContent-Type: application/json\r\n") != std::string::npos);

  const auto broken = [&](auto change) {
    given = {};
    change(given);
    const auto answer = place.answer_to(kGet);
    CHECK(answer.find("evil") == std::string::npos);
    return status_of(answer);
  };
  CHECK(broken([](auto& r) { r.headers = {{"X", "a\r\nevil: b"}}; }) == 500);
  CHECK(broken([](auto& r) { r.headers = {{"evil\r\nX", "a"}}; }) == 500);
  CHECK(broken([](auto& r) { r.headers = {{"", "evil"}}; }) == 500);
  CHECK(broken([](auto& r) { r.headers = {{"content-length", "0"}}; }) == 500);
  CHECK(broken([](auto& r) { r.type = "evil\n"; }) == 500);
  CHECK(broken([](auto& r) { r.status = 101; }) == 500);
  CHECK(broken([](auto& r) { r.status = 1000; }) == 500);
}

TEST_CASE("a reply that is dropped is a 500, and nobody waits") {
  HttpPlace at_once([](const HttpRequest&, const HttpReply&) {});
  CHECK(status_of(at_once.answer_to(kGet)) == 500);

  Kept kept;
  HttpPlace later(kept.handler());
  HttpClient client(later.port());
  client.say(kGet + kGet);
  REQUIRE(later.until([&] { return kept.replies.size() == 1; }));
  kept.replies.push_back(kept.replies[0]);
  kept.replies.erase(kept.replies.begin());  // a copy is left
  later.loop.run_until([] { return false; }, Deadline::after(Millis(20)));
  CHECK(client.heard().empty());
  kept.replies.clear();
  REQUIRE(later.is_closed(client));
  CHECK(status_of(client.heard()) == 500);
  CHECK(count_of(client.heard(), "HTTP/1.1 ") == 1);
}

TEST_CASE("a reply may outlive its connection, its server and its loop") {
  Kept kept;
  {
    HttpPlace place(kept.handler());
    HttpClient gone(place.port()), there(place.port());
    gone.say(kGet);
    REQUIRE(place.until([&] { return kept.replies.size() == 1; }));
    gone.leave();
    kept.replies[0](text(std::string(1'000'000, 'x')));
    REQUIRE(place.until([&] { return place.server->counters().open == 1; }));
    there.say(kGet);
    REQUIRE(place.until([&] { return kept.replies.size() == 2; }));
    place.server.reset();
    CHECK(there.is_closed());
    kept.replies[1](text("too late"));
    CHECK(there.heard().empty());
  }
  for (const auto& reply : kept.replies) reply({});
}

TEST_CASE("a server may be destroyed by its own handler") {
  std::unique_ptr<HttpServer>* server = nullptr;
  HttpPlace place([&](const HttpRequest& request, const HttpReply& reply) {
    reply(text("last words"));
    server->reset();
    CHECK(request.path == "/");
  });
  server = &place.server;
  HttpClient client(place.port());
  client.say(kGet + kGet);
  CHECK(place.is_closed(client));
  CHECK(!place.server);
}

TEST_CASE("a large response reaches a client that reads slowly") {
  std::string body;
  for (int i = 0; body.size() < 6'000'000; ++i) body += std::to_string(i) + " ";
  HttpPlace place([&](const HttpRequest&, const HttpReply& reply) { reply(text(body)); });
  HttpClient client(place.port(), 4096);
  client.say(kGet + kLastGet);
  REQUIRE(place.is_closed(client));
  const auto& heard = client.heard();
  CHECK(count_of(heard, "HTTP/1.1 200 OK") == 2);
  CHECK(heard.compare(heard.size() - body.size(), body.size(), body) == 0);
  CHECK(body_of(heard).compare(0, body.size(), body) == 0);
}

TEST_CASE("connections, and answers by class, are counted") {
  HttpPlace place([](const HttpRequest& request, const HttpReply& reply) {
    HttpResponse response;
    response.status = request.path == "/missing" ? 404 : 200;
    reply(std::move(response));
  });
  HttpClient client(place.port());
  client.say(kGet + kGet + "GET /missing HTTP/1.1\r\nHost: x\r\n\r\n");
  REQUIRE(place.hears(client, " 404 "));
  const auto& counters = place.server->counters();
  CHECK(counters.open == 1);
  CHECK(counters.accepted == 1);
  CHECK(counters.requests[2] == 2);
  CHECK(counters.requests[4] == 1);
  client.leave();
  CHECK(place.until([&] { return counters.open == 0; }));
}

}  // namespace
}  // namespace zx::net
