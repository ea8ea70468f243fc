// Numeric addresses with a port, as people write them for a server to listen on.
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string_view>

namespace zx::os {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};
// "127.0.0.1:9180" or "[::1]:9180"; absent for anything else.
[[nodiscard]] std::optional<SocketAddress> parse_socket_address(std::string_view text);

}  // namespace zx::os
