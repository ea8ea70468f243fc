// A lock between processes of one host. The kernel drops it when its holder dies, however it dies.
#pragma once

#include <string>

#include "lib/base/error.h"
#include "lib/os/files.h"

namespace zx::os {

class FileLock {
 public:
  // Code::locked at once when another process holds it; the message then has what the holder wrote
  // about itself.
  [[nodiscard]] static Result<FileLock> take(const std::string& path, const std::string& about_me);
  // The error that take() would give now; takes nothing, and is in nobody's way.
  [[nodiscard]] static Status is_free(const std::string& path);

 private:
  explicit FileLock(Descriptor file) : file_(std::move(file)) {}
  Descriptor file_;
};

}  // namespace zx::os
