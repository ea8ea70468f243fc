// An RDB over the wire: what a server sends a replica that asks for SYNC.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "lib/base/clock.h"
#include "lib/redis/connection.h"

namespace zx::redis {

// Gets the bytes of the RDB in order. An Error ends the transfer.
using RdbSink = std::function<Status(std::string_view)>;

// The answer to SYNC, as it arrives in pieces of any size: empty lines while the server saves, then
// `$LENGTH` and so many bytes, or `$EOF:` with 40 random bytes that stand at the end again. Pure.
class SyncReply {
 public:
  // Of an announced length; a server that says more is not believed.
  static constexpr std::uint64_t kMostBytes = 1ULL << 46;

  [[nodiscard]] Status feed(std::string_view bytes, const RdbSink& sink);
  // The server closed the connection: an Error unless all had come.
  [[nodiscard]] Status closed() const;

  [[nodiscard]] bool is_done() const { return part_ == Part::done; }
  [[nodiscard]] bool has_begun() const { return part_ != Part::preamble; }
  [[nodiscard]] std::optional<std::uint64_t> announced() const { return announced_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  enum class Part { preamble, counted, marked, done };
  Status preamble(const std::string& line);
  Status marked(std::string_view bytes, const RdbSink& sink);
  Status give(std::string_view bytes, const RdbSink& sink);

  Part part_ = Part::preamble;
  std::string line_;
  std::optional<std::uint64_t> announced_;
  std::string mark_;
  std::string held_;  // the last bytes, which may be the beginning of the mark
  std::uint64_t bytes_ = 0;
};

struct PullOptions {
  Millis connect_within{5'000};
  Millis idle{60'000};  // without a byte of it, or of an empty line while the server saves
  Deadline until = Deadline::after(Millis(24 * 3'600'000));
  // Called when the length is known, before the first byte is given on; not when it ends by a mark.
  std::function<Status(std::uint64_t)> on_length;
  // What a server from before 6.2 does not know: then it counts the reader among its replicas, and
  // keeps its writes for it meanwhile.
  bool rdb_only = true;
};

struct Pulled {
  std::uint64_t bytes = 0;
  bool was_announced = false;  // by its length, not by a mark
  Millis waited{0};            // until the first byte: the server forks, or saves to its disk
  Millis took{0};              // in all
};

// Asks for a whole copy and gives it to `sink`. Blocks; ends at once when zx is interrupted. The
// server forks for it. For a master's INFO, and so for Sentinel, the reader is a replica with the
// port 0, which Sentinel never forgets: ask a replica.
// Code::unreachable, timeout, auth, server (it refuses), failed (a copy that is cut short or is no
// answer), or what `sink` said.
[[nodiscard]] Result<Pulled> pull_rdb(const Target& target, const PullOptions& options,
                                      const RdbSink& sink);

}  // namespace zx::redis
