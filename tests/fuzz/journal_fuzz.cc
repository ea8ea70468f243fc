#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "lib/run/journal.h"

// Any text gives a run or an Error; a plan survives being written and read again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto record = zx::run::parse_run(text, "20261124T031243-a1f3");
  if (!record) {
    if (record.error().message.empty()) std::abort();
    return 0;
  }
  if (!zx::run::plan_from_json(zx::run::to_json(record->plan))) std::abort();
  return 0;
}
