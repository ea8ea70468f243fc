// The structure of RDB files, written out byte by byte. What real servers write: the scenario
// rdb_test.
#include "lib/redis/rdb_check.h"

#include <string>
#include <utility>
#include <vector>

#include "lib/redis/crc64.h"
#include "tests/support.h"

namespace zx::redis {
namespace {

using std::string_literals::operator""s;

std::string number64(std::uint64_t value) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(value >> (8 * i) & 0xFF);
  return text;
}

std::string sealed(const std::string& body, const std::string& version = "0010") {
  auto file = "REDIS" + version + body + "\xFF";
  return file + number64(crc64(0, file));
}

struct Seen {
  Status status;
  RdbSummary summary;
};
Seen look(std::string_view file, std::size_t piece = 1 << 20, int newest = kNewestRdb) {
  RdbCheck check(newest);
  Seen seen;
  while (!file.empty() && seen.status) {
    seen.status = check.feed(file.substr(0, piece));
    file.remove_prefix(std::min(piece, file.size()));
  }
  if (seen.status) seen.status = check.finish();
  seen.summary = check.summary();
  return seen;
}

// One key "k" of that type.
std::string key(int type, const std::string& value) {
  return std::string(1, static_cast<char>(type)) + "\x01k" + value;
}

const std::string kId(16, 'i');
const std::string kTime(8, 't');

const std::vector<std::pair<const char*, std::string>> kValues{
    {"a string", key(0, "\x05hello")},
    {"a number of one byte", key(0, "\xC0\x7F")},
    {"a number of two bytes", key(0, "\xC1\x01\x02")},
    {"a number of four bytes", key(0, "\xC2\x01\x02\x03\x04")},
    {"a compressed string", key(0, "\xC3\x03\x40\x64\x01\x02\x03")},
    {"a string with a length of 14 bits", key(0, "\x41\x00"s + std::string(256, 'x'))},
    {"a string with a length of 32 bits", key(0, "\x80\x00\x00\x00\x02xy"s)},
    {"a string with a length of 64 bits", key(0, "\x81\x00\x00\x00\x00\x00\x00\x00\x02xy"s)},
    {"an empty string", key(0, "\x00"s)},
    {"a list", key(1, "\x02\x01x\x01y")},
    {"a set", key(2, "\x02\x01x\x01y")},
    {"a sorted set with scores as text", key(3,
                                             "\x03\x01x\x03"
                                             "1.5\x01y\xFE\x01z\xFD")},
    {"a hash", key(4, "\x02\x01x\x01y\x01X\x01Y")},
    {"a sorted set", key(5, "\x02\x01x"s + kTime + "\x01y" + kTime)},
    {"a module's value", key(7, "\x81\x01\x02\x03\x04\x05\x06\x07\x08\x01\x05\x02\x06\x03"s +
                                    "ffff\x04" + kTime + "\x05\x02hi" + "\x00"s)},
    {"a zipmap", key(9, "\x03zzz")},
    {"a ziplist as a list", key(10, "\x03zzz")},
    {"an intset", key(11, "\x03zzz")},
    {"a ziplist as a sorted set", key(12, "\x03zzz")},
    {"a ziplist as a hash", key(13, "\x03zzz")},
    {"a quicklist", key(14, "\x02\x03zzz\x03zzz")},
    {"a stream of Redis 5",
     key(15, "\x01\x01n\x02ll\x02\x01\x02\x01\x01g\x01\x02\x01"s + kId + kTime +
                 "\x03\x01\x01"
                 "c" +
                 kTime + "\x01" + kId)},
    {"a listpack as a hash", key(16, "\x03zzz")},
    {"a listpack as a sorted set", key(17, "\x03zzz")},
    {"a quicklist of Redis 7", key(18, "\x02\x01\x03zzz\x02\x03zzz")},
    {"a stream of Redis 7",
     key(19, "\x01\x01n\x02ll\x02\x01\x02\x01\x02\x03\x04\x05\x01\x01g\x01\x02\x09\x01"s + kId +
                 kTime +
                 "\x03\x01\x01"
                 "c" +
                 kTime + "\x01" + kId)},
};

TEST_CASE("the checksum is that of Redis, also by folding, at every length") {
  CHECK(crc64(0, "123456789") == 0xE9C6D914C4B8D9CAULL);
  std::string text;
  for (int i = 0; i < 3000; ++i) text += static_cast<char>(i * 7 + i / 251);
  for (std::size_t size = 0; size <= 700; ++size)
    for (const std::size_t from : {0, 1, 13})
      CHECK(crc64(size * 3, std::string_view(text).substr(from, size)) ==
            crc64_by_table(size * 3, std::string_view(text).substr(from, size)));
  const auto half = crc64(0, std::string_view(text).substr(0, 1111));
  CHECK(crc64(half, std::string_view(text).substr(1111)) == crc64_by_table(0, text));
}

TEST_CASE("every type of value is passed over, in pieces of any size") {
  for (const auto& value : kValues) {
    CAPTURE(value.first);
    const auto file = sealed("\xFE\x00"s + value.second + "\x00\x01z\x01z"s);
    for (const std::size_t piece : {1, 2, 3, 7, 1000}) {
      const auto seen = look(file, piece);
      REQUIRE_MESSAGE(seen.status.has_value(), seen.status.error().message);
      CHECK(seen.summary.keys == 2);
      CHECK(seen.summary.bytes == file.size());
      CHECK(seen.summary.has_checksum);
    }
  }
}

TEST_CASE("a file that was cut short anywhere is none") {
  std::string body =
      "\xFA\x09redis-ver\x06"
      "7.0.15\xFE\x00\xFB\x02\x00"s;
  for (const auto& [what, bytes] : kValues) body += bytes;
  const auto file = sealed(body);
  REQUIRE(look(file).status.has_value());
  for (std::size_t size = 0; size < file.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(look(std::string_view(file).substr(0, size)).status.has_value());
  }
}

TEST_CASE("a byte that flipped anywhere is found") {
  std::string body =
      "\xFA\x09redis-ver\x06"
      "7.0.15\xFE\x00\xFB\x02\x00"s;
  for (const auto& [what, bytes] : kValues) body += bytes;
  const auto file = sealed(body);
  for (std::size_t at = 0; at < file.size(); ++at)
    for (const int bit : {0, 3, 7}) {
      auto flipped = file;
      flipped[at] = static_cast<char>(flipped[at] ^ 1 << bit);
      CAPTURE(at);
      CAPTURE(bit);
      CHECK_FALSE(look(flipped).status.has_value());
    }
}

TEST_CASE("it counts the keys of each database, and those with a time to live") {
  const auto file =
      sealed("\xFE\x00"s + key(0, "\x01x") + "\xFC" + kTime + "\xF8\x09" + key(0, "\x01x") +
             "\xFE\x40\xC8" + "\xFD" + "tttt" + "\xF9\x05" + key(0, "\x01x") + "\xF5\x03lib");
  const auto seen = look(file);
  REQUIRE_MESSAGE(seen.status.has_value(), seen.status.error().message);
  CHECK(seen.summary.keys == 3);
  CHECK(seen.summary.expires == 2);
  CHECK(seen.summary.functions == 1);
  CHECK(seen.summary.databases == std::map<std::uint64_t, std::uint64_t>{{0, 2}, {200, 1}});
}

TEST_CASE("it tells what the server noted about itself, numbers too") {
  const auto file = sealed(
      "\xFA\x09redis-ver\x06"
      "7.0.15\xFA\x0brepl-offset\xC2\x40\x42\x0F\x00"s +
      "\xFA\x0a"
      "aof-base\x1b[\xC0\x00"s +
      "\xFA\x03tmp\xC1\xFF\xFF");
  const auto notes = look(file, 1).summary.notes;
  CHECK(notes.at("redis-ver") == "7.0.15");
  CHECK(notes.at("repl-offset") == "1000000");
  CHECK(notes.at("tmp") == "-1");
  CHECK(notes.contains("aof-base ["));  // no control character
}

TEST_CASE("an error says what is wrong, and at which byte") {
  const auto message = [](const std::string& file, int newest = kNewestRdb) {
    const auto seen = look(file, 1000, newest);
    REQUIRE_FALSE(seen.status.has_value());
    return seen.status.error().message;
  };
  const auto has = [](const std::string& text, const std::string& part) {
    CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  };
  has(message(""), "it is empty");
  has(message("ELF"), "at byte 0");
  has(message("REDISxx10"), "no version");
  has(message("REDIS0011\xFF"), "of a newer version: 11, and 10 is the newest");
  has(message("REDIS0010\xFE\x00"s), "ends at byte 11, before its end mark");
  has(message(sealed("") + "\n"), "1 byte more than it has at byte 18");
  has(message(sealed("") + std::string(4096, '\0')), "bytes more than it has");
  has(message(sealed("").substr(0, 15)), "ends at byte 15, within its checksum");
  has(message(sealed(std::string(1, 99))), "no such type of value, 99, at byte 9");
  has(message(sealed(key(20, "\x01x"))), "no such type of value, 20,");
  has(message(sealed(key(6, "\x01x"))), "a module's value");
  has(message(sealed("\xF6\x01x")), "a function as only");
  has(message(sealed(key(0, "\xC4"))), "no such encoding of a string, 4,");
  has(message(sealed(key(0, "\x82"))), "no length");
  has(message(sealed(key(1, "\x81\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"))), "an absurd number");
  has(message(sealed(key(18, "\x01\x03\x01x"))), "no such kind of a list's node");
  has(message(sealed("\xFC" + kTime)), "a time to live without a key");
  auto wrong = sealed(key(0, "\x01x"));
  wrong[13] = 'y';
  has(message(wrong), "its checksum");
  // Zeros behind a file have the checksum of it all: they are noticed all the same.
  const auto padded = sealed("") + std::string(8, '\0');
  CHECK(crc64(0, padded) == 0);
  has(message(padded), "8 bytes more");
}

TEST_CASE("what Redis 7.2 writes is read when it may be") {
  const auto set = sealed(key(20, "\x03zzz"), "0011");
  CHECK(look(set, 1, 11).status.has_value());
  const auto stream =
      sealed(key(21, "\x01\x01n\x02ll\x02\x01\x02\x01\x02\x03\x04\x05\x01\x01g\x01\x02\x09\x01"s +
                         kId + kTime +
                         "\x03\x01\x01"
                         "c" +
                         kTime + kTime + "\x01" + kId),
             "0011");
  const auto seen = look(stream, 5, 11);
  CHECK_MESSAGE(seen.status.has_value(), (seen.status ? "" : seen.status.error().message));
}

TEST_CASE("a file without a checksum is told from one with it") {
  auto file = sealed(key(0, "\x01x"));
  file.replace(file.size() - 8, 8, std::string(8, '\0'));
  const auto seen = look(file);
  CHECK(seen.status.has_value());
  CHECK_FALSE(seen.summary.has_checksum);
  // Before version 5 there is no place for one.
  const auto old = look("REDIS0004" + key(0, "\x01x") + "\xFF");
  CHECK(old.status.has_value());
  CHECK_FALSE(old.summary.has_checksum);
}

TEST_CASE("what a module says outside of the keys is passed over") {
  const auto file = sealed("\xF7\x05\x02\x01\x05\x02hi\x00"s + key(0, "\x01x"));
  CHECK(look(file, 1).summary.keys == 1);
  CHECK_FALSE(look(sealed("\xF7\x05\x03\x01\x00"s)).status.has_value());
}

TEST_CASE("a file of very many databases is refused rather than remembered") {
  std::string body;
  for (int i = 0; i < 70'000; ++i)
    body += "\xFE\x80"s + static_cast<char>(0) + static_cast<char>(i >> 16) +
            static_cast<char>(i >> 8) + static_cast<char>(i) + key(0, "\x01x");
  const auto seen = look(sealed(body));
  REQUIRE_FALSE(seen.status.has_value());
  CHECK(seen.status.error().message.find("more than 65536 databases") != std::string::npos);
}

// Of tests/fuzz/make-redis-seeds: from broken ones the fuzz target would never come far.
TEST_CASE("the data sets that the fuzz target begins with are whole") {
  const auto seed = [](const std::string& name) {
    return test::read(std::string(ZX_SOURCE_DIR) + "/tests/fuzz/seeds/rdb_fuzz/" + name).substr(1);
  };
  for (const auto& one : {std::pair{"every-type", 19}, {"every-large-type", 19}, {"modules", 1}}) {
    const auto [name, keys] = one;
    CAPTURE(one.first);
    const auto seen = look(sealed(seed(name)));
    CHECK_MESSAGE(seen.status.has_value(), (seen.status ? "" : seen.status.error().message));
    CHECK(seen.summary.keys == static_cast<std::uint64_t>(keys));
  }
  CHECK(look(sealed(seed("every-type"))).summary.functions == 1);
}

}  // namespace
}  // namespace zx::redis
