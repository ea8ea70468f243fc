#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "lib/base/json.h"
#include "lib/redis/info.h"
#include "lib/redis/reply_reader.h"

namespace {

using zx::redis::NodeFacts;
using zx::redis::Reply;
using zx::redis::ReplyLimits;
using zx::redis::ReplyReader;
using zx::redis::SentinelFacts;

constexpr ReplyLimits kSmall{4096, 256, 64};

std::size_t size_of(const Reply& reply) {
  std::size_t size = 1;
  for (const auto& item : reply.items) size += size_of(item);
  return size;
}

void use(const Reply& reply) {
  if (size_of(reply) > kSmall.items) std::abort();
  NodeFacts facts;
  zx::redis::read_config(reply, facts);
  (void)zx::dump_line(zx::redis::to_json(facts));
  SentinelFacts sentinel;
  sentinel.failure = zx::redis::Failure::none;
  (void)zx::redis::read_master(reply, sentinel);
  zx::redis::read_replicas(reply, sentinel);
  zx::redis::Outcome<Reply> quorum = reply;
  if (reply.kind == Reply::Kind::error)
    quorum = tl::unexpected(zx::redis::Failed{zx::redis::classify(reply.text), {}, reply.text});
  zx::redis::read_quorum(quorum, sentinel);
  (void)zx::dump_line(zx::redis::to_json(sentinel));
}

// However the network cuts the bytes, they are the same replies.
std::size_t read_in_pieces(std::string_view bytes, std::size_t piece) {
  ReplyReader reader(kSmall);
  std::size_t replies = 0;
  while (!bytes.empty() && reader.defect().empty()) {
    reader.feed(bytes.substr(0, piece));
    bytes.remove_prefix(std::min(piece, bytes.size()));
    while (const auto reply = reader.next()) {
      ++replies;
      use(*reply);
    }
  }
  return replies;
}

void info(std::string_view text) {
  NodeFacts facts;
  if (!zx::redis::read_info(text, facts)) return;
  (void)zx::dump_line(zx::redis::to_json(facts));
  if (!zx::redis::is_same_line(facts.lineage, facts.lineage) &&
      facts.lineage.replid.find_first_not_of('0') != std::string::npos)
    std::abort();
}

}  // namespace

// What a Redis server or a Sentinel says, by the parser that the first byte chooses.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 3) {
    case 0: info(text); break;
    case 1:
      if (text.size() <= kSmall.bytes && read_in_pieces(text, 1) != read_in_pieces(text, 7))
        std::abort();
      break;
    default: {
      const auto json = zx::parse_json(text, "the text");
      if (json) (void)zx::dump_line(zx::redis::to_json(zx::redis::local_from_json(*json)));
      break;
    }
  }
  return 0;
}
