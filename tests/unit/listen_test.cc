// Where servers of ours listen: addresses, and sockets in the file system.
#include "lib/net/listen.h"

#include <sys/stat.h>

#include "tests/support.h"
#include "tests/unit/http_client.h"

namespace zx::net {
namespace {

using test::HttpClient;
using test::HttpPlace;

const std::string kLastGet = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

void say_peer(const HttpRequest& request, const HttpReply& reply) {
  HttpResponse response;
  response.body = request.peer;
  reply(std::move(response));
}

Error error_of(const std::string& where) {
  auto opened = ListenSocket::open(where);
  REQUIRE_MESSAGE(!opened.has_value(), where);
  CHECK(!opened.error().hint.empty());
  return opened.error();
}

TEST_CASE("what is not a place to listen is said to be none") {
  for (const std::string where :
       {"", "9180", "localhost:9180", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
        "127.0.0.1:-1", "127.0.0.1:80 ", "::1:9180", "[::1]", "[::1:9180", "[]:1", ":9180",
        "[127.0.0.1]:1", "unix:", "unix:relative"})
    CHECK_MESSAGE(error_of(where).code == Code::config, where);
  CHECK(error_of("192.0.2.1:0").code == Code::config);
}

TEST_CASE("a port that is taken is another process's") {
  const auto first = ListenSocket::open("127.0.0.1:0");
  REQUIRE(first.has_value());
  CHECK(first->port() > 0);
  const auto error = error_of("127.0.0.1:" + std::to_string(first->port()));
  CHECK(error.code == Code::locked);
  CHECK(error.message.find(std::to_string(first->port())) != std::string::npos);
}

TEST_CASE("IPv6 does not take the port of IPv4 with it") {
  const auto v6 = ListenSocket::open("[::]:0");
  if (!v6) {
    MESSAGE("no IPv6 here: " << v6.error().message);
    return;
  }
  CHECK(ListenSocket::open("0.0.0.0:" + std::to_string(v6->port())).has_value());
}

TEST_CASE("a Unix socket is the owner's alone, and goes with its server") {
  const test::Directory dir;
  const auto path = dir / "zx.sock";
  const auto umask_before = umask(0);
  HttpPlace place(say_peer, {}, "unix:" + path);
  umask(umask_before);
  struct stat file {};
  REQUIRE(lstat(path.c_str(), &file) == 0);
  CHECK(S_ISSOCK(file.st_mode));
  CHECK((file.st_mode & 07777) == 0600);
  CHECK(place.port() == 0);

  HttpClient client(path);
  client.say(kLastGet);
  REQUIRE(place.is_closed(client));
  CHECK(test::body_of(client.heard()) == "unix");

  const auto error = error_of("unix:" + path);
  CHECK(error.code == Code::locked);
  CHECK(error.message.find("another process listens on unix:" + path) != std::string::npos);
  CHECK(os::exists(path));
  place.server.reset();
  CHECK(!os::exists(path));
}

TEST_CASE("a socket that its process has left behind is replaced, anything else is not") {
  const test::Directory dir;
  const auto path = dir / "zx.sock";
  {
    os::Descriptor dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(listen(dead.get(), 1) == 0);
  }
  REQUIRE(os::exists(path));
  {
    HttpPlace place(say_peer, {}, "unix:" + path);
    HttpClient client(path);
    client.say(kLastGet);
    CHECK(place.is_closed(client));
    CHECK(test::status_of(client.heard()) == 200);
  }
  test::write(path, "precious");
  CHECK(error_of("unix:" + path).code == Code::refused);
  CHECK(test::read(path) == "precious");
}

TEST_CASE("a server that ends leaves the socket that another has put in its place") {
  const test::Directory dir;
  const auto path = dir / "zx.sock";
  auto first = ListenSocket::open("unix:" + path);
  REQUIRE(first.has_value());
  REQUIRE(unlink(path.c_str()) == 0);
  auto second = ListenSocket::open("unix:" + path);
  REQUIRE(second.has_value());
  first->close();
  CHECK(os::exists(path));
  second->close();
  CHECK(!os::exists(path));
}

TEST_CASE("a path that does not fit, or whose directory is missing, is said so") {
  const test::Directory dir;
  const auto at_most = dir.path() + "/" + std::string(107 - dir.path().size() - 1, 'a');
  CHECK(ListenSocket::open("unix:" + at_most).has_value());
  const auto error = error_of("unix:" + at_most + "a");
  CHECK(error.code == Code::config);
  CHECK(error.message.find("108 bytes") != std::string::npos);
  CHECK(error_of("unix:" + (dir / "missing/zx.sock")).code == Code::io);
}

}  // namespace
}  // namespace zx::net
