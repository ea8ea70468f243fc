// Manifests and trust records of a repository, which may come from anywhere.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "lib/backup/set.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = zx::parse_json(text, "it");
  if (!json) return 0;
  if (const auto set = zx::backup::set_from_json(*json)) {
    for (const auto& object : set->objects())
      if (!zx::backup::is_object_path(object.path, set->id)) std::abort();
    const auto again = zx::backup::set_from_json(zx::backup::to_json(*set));
    if (!again || again->bytes() != set->bytes() || again->parts() != set->parts()) std::abort();
  }
  if (const auto check = zx::backup::check_from_json(*json))
    if (!zx::backup::check_from_json(zx::backup::to_json(*check))) std::abort();
  return 0;
}
