#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "lib/net/http_reader.h"

namespace {

using zx::net::HttpReader;

// The requests that the reader makes of the bytes when they come in pieces of at most `piece`.
std::string read_all(std::string_view bytes, std::size_t piece) {
  HttpReader reader(512, 4096);
  std::string seen;
  for (;;) {
    const auto step = reader.parse();
    // When a broken request is refused, and so with what status, depends on how much of it is
    // there.
    if (step == HttpReader::Step::refused) return seen;
    if (step == HttpReader::Step::ready) {
      const auto& request = reader.request();
      seen.append(request.method).append(" ").append(request.target).append(" ");
      seen.append(request.path).append("\n");
      for (const auto& [key, value] : request.query) seen.append(key + "=" + value + "\n");
      for (const auto& [name, value] : request.headers)
        seen.append(name).append(": ").append(value).append("\n");
      seen.append(request.body).append(reader.keep_alive() ? "\nkept\n" : "\nlast\n");
      if (!reader.keep_alive()) return seen;
      reader.next();
      continue;
    }
    const auto room = reader.room();
    if (room.empty()) std::abort();
    if (bytes.empty()) return seen;
    const auto count = std::min({bytes.size(), room.size(), piece});
    std::memcpy(room.data(), bytes.data(), count);
    bytes.remove_prefix(count);
    reader.filled(count);
  }
}

}  // namespace

// What a client says: the same requests, however the network cuts its bytes.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  const auto whole = read_all(bytes, bytes.size() + 1);
  if (read_all(bytes, 1 + data[0] % 64) != whole) std::abort();
  return 0;
}
