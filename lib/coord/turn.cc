#include "lib/coord/turn.h"

#include <pwd.h>
#include <unistd.h>

#include <array>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/json.h"
#include "lib/base/text.h"
#include "lib/os/host_name.h"

namespace zx::coord {

TurnHolder turn_holder(const std::string& command) {
  std::array<char, 4096> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  const bool is_named =
      getpwuid_r(geteuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr;
  return {command,    os::host_name(),
          getpid(),   is_named ? std::string(entry.pw_name) : std::to_string(geteuid()),
          wall_now(), random_hex(8)};
}

std::string write_turn(const TurnHolder& holder) {
  return dump_line({{"command", holder.command},
                    {"host", holder.host},
                    {"pid", holder.pid},
                    {"user", holder.user},
                    {"since", format_utc(holder.since)},
                    {"id", holder.id}});
}

Error turn_held(const std::string& name, const std::string& text, Wall now) {
  Error error{Code::locked, {}, "wait for it to end; a killed one gives way by itself", {}, false};
  const auto json = parse_json(text, "a turn");
  const auto command = json ? first_line(get_string(*json, "command")) : std::string();
  const auto host = json ? first_line(get_string(*json, "host")) : std::string();
  if (command.empty() || host.empty()) {
    error.message = fmt::format("another run is at work on {}: {}", name, first_line(text));
    return error;
  }
  error.message = fmt::format("{} on host {} (pid {}, since {}) is at work on {}", command, host,
                              get_int(*json, "pid"),
                              format_local(parse_utc(get_string(*json, "since")), now), name);
  error.hint = fmt::format(
      "wait for it to end, or look at it on {}: zx runs list; a killed one gives way by itself",
      host);
  return error;
}

}  // namespace zx::coord
