// Is it a whole RDB file? Looked at as it arrives, in pieces of any size and without keeping any of
// them: the structure (rdb.c of Redis 7), the end mark, the checksum, and nothing behind it. No
// value is decoded: that a server can load it, only a server can tell (throwaway.h). Pure.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "lib/base/error.h"

namespace zx::redis {

// What Redis 7.0 writes, and the newest that it reads.
inline constexpr int kNewestRdb = 10;

struct RdbSummary {
  int version = 0;
  std::uint64_t bytes = 0;
  std::uint64_t keys = 0;
  std::uint64_t expires = 0;                         // of the keys, with a time to live
  std::map<std::uint64_t, std::uint64_t> databases;  // keys of each that has some
  std::uint64_t functions = 0;                       // libraries of functions
  bool has_checksum = false;  // the server may be told to write none (rdbchecksum no)
  // What the server wrote about itself, of redis-ver, ctime, repl-id, repl-offset, …
  std::map<std::string, std::string> notes;
};

class RdbCheck {
 public:
  explicit RdbCheck(int newest = kNewestRdb) : newest_(newest) {}

  // The error says at which byte. After one, nothing more is taken.
  [[nodiscard]] Status feed(std::string_view bytes);
  // No more will come.
  [[nodiscard]] Status finish();

  [[nodiscard]] bool is_complete() const { return is_complete_; }
  // Complete only after finish(), growing until then.
  [[nodiscard]] const RdbSummary& summary() const { return summary_; }

 private:
  // What is expected next. Of several, the last is looked for first.
  enum class Want : std::uint8_t {
    bytes,      // `count` bytes of any content
    lengths,    // `count` lengths of any value
    strings,    // `count` strings
    lzf,        // the sizes and the bytes of a compressed string
    many,       // a length that says how many of `then`
    pairs,      // `count` pairs of strings
    scored,     // `count` members with their scores as text
    score,      // such a score
    weighted,   // `count` members with their scores in 8 bytes
    quicks,     // `count` nodes of a quicklist with their kind
    quick,      // such a kind
    groups,     // `count` consumer groups of a stream
    pending,    // `count` entries delivered and not acknowledged
    consumers,  // `count` consumers
    owned,      // `count` entries that a consumer owns
    module,     // values of a module up to their end
    module_when,
    database,   // the number of a database
    note_name,  // of an AUX field
    note_value,
    note_end,
  };
  struct Expected {
    Want want;
    Want then;
    std::uint64_t count;
  };
  enum class Part : std::uint8_t { magic, body, trailer };

  void push(Want want, std::uint64_t count = 1, Want then = Want::bytes);
  void many(Want then) { push(Want::many, 1, then); }
  Status take(const char*& at, const char* end);
  Status take_expected(const char*& at, const char* end);
  Status take_magic(const char*& at, const char* end);
  Status take_trailer(const char*& at, const char* end);
  Status opcode(unsigned char code);
  Status object(unsigned char type);
  bool is_known(unsigned char type) const;
  Status with_length(std::uint64_t value);
  Status each(Expected& top);
  Status string_head(const char*& at, const char* end);
  void end_note();
  // How a length went: its value, or not all of it is there yet, or it is none.
  enum class Head : std::uint8_t { whole, part, encoded, bad };
  Head read_length(const char*& at, const char* end, std::uint64_t& value);
  // At the byte that is `back` before the one reached.
  tl::unexpected<Error> bad(const std::string& what);

  int newest_;
  Part part_ = Part::magic;
  bool is_complete_ = false, has_failed_ = false, has_prefix_ = false, has_expiry_ = false;
  Error error_;
  const char* chunk_ = nullptr;  // of this feed()
  const char* reached_ = nullptr;
  std::uint64_t before_ = 0;  // bytes of all earlier feeds
  std::uint64_t crc_ = 0;
  std::array<unsigned char, 16> head_{};  // of what did not come whole
  std::size_t head_size_ = 0;
  std::array<Expected, 16> expected_{};
  std::size_t depth_ = 0;
  int stream_version_ = 1;
  std::uint64_t database_ = 0;
  std::string* capture_ = nullptr;
  std::string name_, value_;
  int value_encoding_ = -1;
  RdbSummary summary_;
};

}  // namespace zx::redis
