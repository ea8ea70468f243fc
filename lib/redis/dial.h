// A socket on its way to one address.
#pragma once

#include <string>

#include "lib/os/files.h"
#include "lib/redis/connection.h"

namespace zx::redis {

struct Dialled {
  os::Descriptor socket;  // non-blocking; none when `error` is set
  bool is_connected = false;
  int error = 0;  // errno
};
// `address` is numeric, or a path when it begins with a slash. Never blocks.
[[nodiscard]] Dialled dial(const std::string& address, int port);
// What has become of it once it is writable: errno, 0 when it is connected.
[[nodiscard]] int error_on(int socket);

// What an errno of connecting says about who is there. Pure.
[[nodiscard]] Failure failure_of_connect(int error);

}  // namespace zx::redis
