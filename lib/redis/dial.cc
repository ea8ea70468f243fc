#include "lib/redis/dial.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace zx::redis {
namespace {

Dialled dial_to(int family, const sockaddr* address, socklen_t size) {
  Dialled dialled;
  dialled.socket = os::Descriptor(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!dialled.socket) {
    dialled.error = errno;
    return dialled;
  }
  if (family != AF_UNIX) {
    const int on = 1;  // commands are small and waited for
    setsockopt(dialled.socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (connect(dialled.socket.get(), address, size) == 0)
    dialled.is_connected = true;
  else if (errno != EINPROGRESS)
    dialled.error = errno;
  if (dialled.error != 0) dialled.socket.close();
  return dialled;
}

}  // namespace

Dialled dial(const std::string& address, int port) {
  if (address.starts_with('/')) {
    sockaddr_un local{};
    local.sun_family = AF_UNIX;
    if (address.size() >= sizeof local.sun_path) return {{}, false, ENAMETOOLONG};
    std::copy(address.begin(), address.end(), local.sun_path);
    return dial_to(AF_UNIX, reinterpret_cast<const sockaddr*>(&local), sizeof local);
  }
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &wanted, &list) != 0)
    return {{}, false, EINVAL};
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> found(list, &freeaddrinfo);
  return dial_to(found->ai_family, found->ai_addr, found->ai_addrlen);
}

int error_on(int socket) {
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

Failure failure_of_connect(int error) {
  switch (error) {
    case 0: return Failure::none;
    case ECONNREFUSED:
    case ENOENT: return Failure::refused;  // of a Unix socket: no such file
    case ETIMEDOUT:
    case EAGAIN: return Failure::no_answer;  // of a Unix socket: its queue is full
    case ECONNRESET: return Failure::broken;
    case EACCES:
    case EPERM: return Failure::permission;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS: return Failure::error;
    default: return Failure::no_route;
  }
}

}  // namespace zx::redis
