// The answer to SYNC, however the network cuts it.
#include <string>
#include <string_view>

#include "lib/redis/rdb_stream.h"
#include "tests/support.h"

namespace zx::redis {
namespace {

const std::string kMark = "0123456789abcdef0123456789abcdef01234567";

struct Heard {
  Status status;
  std::string rdb;
  bool is_done = false;
  std::optional<std::uint64_t> announced;
};

// `stays`: the server keeps the connection open, as it does behind a whole answer.
Heard hear(std::string_view answer, std::size_t piece, bool stays = false) {
  SyncReply reply;
  Heard heard;
  const RdbSink sink = [&](std::string_view bytes) -> Status {
    heard.rdb.append(bytes);
    return {};
  };
  while (!answer.empty() && heard.status && !reply.is_done()) {
    heard.status = reply.feed(answer.substr(0, piece), sink);
    answer.remove_prefix(std::min(piece, answer.size()));
  }
  if (heard.status && !stays) heard.status = reply.closed();
  heard.is_done = reply.is_done();
  heard.announced = reply.announced();
  CHECK(reply.bytes() == heard.rdb.size());
  return heard;
}

TEST_CASE("a copy of an announced length, behind empty lines while the server saves") {
  for (std::size_t piece = 1; piece < 20; ++piece) {
    const auto heard = hear("\n\n\n$10\r\n0123456789", piece);
    CHECK(heard.status.has_value());
    CHECK(heard.rdb == "0123456789");
    CHECK(heard.announced == 10);
  }
}

TEST_CASE("what follows the announced length is not part of the copy") {
  CHECK(hear("$3\r\nabc*1\r\n$4\r\nPING\r\n", 1000).rdb == "abc");
}

TEST_CASE("a copy that ends by its mark, wherever the pieces are cut") {
  for (const std::string& rdb :
       {std::string("x"), std::string(39, 'a'), std::string(40, 'b'), std::string(200, 'c'),
        kMark.substr(0, 39) + "!" + kMark.substr(0, 20)})
    for (std::size_t piece = 1; piece <= 130; ++piece) {
      CAPTURE(piece);
      const auto heard = hear("\n$EOF:" + kMark + "\r\n" + rdb + kMark, piece);
      CHECK(heard.status.has_value());
      CHECK(heard.rdb == rdb);
      CHECK_FALSE(heard.announced.has_value());
    }
}

TEST_CASE("what follows the mark is not part of the copy, even in the same piece") {
  for (std::size_t piece = 1; piece <= 130; ++piece)
    CHECK(hear("$EOF:" + kMark + "\r\n" + std::string(60, 'r') + kMark + "\n", piece).rdb ==
          std::string(60, 'r'));
}

TEST_CASE("a copy that ends early is an error that says how far it came") {
  const auto message = [](const std::string& answer) {
    const auto heard = hear(answer, 7);
    REQUIRE_FALSE(heard.status.has_value());
    CHECK_FALSE(heard.is_done);
    return heard.status.error().message;
  };
  CHECK(message("").find("before it sent its data set") != std::string::npos);
  CHECK(message("\n\n").find("before it sent its data set") != std::string::npos);
  CHECK(message("$10\r\n01234").find("after 5 of 10 bytes") != std::string::npos);
  CHECK(message("$EOF:" + kMark + "\r\nREDIS" + kMark.substr(0, 39)).find("after 44 bytes") !=
        std::string::npos);
}

TEST_CASE("what is no answer to SYNC is refused") {
  const auto refused = [](const std::string& answer) {
    const auto heard = hear(answer, 1000, true);
    REQUIRE_MESSAGE(!heard.status.has_value(), answer);
    CHECK(heard.rdb.empty());
    return heard.status.error();
  };
  CHECK(refused("$99999999999999999\r\nx").message.find("absurd length") != std::string::npos);
  CHECK(refused("$99999999999999999999999\r\nx").message.find("no length") != std::string::npos);
  CHECK(refused("$0\r\n").message.find("absurd length") != std::string::npos);
  CHECK(refused("$-1\r\n").message.find("no length") != std::string::npos);
  CHECK(refused("$EOF:short\r\n").message.find("end mark") != std::string::npos);
  CHECK(refused("HTTP/1.1 400 Bad Request\r\n").message.find("HTTP/1.1 400") != std::string::npos);
  CHECK(refused(std::string(5000, 'x')).message.find("without an end") != std::string::npos);
  const auto link = refused("-NOMASTERLINK Can't SYNC while not connected with my master\r\n");
  CHECK(link.code == Code::server);
  CHECK(link.hint.find("another replica") != std::string::npos);
  CHECK(refused("-NOPERM this user has no permissions\r\n").code == Code::auth);
  CHECK(refused("-ERR \x1b[31mred\r\n").message.find('\x1b') == std::string::npos);
}

TEST_CASE("an error of whoever takes the copy ends it") {
  SyncReply reply;
  const auto full = reply.feed(
      "$5\r\nabcde", [](std::string_view) -> Status { return fail(Code::disk_full, "no space"); });
  REQUIRE_FALSE(full.has_value());
  CHECK(full.error().code == Code::disk_full);
}

}  // namespace
}  // namespace zx::redis
