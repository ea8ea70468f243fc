#include "lib/net/listen.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "lib/base/clock.h"
#include "lib/os/socket_address.h"

namespace zx::net {
namespace {

constexpr int kBacklog = SOMAXCONN;
constexpr Millis kTurnWithin{1'000};

Error cannot_listen(const std::string& where, int number) {
  auto error = errno_error(Code::io, "cannot listen on " + where, number);
  switch (number) {
    case EADDRINUSE:
      error.code = Code::locked;
      error.hint = "another process listens there: end it, or choose another port (ss -ltnp)";
      break;
    case EADDRNOTAVAIL:
      error.code = Code::config;
      error.hint = "no interface of this host has the address (ip address)";
      break;
    case EACCES:
    case EPERM:
      error.code = Code::auth;
      error.hint =
          "a port below 1024 wants root or CAP_NET_BIND_SERVICE, a Unix socket a directory "
          "that may be written";
      break;
    case ENOENT:
    case ENOTDIR: error.hint = "make the directory first"; break;
    default: break;
  }
  return error;
}

Result<os::Descriptor> new_socket(int family, const std::string& where) {
  os::Descriptor socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail(cannot_listen(where, errno));
  return socket;
}

bool set_option(const os::Descriptor& socket, int level, int option) {
  const int on = 1;
  return setsockopt(socket.get(), level, option, &on, sizeof on) == 0;
}

// Two processes that start at once must not both take the file for a leftover. The kernel drops the
// lock with the descriptor.
Result<os::Descriptor> take_turn(const std::string& directory) {
  os::Descriptor turn(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!turn) return fail(cannot_listen("a socket in " + directory, errno));
  const auto deadline = Deadline::after(kTurnWithin);
  while (flock(turn.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR)
      return fail(errno_error(Code::io, "cannot lock " + directory, errno));
    if (deadline.passed())
      return fail(Code::locked, "another process holds a lock on " + directory,
                  "find it with fuser, or use a directory of zx's own");
    pause_for(Millis(10));
  }
  return turn;
}

// Removes the socket of a process that has gone; refuses anything else.
Status clear_leftover(const std::string& path, const sockaddr_un& address) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0)
    return errno == ENOENT ? Status{} : fail(cannot_listen("unix:" + path, errno));
  if (!S_ISSOCK(found.st_mode))
    return fail(Code::refused, path + " is there and is not a socket",
                "choose another path, or remove it when nothing needs it");
  ZX_ASSIGN(const auto probe, new_socket(AF_UNIX, "unix:" + path));
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
      errno == EAGAIN || errno == EINPROGRESS)
    return fail(Code::locked, "another process listens on unix:" + path,
                "end it, or choose another path");
  if (errno != ECONNREFUSED) return fail(cannot_listen("unix:" + path, errno));
  if (unlink(path.c_str()) != 0 && errno != ENOENT)
    return fail(errno_error(errno == EACCES || errno == EPERM ? Code::auth : Code::io,
                            "cannot replace the socket " + path, errno));
  return {};
}

}  // namespace

Result<ListenSocket> ListenSocket::open(const std::string& where) {
  constexpr std::string_view kUnix = "unix:";
  if (where.rfind(kUnix, 0) == 0) return open_unix(where.substr(kUnix.size()));
  return open_tcp(where);
}

Result<ListenSocket> ListenSocket::open_tcp(const std::string& where) {
  const auto address = os::parse_socket_address(where);
  if (!address)
    return fail(Code::config, "cannot listen on " + where + ": not a numeric address and a port",
                "write 127.0.0.1:9180, [::1]:9180 or unix:/path/to/socket");
  ListenSocket made;
  const int family = address->storage.ss_family;
  ZX_ASSIGN(made.socket_, new_socket(family, where));
  // Accepted sockets inherit TCP_NODELAY.
  if (!set_option(made.socket_, SOL_SOCKET, SO_REUSEADDR) ||
      !set_option(made.socket_, IPPROTO_TCP, TCP_NODELAY) ||
      (family == AF_INET6 && !set_option(made.socket_, IPPROTO_IPV6, IPV6_V6ONLY)))
    return fail(cannot_listen(where, errno));
  if (bind(made.get(), reinterpret_cast<const sockaddr*>(&address->storage), address->size) != 0 ||
      listen(made.get(), kBacklog) != 0)
    return fail(cannot_listen(where, errno));
  os::SocketAddress bound;
  bound.size = sizeof bound.storage;
  if (getsockname(made.get(), reinterpret_cast<sockaddr*>(&bound.storage), &bound.size) != 0)
    return fail(cannot_listen(where, errno));
  made.port_ =
      ntohs(family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(bound.storage).sin6_port
                               : reinterpret_cast<const sockaddr_in&>(bound.storage).sin_port);
  return made;
}

Result<ListenSocket> ListenSocket::open_unix(const std::string& path) {
  const auto where = "unix:" + path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.front() != '/')
    return fail(Code::config, "cannot listen on " + where + ": not an absolute path",
                "write unix:/path/to/socket");
  if (path.size() >= sizeof address.sun_path)
    return fail(Code::config,
                "cannot listen on " + where + ": the path has " + std::to_string(path.size()) +
                    " bytes, a socket's may have " + std::to_string(sizeof address.sun_path - 1),
                "choose a shorter path");
  std::memcpy(address.sun_path, path.data(), path.size());

  ZX_ASSIGN(const auto turn, take_turn(os::parent_of(path)));
  ZX_TRY(clear_leftover(path, address));
  ListenSocket made;
  ZX_ASSIGN(made.socket_, new_socket(AF_UNIX, where));
  // The file that bind() makes takes the mode of the socket, less the umask.
  if (fchmod(made.get(), 0600) != 0 ||
      bind(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail(cannot_listen(where, errno));
  made.path_ = path;
  struct stat file {};
  if (lstat(path.c_str(), &file) != 0 || listen(made.get(), kBacklog) != 0)
    return fail(cannot_listen(where, errno));
  made.device_ = file.st_dev;
  made.inode_ = file.st_ino;
  return made;
}

void ListenSocket::close() {
  if (!socket_) return;
  struct stat file {};
  // A path that cannot be removed is a leftover that the next open() replaces.
  if (is_unix() && lstat(path_.c_str(), &file) == 0 && file.st_dev == device_ &&
      file.st_ino == inode_)
    (void)unlink(path_.c_str());
  socket_.close();
}

}  // namespace zx::net
