#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "lib/backup/files_index.h"

namespace {

// What an index of the bytes says, in pieces of at most `size` bytes.
std::string read_all(std::string_view bytes, std::size_t size, bool& is_whole) {
  zx::backup::IndexReader reader([&]() -> zx::Result<std::string_view> {
    const auto piece = bytes.substr(0, size);
    bytes.remove_prefix(piece.size());
    return piece;
  });
  std::string lines, last;
  zx::backup::IndexEntry entry;
  while (true) {
    const auto has = reader.next(entry);
    if (!has && has.error().message.empty()) std::abort();
    is_whole = has && !*has;
    if (!has || !*has) break;
    if (!zx::backup::is_tree_path(entry.path)) std::abort();
    if (!last.empty() && !zx::backup::comes_before(last, entry.path)) std::abort();
    last = entry.path;
    append_line(lines, entry);
  }
  return is_whole ? zx::backup::index_head(reader.begun_ns()) + lines : lines;
}

}  // namespace

// Any bytes give entries in their order or an Error, however they come; a whole index is what its
// entries write again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  bool is_whole = false, is_again = false;
  const auto all = read_all(bytes, bytes.size() + 1, is_whole);
  if (read_all(bytes, 1 + data[0] % 64, is_again) != all || is_again != is_whole) std::abort();
  if (is_whole && all != bytes) std::abort();
  return 0;
}
