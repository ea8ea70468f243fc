#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "lib/redis/crc64.h"
#include "lib/redis/rdb_check.h"
#include "lib/redis/rdb_stream.h"

namespace {

struct Verdict {
  bool is_good = false;
  std::uint64_t keys = 0;
  std::string message;
};

Verdict check(std::string_view file, std::size_t piece) {
  zx::redis::RdbCheck check;
  zx::Status status;
  while (!file.empty() && status) {
    status = check.feed(file.substr(0, piece));
    file.remove_prefix(std::min(piece, file.size()));
  }
  if (status) status = check.finish();
  if (check.summary().notes.size() > 32) std::abort();
  return {status.has_value(), check.summary().keys, status ? "" : status.error().message};
}

void rdb(std::string_view bytes, std::size_t piece) {
  // Behind the magic, and sealed, or nothing would ever come past the first bytes.
  auto file = "REDIS0010" + std::string(bytes) + "\xFF";
  const auto sum = zx::redis::crc64(0, file);
  if (sum != zx::redis::crc64_by_table(0, file)) std::abort();
  for (int i = 0; i < 8; ++i) file += static_cast<char>(sum >> (8 * i) & 0xFF);
  const auto whole = check(file, file.size());
  const auto pieces = check(file, piece);
  if (whole.is_good != pieces.is_good) std::abort();
  if (whole.is_good && whole.keys != pieces.keys) std::abort();
  if (!whole.is_good && whole.message.empty()) std::abort();
  (void)check(bytes, piece);
}

void answer(std::string_view bytes, std::size_t piece) {
  zx::redis::SyncReply reply;
  std::uint64_t given = 0;
  const zx::redis::RdbSink sink = [&](std::string_view part) -> zx::Status {
    given += part.size();
    return {};
  };
  while (!bytes.empty()) {
    if (!reply.feed(bytes.substr(0, piece), sink)) return;
    bytes.remove_prefix(std::min(piece, bytes.size()));
  }
  if (given != reply.bytes()) std::abort();
  if (reply.closed().has_value() != reply.is_done()) std::abort();
}

}  // namespace

// A data set and an answer to SYNC, cut into pieces as the first byte says.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const std::size_t piece = 1 + data[0] / 2;
  if (data[0] % 2 == 0)
    rdb(text, piece);
  else
    answer(text, piece);
  return 0;
}
