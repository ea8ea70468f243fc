// The event loop: timers and file descriptors, all callbacks on the one thread that runs it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/error.h"

namespace zx::net {

class Loop {
 public:
  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Runs callbacks until none is outstanding.
  void run();
  // Runs callbacks until `done` says so (asked after each), nothing is outstanding, or the
  // deadline.
  void run_until(const std::function<bool()>& done, Deadline deadline);
  void post(std::function<void()> work);

  struct Impl;
  [[nodiscard]] const std::shared_ptr<Impl>& impl() const { return impl_; }

 private:
  std::shared_ptr<Impl> impl_;  // shared with name lookups that may outlive the loop
};

// Calls back once at the deadline, unless cancelled or destroyed before.
class Timer {
 public:
  explicit Timer(Loop& loop);
  ~Timer();
  void at(Deadline deadline, std::function<void()> fire);
  void cancel();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Waits on a descriptor that somebody else owns and closes (libpq's socket). Calls back at most
// once for each arm(), and never for one before the last; destroying it forgets the wait and leaves
// the descriptor open.
class Watch {
 public:
  enum class For { read, write };
  Watch(Loop& loop, int descriptor);
  ~Watch();
  void arm(For what, std::function<void()> ready);
  void arm_both(std::function<void()> ready);  // whichever comes first

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Numeric addresses are answered at once, names are looked up on another thread: a hanging resolver
// delays neither the loop nor the end of the process. While it hangs or fails, a name has the
// addresses that this process found for it last. The callback gets at least one address, or
// Code::unreachable. Not called when the loop has gone.
void resolve(Loop& loop, const std::string& host,
             std::function<void(Result<std::vector<std::string>>)> done);

// What a bare TCP connection attempt to a numeric address found.
enum class Tcp { accepted, refused, unreachable, silent };
void tcp_probe(Loop& loop, const std::string& address, int port, Deadline deadline,
               std::function<void(Tcp)> done);

}  // namespace zx::net
