// Copies a server's data set over the wire into a file, and checks nothing: what
// scripts/bench/redis-backup measures the transport by. Usage: rdb_pull PORT FILE
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "lib/os/new_file.h"
#include "lib/redis/rdb_stream.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  zx::redis::Target target;
  target.address = "127.0.0.1";
  target.port = std::atoi(argv[1]);
  auto file = zx::os::NewFile::create(argv[2]);
  const auto copied = !file ? zx::Status(zx::fail(file.error())) : [&]() -> zx::Status {
    ZX_TRY(zx::redis::pull_rdb(target, {},
                               [&](std::string_view bytes) { return file->write(bytes); }));
    return file->publish();
  }();
  if (copied) return 0;
  std::fprintf(stderr, "rdb_pull: %s\n", copied.error().message.c_str());
  return 1;
}
