// Manifests and trust records of a repository, which may come from anywhere.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <string_view>

#include "lib/backup/set.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = zx::parse_json(text, "it");
  if (!json) return 0;
  if (const auto set = zx::backup::set_from_json(*json)) {
    for (const auto& object : set->objects())
      if (!zx::backup::is_object_path(object.path, set->id)) std::abort();
    const auto written = zx::backup::to_json(*set);
    const auto again = zx::backup::set_from_json(written);
    if (!again || zx::backup::to_json(*again) != written) std::abort();
    // Nothing of a manifest makes a line of its own for sha256sum.
    const auto sums = zx::backup::checksum_file_of(*set, "");
    if (std::count(sums.begin(), sums.end(), '\n') != std::ssize(set->objects()) + 1) std::abort();
  }
  if (const auto check = zx::backup::check_from_json(*json)) {
    const auto written = zx::backup::to_json(*check);
    const auto again = zx::backup::check_from_json(written);
    if (!again || zx::backup::to_json(*again) != written) std::abort();
  }
  return 0;
}
