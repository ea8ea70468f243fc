// The locks of a repository: bytes of its file `lock`, between hosts too where the file system has
// locks (NFS 4 has).
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>

#include "lib/base/clock.h"
#include "lib/os/files.h"
#include "lib/os/signals.h"

namespace zx::backup {

// Of a call that failed in a repository, with what to do about it.
[[nodiscard]] Error repository_error(const std::string& what, const std::string& path, int number);

class RepositoryLock {
 public:
  enum class Byte { writers, readers, checks };
  struct Wish {
    std::string path;  // of the file
    Byte byte = Byte::writers;
    bool is_shared = false;
    std::string about = {};               // who holds it, for people
    std::optional<os::Owner> owner = {};  // of a file that root makes
  };
  // Code::locked, naming the holder; not_found when it is to be shared and there is no file and
  // none can be made. The kernel ends it with its holder.
  [[nodiscard]] static Result<RepositoryLock> take(const Wish& wish);

  // Code::locked when it was lost: somebody removed or replaced the file, or the server of the file
  // system gave it to another. To be asked before what cannot be taken back.
  [[nodiscard]] Status is_held() const;

 private:
  RepositoryLock(std::string path, os::Descriptor file)
      : path_(std::move(path)), file_(std::move(file)) {}
  std::string path_;
  os::Descriptor file_;
};

// How long a command waits for what another holds, and whom it tells.
struct LockWait {
  Deadline until = Deadline::after(Millis(0));
  std::function<void(const std::string& holder)> on_wait = {};  // once
};

// Takes what `take` does, again and again while it is locked. Ends with a signal, too.
template <class Take>
auto take_patiently(const LockWait& wait, const Take& take) -> decltype(take()) {
  constexpr Millis kLookAgain{200};
  for (bool is_told = false;; is_told = true) {
    auto taken = take();
    if (taken || taken.error().code != Code::locked || wait.until.passed()) return taken;
    if (auto signal = os::interruption()) return fail(*std::move(signal));
    if (!is_told && wait.on_wait) wait.on_wait(taken.error().message);
    pause_for(std::min(kLookAgain, wait.until.left()));
  }
}

}  // namespace zx::backup
