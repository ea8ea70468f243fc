#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/json.h"
#include "lib/pg/data_dir.h"
#include "lib/pg/facts.h"

// What another host says, and what is asked of this one: nothing of it is run here.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto json = zx::parse_json({reinterpret_cast<const char*>(data), size}, "the text");
  if (!json) return 0;
  (void)zx::dump_line(zx::pg::to_json(zx::pg::local_from_json(*json)));
  (void)zx::pg::data_dir_from_json(*json);
  (void)zx::dump_line(zx::to_json(zx::error_from_json(*json)));
  return 0;
}
