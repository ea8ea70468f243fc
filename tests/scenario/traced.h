// zx under strace, which kills or halts it in a chosen system call.
#pragma once

#include <stdlib.h>

#include <string>
#include <vector>

#include "lib/os/process.h"

namespace zx::test {

// LeakSanitizer cannot work in a process that is traced.
inline os::ProcessOptions traced() {
  os::ProcessOptions options;
  const char* given = getenv("ASAN_OPTIONS");
  const auto kept = given != nullptr ? std::string(given) + ":" : std::string();
  options.environment = {{"ASAN_OPTIONS", kept + "detect_leaks=0"}, {"HOME", "/nonexistent"}};
  options.directory = "/";
  return options;
}

// zx with `inject` (strace's) for its main thread; servers and tools that it starts are not traced.
inline os::Argv argv_under(const std::string& config, const std::string& inject,
                           const std::vector<std::string>& words) {
  os::Argv argv{"strace",  "-qq", "-o",  "/dev/null", "-e", "signal=none", "--inject=" + inject,
                ZX_BINARY, "-c",  config};
  argv.insert(argv.end(), words.begin(), words.end());
  return argv;
}

}  // namespace zx::test
