// A listening socket, by what people write for it.
#pragma once

#include <sys/types.h>

#include <string>

#include "lib/base/error.h"
#include "lib/os/files.h"

namespace zx::net {

class ListenSocket {
 public:
  // "127.0.0.1:9180", "[::1]:9180" (IPv6 only, also "[::]"), port 0 for any free one, or
  // "unix:/path/to/socket". A Unix socket has mode 0600 from the first moment; one that nobody
  // listens on any more is replaced.
  // Code::config: not of these forms, or no address of this host; locked: another process listens
  // there; auth: not permitted; io.
  [[nodiscard]] static Result<ListenSocket> open(const std::string& where);

  ListenSocket(ListenSocket&&) = default;
  ListenSocket& operator=(ListenSocket&&) = delete;
  ~ListenSocket() { close(); }
  // Also removes the Unix socket's file, unless another process has put its own there.
  void close();

  [[nodiscard]] int get() const { return socket_.get(); }  // not blocking
  [[nodiscard]] int port() const { return port_; }         // 0 of a Unix socket
  [[nodiscard]] bool is_unix() const { return !path_.empty(); }

 private:
  ListenSocket() = default;
  static Result<ListenSocket> open_unix(const std::string& path);
  static Result<ListenSocket> open_tcp(const std::string& where);

  os::Descriptor socket_;
  int port_ = 0;
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace zx::net
