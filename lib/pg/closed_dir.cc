#include "lib/pg/closed_dir.h"

#include <fmt/format.h>

#include "lib/os/files.h"

namespace zx::pg {
namespace {

std::string version_path(const DataDir& dir) { return dir.path + "/PG_VERSION"; }

// A server that had read PG_VERSION before it went enters its directory a moment later.
constexpr Millis kEnters{20};

}  // namespace

Result<std::string> close_dir(const DataDir& dir) {
  ZX_ASSIGN(auto version, os::read_file(version_path(dir), 100));
  const Json marker{{"node", dir.node}, {"at", format_utc(wall_now())}};
  ZX_TRY(os::write_file(marker_path(dir), dump_line(marker) + "\n"));
  ZX_TRY(os::remove_file(version_path(dir)));
  pause_for(kEnters);
  const auto running = server_processes(dir);
  if (running && running->empty()) return version;
  ZX_TRY(open_dir(dir, version));
  if (!running) return fail(running.error());
  return fail(Code::locked,
              fmt::format("{} was started by somebody else meanwhile (process {})", dir.node,
                          running->front().pid),
              "keep its supervisor from starting it, or name it: \"service\", or \"start\" and "
              "\"stop\", of the node in zx.toml");
}

Status open_dir(const DataDir& dir, const std::string& version) {
  ZX_ASSIGN(const auto user, owner_of(dir));
  os::WriteOptions options;
  options.mode = 0600;
  options.owner = os::Owner{user.uid, user.gid};
  ZX_TRY(os::write_file(version_path(dir), version, options));
  return os::remove_file(marker_path(dir));
}

}  // namespace zx::pg
