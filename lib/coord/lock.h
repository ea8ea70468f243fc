// Who may act. One run at a time on one thing, such as "pg.main".
#pragma once

#include <memory>
#include <string>

#include "lib/base/error.h"

namespace zx::coord {

class Lease {
 public:
  virtual ~Lease() = default;
  // Is it still ours? Asked before every step.
  [[nodiscard]] virtual Status check() = 0;
  // Somebody waits for it whose run is more urgent; as known now, never waits.
  [[nodiscard]] virtual bool is_wanted() const { return false; }
  // Why nothing but the lock of this host was taken, on a person's word that nobody else is at
  // work; empty otherwise.
  [[nodiscard]] virtual std::string alone_because() const { return {}; }
};

// By a file in state_dir/locks of this host: enough when all runs start on one host. Code::locked,
// at once, when another process holds it.
[[nodiscard]] Result<std::unique_ptr<Lease>> take_file_lock(const std::string& state_dir,
                                                            const std::string& name,
                                                            const std::string& about_me);
// The error that take_file_lock() would give now; takes nothing.
[[nodiscard]] Status is_free(const std::string& state_dir, const std::string& name);

}  // namespace zx::coord
