// Private to this room: what of a dump is not loaded, which is its subscriptions. Restored, one
// would be disabled, and would have lost how far it had received.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/base/clock.h"
#include "lib/os/files.h"
#include "lib/os/process.h"

namespace zx::backup {

class DumpLeftOut {
 public:
  // By the table of contents. Of one that pg_restore cannot read nothing is known, and the load
  // says why.
  [[nodiscard]] static Result<DumpLeftOut> read(const Repository& repository, const Object& dump,
                                                const std::string& bin_dir, Deadline until);
  DumpLeftOut() = default;
  [[nodiscard]] const std::vector<std::string>& subscriptions() const { return names_; }
  // For pg_restore, as long as this lives.
  [[nodiscard]] const os::Argv& argv() const { return argv_; }

 private:
  std::vector<std::string> names_;
  os::Descriptor list_;
  os::Argv argv_{"--no-subscriptions"};
};

// --- pure ----------------------------------------------------------------------------------

// The lines of pg_restore --list, in their order.
struct DumpLines {
  std::string of_subscriptions;  // comments and labels on them too
  std::string others;
};
[[nodiscard]] DumpLines lines_of_dump(std::string_view list);

}  // namespace zx::backup
