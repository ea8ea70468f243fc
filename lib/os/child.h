// A process that works beside zx and ends with it.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "lib/os/process.h"

namespace zx::os {

class Child {
 public:
  // In a process group of its own; stdin is /dev/null, stdout and stderr are appended to `log`. Of
  // `options` counts who it is, where, and its environment. The kernel kills it when the thread
  // that called this ends, however zx ends.
  [[nodiscard]] static Result<Child> start(const Argv& argv, const ProcessOptions& options,
                                           const std::string& log);
  Child(Child&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), ended_(std::move(other.ended_)) {}
  Child& operator=(Child&& other) noexcept {
    std::swap(pid_, other.pid_);
    std::swap(ended_, other.ended_);
    return *this;
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { end(); }

  [[nodiscard]] pid_t pid() const { return pid_; }
  // How it ended, once it has: its exit, or the signal; the texts are in the log.
  [[nodiscard]] std::optional<ProcessResult> ended();
  // Kills it and all of its group, and waits for that.
  void end();

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_;
  std::optional<ProcessResult> ended_;
};

}  // namespace zx::os
