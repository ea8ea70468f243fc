#include "lib/coord/lock.h"

#include "lib/os/file_lock.h"
#include "lib/os/files.h"

namespace zx::coord {
namespace {

class FileLease final : public Lease {
 public:
  explicit FileLease(os::FileLock lock) : lock_(std::move(lock)) {}
  // The kernel keeps the lock until its descriptor is closed: it cannot be lost.
  Status check() override { return {}; }

 private:
  os::FileLock lock_;
};

std::string path_of(const std::string& state_dir, const std::string& name) {
  return state_dir + "/locks/" + name + ".lock";
}

}  // namespace

Status is_free(const std::string& state_dir, const std::string& name) {
  return os::FileLock::is_free(path_of(state_dir, name));
}

Result<std::unique_ptr<Lease>> take_file_lock(const std::string& state_dir, const std::string& name,
                                              const std::string& about_me) {
  ZX_TRY(os::make_directories(state_dir + "/locks"));
  auto lock = os::FileLock::take(path_of(state_dir, name), about_me);
  if (!lock) {
    auto error = lock.error();
    if (error.code == Code::disk_full)
      error.hint = "free space there, or set platform.state_dir to another disk";
    return fail(error);
  }
  return std::make_unique<FileLease>(*std::move(lock));
}

}  // namespace zx::coord
