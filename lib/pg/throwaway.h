// A PostgreSQL server of zx's own for a moment: dumps are loaded into it, and it is asked. It has a
// private directory, listens on a Unix socket in it alone, and ends with zx, however zx ends.
// Nothing it does is synced: what is in it is lost with the host.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/clock.h"
#include "lib/os/process.h"
#include "lib/pg/connection.h"

namespace zx::pg {

struct ThrowawayOptions {
  std::string bin_dir = "/usr/lib/postgresql/15/bin";
  std::string base = "/tmp";  // its private directory is made in it, and left-over ones removed
  // The superuser that initdb makes; everybody is let in as whoever they say. A name that no dump
  // has: a dump's own roles are then made as they were.
  std::string superuser = "zx_throwaway";
  int connections = 20;
  std::uint64_t shared_buffers = 256ULL << 20;  // bytes, as the next
  std::uint64_t maintenance_work_mem = 256ULL << 20;
};

// Whom such a server runs as: postgres when zx is root, nobody where there is none; absent:
// oneself. PostgreSQL refuses to run as root.
[[nodiscard]] Result<std::optional<os::User>> server_user();
// Code::auth, naming the directory, when that user cannot enter `path` or a directory above it.
[[nodiscard]] Status check_enterable(const std::string& path, const std::optional<os::User>& user);

// Removes what is left in `base` of those whose zx was killed, and ends what still runs of them.
// None at work is touched.
void sweep_throwaways(const std::string& base);

class Throwaway {
 public:
  // Accepts connections when it returns. It ends with the thread that called this, too.
  // Code::not_found without PostgreSQL's programs, auth when their user cannot enter `base`,
  // config when the path of `base` is too long for a socket, failed with its own words, timeout,
  // interrupted.
  [[nodiscard]] static Result<Throwaway> start(const ThrowawayOptions& options, Deadline deadline);
  Throwaway(Throwaway&&) noexcept;
  Throwaway& operator=(Throwaway&&) = delete;
  // Ends it at once, and removes its directory.
  ~Throwaway();

  // As the superuser. The address is the directory of the socket.
  [[nodiscard]] Target target(const std::string& database = "postgres") const;
  // Why it ended, when it did. With a deadline it is waited for that: whoever noticed a broken
  // connection may be a little early.
  [[nodiscard]] Status alive();
  [[nodiscard]] Status alive_until(Deadline deadline);
  [[nodiscard]] const std::string& directory() const;
  [[nodiscard]] pid_t pid() const;

 private:
  struct Impl;
  explicit Throwaway(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::pg
