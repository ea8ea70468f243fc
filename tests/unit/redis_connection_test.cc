// What a server, or what stands in its place, says: why there is no answer.
#include "lib/redis/connection.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "tests/fake_redis.h"
#include "tests/support.h"

namespace zx::redis {
namespace {

using test::FakePeer;
using test::FakeRedis;

constexpr Millis kLong{20'000};
constexpr Millis kShort{150};

TEST_CASE("the first word of an error reply says why") {
  CHECK(classify("WRONGPASS invalid username-password pair or user is disabled.") == Failure::auth);
  CHECK(classify("NOAUTH Authentication required.") == Failure::auth);
  CHECK(classify("ERR AUTH <password> called without any password configured for the default "
                 "user. Are you sure your configuration is correct?") == Failure::auth);
  CHECK(classify("NOPERM this user has no permissions to run the 'info' command") ==
        Failure::permission);
  CHECK(classify("DENIED Redis is running in protected mode") == Failure::protected_mode);
  CHECK(classify("ERR max number of clients reached") == Failure::too_many_clients);
  CHECK(classify("LOADING Redis is loading the dataset in memory") == Failure::loading);
  CHECK(classify("MASTERDOWN Link with MASTER is down") == Failure::master_down);
  CHECK(classify("READONLY You can't write against a read only replica.") == Failure::read_only);
  CHECK(classify("MISCONF Redis is configured to save RDB snapshots") == Failure::misconf);
  CHECK(classify("OOM command not allowed when used memory > 'maxmemory'.") ==
        Failure::out_of_memory);
  CHECK(classify("NOREPLICAS Not enough good replicas to write.") == Failure::no_replicas);
  CHECK(classify("BUSY Redis is busy running a script.") == Failure::busy);
  CHECK(classify("BUSYKEY Target key name already exists.") == Failure::error);
  CHECK(classify("ERR unknown command") == Failure::error);
  CHECK(classify("") == Failure::error);
}

TEST_CASE("every failure has a name of its own that leads back to it") {
  for (int i = 0; i <= static_cast<int>(Failure::error); ++i) {
    const auto failure = static_cast<Failure>(i);
    CHECK(failure_named(name_of(failure)) == failure);
    CHECK(std::string(says(failure)) != "");
  }
  CHECK(failure_named("none of them") == Failure::error);
}

Failed why_not_open(const Target& target, Millis span = kLong) {
  const auto client = Client::open(target, Deadline::after(span));
  REQUIRE_FALSE(client.has_value());
  return client.error();
}

TEST_CASE("a server that turns zx away says why, and the password is in no message") {
  struct Case {
    const char* answers;
    Failure why;
  };
  const std::vector<Case> cases{
      {"-WRONGPASS invalid username-password pair or user is disabled.\r\n+OK\r\n", Failure::auth},
      {"-ERR AUTH <password> called without any password configured for the default user.\r\n",
       Failure::auth},
      {"+OK\r\n-NOAUTH Authentication required.\r\n", Failure::auth},
      {"-ERR max number of clients reached\r\n", Failure::too_many_clients},
      {"-DENIED Redis is running in protected mode because protected mode is enabled\r\n",
       Failure::protected_mode},
      {"-ERR unknown command 'AUTH', with args beginning with: 's3cret' \r\n", Failure::error},
      {"-ERR s3cret is wrong\r\n", Failure::error},
      {"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n", Failure::not_redis},
      {"\x15\x03\x03\x00\x02\x02", Failure::not_redis},
      {"", Failure::broken},
  };
  for (const auto& one : cases) {
    CAPTURE(one.answers);
    const FakeRedis server([&](FakePeer& peer) {
      peer.next();
      peer.say(one.answers);
      shutdown(peer.fd(), SHUT_WR);
      peer.wait_for_end();
    });
    const auto failed = why_not_open(server.target("s3cret"));
    CHECK_MESSAGE(failed.why == one.why, failed.error.message);
    const auto error = error_of(server.target("s3cret"), failed);
    CHECK(error.message.starts_with(fmt::format("redis-a (127.0.0.1:{}): ", server.port())));
    CHECK(error.message.find("s3cret") == std::string::npos);
    CHECK(failed.reply.find("s3cret") == std::string::npos);
  }
}

TEST_CASE("refused, silent and missing are told apart") {
  SUBCASE("nothing listens") {
    int port = 0;
    {
      const FakeRedis server([](FakePeer&) {});
      port = server.port();
    }
    Target target;
    target.address = "127.0.0.1";
    target.port = port;
    CHECK(why_not_open(target).why == Failure::refused);
    target.address = "localhost";
    CHECK(why_not_open(target).why == Failure::refused);
  }
  SUBCASE("it accepts and is silent") {
    const FakeRedis server([](FakePeer& peer) { peer.wait_for_end(); });
    const auto failed = why_not_open(server.target(), kShort);
    CHECK(failed.why == Failure::silent);
    CHECK(failed.error.code == Code::timeout);
  }
  SUBCASE("a Unix socket that is not there") {
    const test::Directory directory;
    Target target;
    target.address = directory / "redis.sock";
    CHECK(why_not_open(target).why == Failure::refused);
  }
}

TEST_CASE("an ACL that forbids CLIENT keeps nobody out") {
  const FakeRedis server([](FakePeer& peer) {
    peer.next();
    peer.say("-NOPERM this user has no permissions to run the 'client|setname' command\r\n");
    peer.next();
    peer.say("+PONG\r\n");
    peer.wait_for_end();
  });
  auto client = Client::open(server.target(), Deadline::after(kLong));
  REQUIRE(client.has_value());
  const auto pong = client->command({"PING"}, Deadline::after(kLong));
  REQUIRE(pong.has_value());
  CHECK(pong->text == "PONG");
}

// A connection on a loop of the test's own.
struct Opened {
  net::Loop loop;
  Connection::Pointer connection;
  explicit Opened(const Target& target) {
    std::optional<Outcome<Connection::Pointer>> outcome;
    Connection::open(loop, target, Deadline::after(kLong),
                     [&](Outcome<Connection::Pointer> result) { outcome = std::move(result); });
    loop.run_until([&] { return outcome.has_value(); }, Deadline::after(kLong));
    REQUIRE(outcome.has_value());
    REQUIRE(outcome->has_value());
    connection = **outcome;
  }
};

TEST_CASE("several commands are out at once, and an error of one leaves the others") {
  const FakeRedis server([](FakePeer& peer) {
    peer.welcome();
    for (int i = 0; i < 3; ++i) peer.next();
    // In pieces, as a network may have it.
    for (const auto* piece : {"$6\r\n订", "单\r", "\n-ERR no", " such thing\r\n*1\r\n:", "7\r\n"})
      peer.say(piece);
    peer.wait_for_end();
  });
  Opened opened(server.target());
  std::vector<std::string> heard;
  for (int i = 0; i < 3; ++i)
    opened.connection->command({"GET", std::to_string(i)}, Deadline::after(kLong),
                               [&](const Outcome<Reply>& reply) {
                                 if (!reply)
                                   heard.push_back(reply.error().reply);
                                 else if (reply->kind == Reply::Kind::array)
                                   heard.push_back(std::to_string(reply->items.at(0).number));
                                 else
                                   heard.push_back(reply->text);
                               });
  opened.loop.run_until([&] { return heard.size() == 3; }, Deadline::after(kLong));
  CHECK(heard == std::vector<std::string>{"订单", "ERR no such thing", "7"});
}

TEST_CASE("after a deadline all that is out fails, and nothing more can be asked") {
  const FakeRedis server([](FakePeer& peer) {
    peer.welcome();
    peer.wait_for_end();
  });
  Opened opened(server.target());
  std::vector<Failure> heard;
  const auto hear = [&](const Outcome<Reply>& reply) {
    heard.push_back(reply ? Failure::none : reply.error().why);
  };
  opened.connection->command({"PING"}, Deadline::after(kLong), hear);
  opened.connection->command({"PING"}, Deadline::after(kShort), hear);
  opened.loop.run_until([&] { return heard.size() == 2; }, Deadline::after(kLong));
  opened.connection->command({"PING"}, Deadline::after(kLong), hear);
  opened.loop.run_until([&] { return heard.size() == 3; }, Deadline::after(kLong));
  CHECK(heard == std::vector<Failure>{Failure::silent, Failure::silent, Failure::broken});
}

TEST_CASE("the end of a held connection is told once, by whoever waits") {
  bool says_something = false;
  SUBCASE("it just ends") {}
  SUBCASE("it speaks without being asked") { says_something = true; }
  const FakeRedis server([&](FakePeer& peer) {
    peer.welcome();
    peer.next();
    if (says_something)
      peer.say("+PONG\r\n+PONG\r\n");
    else
      peer.say("+PONG\r\n");
  });
  Opened opened(server.target());
  int ends = 0, answers = 0;
  opened.connection->on_end([&] { ++ends; });
  opened.connection->command({"PING"}, Deadline::after(kLong),
                             [&](const Outcome<Reply>& reply) { answers += reply ? 1 : 100; });
  opened.loop.run_until([&] { return ends > 0; }, Deadline::after(kLong));
  CHECK(answers == 1);
  CHECK(ends == 1);
  std::optional<Failure> after;
  opened.connection->command({"PING"}, Deadline::after(kLong), [&](const Outcome<Reply>& reply) {
    after = reply ? Failure::none : reply.error().why;
  });
  opened.loop.run_until([&] { return after.has_value(); }, Deadline::after(kLong));
  CHECK(after == Failure::broken);
  CHECK(ends == 1);
}

TEST_CASE("messages of a subscription come beside the answers") {
  const FakeRedis server([](FakePeer& peer) {
    peer.welcome();
    const auto words = peer.next();
    peer.say("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    peer.say("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$6\r\n消息\r\n");
    peer.say("*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n");
    peer.next();
    peer.say("*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nb\r\n$3\r\ntwo\r\n");
    peer.say("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    peer.wait_for_end();
  });
  Opened opened(server.target());
  std::vector<std::string> heard;
  opened.connection->on_message([&](const std::string& channel, const std::string& text) {
    heard.push_back(channel + "=" + text);
  });
  const auto hear = [&](const Outcome<Reply>& reply) {
    heard.push_back(reply ? reply->items.at(0).text : "failed");
  };
  opened.connection->command({"SUBSCRIBE", "a", "b"}, Deadline::after(kLong), hear);
  opened.connection->command({"PING"}, Deadline::after(kLong), hear);
  opened.loop.run_until([&] { return heard.size() == 4; }, Deadline::after(kLong));
  CHECK(heard == std::vector<std::string>{"a=消息", "subscribe", "b=two", "pong"});
}

TEST_CASE("a command that the server does not know is not repeated with its arguments") {
  const FakeRedis server([](FakePeer& peer) {
    peer.welcome();
    peer.next();
    peer.say(
        "-ERR unknown command 'CONFIG', with args beginning with: 'SET' 'masterauth' 's3c'\r\n");
    peer.wait_for_end();
  });
  auto client = Client::open(server.target(), Deadline::after(kLong));
  REQUIRE(client.has_value());
  const auto reply =
      client->command({"CONFIG", "SET", "masterauth", "s3c"}, Deadline::after(kLong));
  REQUIRE_FALSE(reply.has_value());
  CHECK(reply.error().error.message == "ERR unknown command 'CONFIG'");
  CHECK(reply.error().reply == "ERR unknown command 'CONFIG'");
}

}  // namespace
}  // namespace zx::redis
