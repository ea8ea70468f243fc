#include "lib/os/host_name.h"

#include <unistd.h>

#include <array>

#include "lib/base/text.h"

namespace zx::os {

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return clean_utf8(name.data());
}

}  // namespace zx::os
