#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "lib/coord/etcd_client.h"
#include "lib/coord/vote_book.h"

// What answers on the port of etcd, and what others have written there.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (zx::coord::from_base64(zx::coord::to_base64(text)) != std::string(text)) std::abort();
  if (const auto bytes = zx::coord::from_base64(text))
    if (zx::coord::to_base64(*bytes) != text) std::abort();
  (void)zx::coord::read_vote(std::string(text), 1);
  const auto answer = zx::coord::read_etcd_answer(200, text);
  if (!answer) return 0;
  zx::coord::EtcdSeen seen;
  (void)seen.accept(seen.newest(), *answer, true);
  (void)zx::coord::read_txn(*answer);
  return 0;
}
