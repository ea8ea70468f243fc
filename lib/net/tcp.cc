#include "lib/net/tcp.h"

#include <optional>

namespace zx::net {

Tcp try_tcp(const std::string& address, int port, Deadline deadline) {
  constexpr Millis kAnswer{100};  // for the loop to tell of a deadline that passed
  Loop loop;
  std::optional<std::string> numeric;
  bool is_resolved = false;
  resolve(loop, address, [&](Result<std::vector<std::string>> addresses) {
    is_resolved = true;
    if (addresses) numeric = addresses->front();
  });
  loop.run_until([&] { return is_resolved; }, deadline);
  if (!numeric) return Tcp::unreachable;
  std::optional<Tcp> found;
  tcp_probe(loop, *numeric, port, deadline, [&](Tcp tcp) { found = tcp; });
  loop.run_until([&] { return found.has_value(); }, Deadline(deadline.at() + kAnswer));
  return found.value_or(Tcp::silent);
}

bool refuses_tcp(const std::string& address, int port, int tries, Millis apart, Millis span) {
  for (int i = 0; i < tries; ++i) {
    if (i > 0) pause_for(apart);
    if (try_tcp(address, port, Deadline::after(span)) != Tcp::refused) return false;
  }
  return true;
}

}  // namespace zx::net
