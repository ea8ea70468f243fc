#include "lib/net/local_address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "lib/os/files.h"

namespace zx::net {

Result<std::string> local_address_towards(const std::string& address) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_DGRAM;  // connecting it only asks the routes
  addrinfo* list = nullptr;
  if (getaddrinfo(address.c_str(), "9", &hints, &list) != 0)
    return fail(Code::unreachable, address + " is no numeric address");
  const os::Descriptor socket(::socket(list->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const int connected = socket ? ::connect(socket.get(), list->ai_addr, list->ai_addrlen) : -1;
  const int number = errno;
  freeaddrinfo(list);
  if (connected != 0)
    return fail(errno_error(Code::unreachable, "no way from here to " + address, number));
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  char text[NI_MAXHOST];
  if (getsockname(socket.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0 ||
      getnameinfo(reinterpret_cast<const sockaddr*>(&own), size, text, sizeof text, nullptr, 0,
                  NI_NUMERICHOST) != 0)
    return fail(Code::io, "this host does not know its own address towards " + address);
  return std::string(text);
}

}  // namespace zx::net
