#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "cli/app.h"
#include "lib/os/signals.h"

namespace {

// A parent may have closed stdin, stdout or stderr. The next socket would then take that number
// and receive what is printed, so something that refuses the other direction takes it first.
void occupy_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd)
    if (::fcntl(fd, F_GETFD) < 0) (void)::open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

// What a shell has set up for psql would have libpq connect to another server than zx.toml names.
void forget_services() {
  for (const char* name : {"PGSERVICE", "PGSERVICEFILE", "PGHOSTADDR"}) (void)unsetenv(name);
}

}  // namespace

int main(int count, char** words) {
  occupy_standard_descriptors();
  forget_services();
  zx::os::catch_signals();
  try {
    zx::cli::Application application;
    return application.run({words + (count > 0 ? 1 : 0), words + count});
  } catch (const std::exception& error) {  // the tree of commands contradicts itself
    std::fprintf(stderr, "zx: internal: %s\n", error.what());
    return 1;
  }
}
