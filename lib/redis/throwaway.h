// A redis-server of zx's own for a moment: it loads an RDB, so that it is known to load, tells what
// is in it, and can be replicated from. It lives in a private directory and ends with zx, however
// zx ends. Nothing it does reaches a disk.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/clock.h"
#include "lib/os/child.h"
#include "lib/os/file_lock.h"
#include "lib/redis/connection.h"

namespace zx::redis {

struct ThrowawayOptions {
  std::string bin_dir = "/usr/bin";
  std::string base = "/tmp";  // its private directory is made in it, and left-over ones removed
  int databases = 16;         // an RDB with a higher number does not load
  // Another server may replicate from it, over TCP at this numeric address, as this user (empty:
  // the default one) with this password.
  struct Listen {
    std::string address, user, password;
  };
  std::optional<Listen> listen;
};

struct RdbContent {
  std::map<int, std::int64_t> databases;  // keys of each that has some
  std::int64_t keys = 0;
  std::int64_t expires = 0;  // of these, with a time to live
  std::string digest;        // DEBUG DIGEST: equal for equal data, however it is stored
};
// The keys alone, from INFO's section keyspace. Pure.
[[nodiscard]] RdbContent content_from(const std::string& info);

// Bytes that this host can give to processes without taking them from others; absent when the
// kernel does not say.
[[nodiscard]] std::optional<std::uint64_t> memory_available();

// Removes what is left in `base` of those whose zx was killed. None at work is touched.
void sweep_throwaways(const std::string& base);

class Throwaway {
 public:
  // Both return at once: the load goes on.
  [[nodiscard]] static Result<Throwaway> load_file(const ThrowawayOptions& options,
                                                   const std::string& rdb);
  // Through the FIFO stream(), see RdbFeeder. Its checksum is left to whoever gives it, see
  // RdbCheck: the server does not make it a second time.
  [[nodiscard]] static Result<Throwaway> load_stream(const ThrowawayOptions& options);
  Throwaway(Throwaway&&) noexcept;
  Throwaway& operator=(Throwaway&&) = delete;
  ~Throwaway();

  [[nodiscard]] std::string stream() const;
  // Why it ended, when it did: it ends by itself when it cannot load.
  [[nodiscard]] Status alive();
  // Code::failed with its own words when it cannot load it; timeout.
  [[nodiscard]] Status wait_loaded(Deadline deadline);
  // Once it has loaded. The digest takes about as long as the load did: without it the server only
  // counts.
  [[nodiscard]] Result<RdbContent> content(Deadline deadline, bool with_digest);
  // Begins to listen at the address of its options; returns the port. Once it has loaded. Whoever
  // replicates from it gets all of it, on a line of its own.
  [[nodiscard]] Result<int> listen(Deadline deadline);
  // For any other question.
  [[nodiscard]] Target target() const;
  [[nodiscard]] pid_t pid() const;

 private:
  struct Impl;
  explicit Throwaway(std::unique_ptr<Impl> impl);
  static Result<Throwaway> start(const ThrowawayOptions& options, const std::string& rdb);
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::redis
