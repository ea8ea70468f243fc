// The bytes of a server as replies.
#include "lib/redis/reply_reader.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::redis {
namespace {

std::string spelled(const Reply& reply) {
  switch (reply.kind) {
    case Reply::Kind::nil: return "nil";
    case Reply::Kind::status: return "+" + reply.text;
    case Reply::Kind::error: return "-" + reply.text;
    case Reply::Kind::string: return "\"" + reply.text + "\"";
    case Reply::Kind::integer: return std::to_string(reply.number);
    case Reply::Kind::array: break;
  }
  std::vector<std::string> items;
  for (const auto& item : reply.items) items.push_back(spelled(item));
  return "[" + join(items, " ") + "]";
}

// All replies in `bytes`, which come in pieces of `piece`, and the defect behind them.
std::string read(std::string_view bytes, std::size_t piece, const ReplyLimits& limits = {}) {
  ReplyReader reader(limits);
  std::vector<std::string> found;
  while (!bytes.empty()) {
    reader.feed(bytes.substr(0, piece));
    bytes.remove_prefix(std::min(piece, bytes.size()));
    while (const auto reply = reader.next()) found.push_back(spelled(*reply));
  }
  if (!reader.defect().empty()) found.push_back("defect");
  return join(found, ", ");
}

TEST_CASE("replies of every kind are read, however the network cuts them") {
  struct Case {
    std::string bytes;
    std::string says;
  };
  const std::vector<Case> cases{
      {"+OK\r\n", "+OK"},
      {"-WRONGPASS no\r\n", "-WRONGPASS no"},
      {":-7\r\n", "-7"},
      {"$-1\r\n", "nil"},
      {"*-1\r\n", "nil"},
      {"$0\r\n\r\n", "\"\""},
      {"*0\r\n", "[]"},
      {"$6\r\n订单\r\n+next\r\n", "\"订单\", +next"},
      {"*3\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n*1\r\n*0\r\n", "[\"a\" [1 nil] [[]]]"},
      {"*2\r\n*1\r\n-ERR x\r\n:5\r\n:6\r\n", "[[-ERR x] 5], 6"},
      {"", ""},
      {"*2\r\n:1\r\n", ""},
  };
  for (const auto& [bytes, says] : cases) {
    const auto& given = bytes;
    CAPTURE(given);
    if (!says.empty()) CHECK(read(bytes, 1000) == says);
    for (const std::size_t piece : {1, 2, 3, 7}) CHECK(read(bytes, piece) == read(bytes, 1000));
  }
}

TEST_CASE("a string is what it is, also with zeros and line ends in it") {
  ReplyReader reader;
  reader.feed(
      std::string_view("$7\r\na\r\n\0\xff"
                       "bc\r\n",
                       13));
  const auto reply = reader.next();
  REQUIRE(reply.has_value());
  CHECK(reply->text == std::string_view("a\r\n\0\xff"
                                        "bc",
                                        7));
}

TEST_CASE("what is no reply ends the reading") {
  for (const auto* bytes :
       {"HTTP/1.1 400 Bad Request\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "\x15\x03\x03\r\n",
        "$-2\r\nx\r\n", "$99999999999999999999\r\n", "*2147483648\r\n", "*-5\r\n", "$x\r\n",
        ":\r\n", ":12x\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        "%1\r\n+a\r\n+b\r\n"}) {
    CAPTURE(bytes);
    CHECK(read(bytes, 1000) == "defect");
    CHECK(read("+OK\r\n" + std::string(bytes) + "+OK\r\n", 3) == "+OK, defect");
  }
}

TEST_CASE("a reply is bounded in bytes and in items, whatever length it announces") {
  const ReplyLimits small{1000, 10, 8};
  CHECK(read("$2000\r\n" + std::string(2000, 'x') + "\r\n", 100, small) == "defect");
  CHECK(read("*1000000\r\n", 100, small).empty());
  std::string many = "*1000000\r\n";
  for (int i = 0; i < 20; ++i) many += ":1\r\n";
  CHECK(read(many, 4, small) == "defect");
  CHECK(read("-ERR a long story\r\n", 100, small) == "-ERR a lo");
  // The limits are of one reply, not of a connection.
  std::string long_talk;
  for (int i = 0; i < 1000; ++i) long_talk += "+OK\r\n";
  CHECK(read(long_talk, 333, small).ends_with("+OK, +OK"));
}

}  // namespace
}  // namespace zx::redis
