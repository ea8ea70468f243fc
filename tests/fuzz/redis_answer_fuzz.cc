#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "lib/base/json.h"
#include "lib/redis/backup.h"
#include "lib/redis/events.h"
#include "lib/redis/info.h"
#include "lib/redis/place_rdb.h"
#include "lib/redis/reply_reader.h"
#include "lib/redis/server_dir.h"

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
  const auto content = zx::redis::content_from(std::string(text));
  if (content.keys < 0 || content.databases.size() > text.size()) std::abort();
  NodeFacts facts;
  if (!zx::redis::read_info(text, facts)) return;
  (void)zx::dump_line(zx::redis::to_json(facts));
  if (!zx::redis::is_same_line(facts.lineage, facts.lineage) &&
      facts.lineage.replid.find_first_not_of('0') != std::string::npos)
    std::abort();
}

// What is written to a configuration file is what a server, and zx, will read in it.
void config(std::string_view text) {
  (void)zx::redis::data_files_in(text);
  const zx::redis::Follows wanted{"10.0.0.7", 6380};
  const auto changed = zx::redis::with_follows(text, wanted);
  if (zx::redis::follows_in(changed) != wanted) std::abort();
  if (zx::redis::with_follows(changed, wanted) != changed) std::abort();
  if (zx::redis::follows_in(zx::redis::with_follows(text, std::nullopt))) std::abort();
}

void json(std::string_view text) {
  const auto json = zx::parse_json(text, "the text");
  if (!json) return;
  (void)zx::dump_line(zx::redis::to_json(zx::redis::local_from_json(*json)));
  (void)zx::redis::server_dir_from_json(*json);
  if (const auto record = zx::redis::record_from_json(*json))
    (void)zx::dump_line(zx::redis::to_json(*record));
}

// Channel and text of a message.
void message(std::string_view text) {
  const auto space = text.substr(0, text.find(' '));
  const auto rest = text.substr(std::min(text.size(), space.size() + 1));
  if (const auto event = zx::redis::sentinel_event("10.0.0.1:26379", {}, space, rest, "shop"))
    (void)zx::dump_line(zx::redis::to_json(*event));
}

}  // namespace

// What a Redis server, a Sentinel or a host says, and its files, by the parser that the first byte
// chooses.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 5) {
    case 0: info(text); break;
    case 1:
      if (text.size() <= kSmall.bytes && read_in_pieces(text, 1) != read_in_pieces(text, 7))
        std::abort();
      break;
    case 2: json(text); break;
    case 3: config(text); break;
    default: message(text); break;
  }
  return 0;
}
