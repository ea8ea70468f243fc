#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "lib/config/config.h"
#include "lib/config/render.h"

// Any text gives a Config or an Error; a Config survives being written and read again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto config = zx::config::load_text(text, "/etc/zx/zx.toml");
  if (!config) {
    if (config.error().code != zx::Code::config || config.error().message.empty()) std::abort();
    return 0;
  }
  const auto again = zx::config::load_text(zx::config::render(*config), "/etc/zx/zx.toml");
  if (!again || !(*again == *config)) std::abort();
  return 0;
}
