// What a server or Sentinel says of itself, as facts. Pure, and safe whatever the text is: sizes
// are capped, control characters cleaned, what does not parse is absent.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "lib/redis/facts.h"

namespace zx::redis {

// The fields of an INFO text. The first of a name counts.
class Info {
 public:
  [[nodiscard]] static Info parse(std::string_view text);
  [[nodiscard]] std::string text(std::string_view name) const;  // empty when it is not there
  [[nodiscard]] std::optional<std::int64_t> number(std::string_view name) const;
  [[nodiscard]] std::int64_t number_or(std::string_view name, std::int64_t otherwise) const;
  [[nodiscard]] bool is_on(std::string_view name) const { return number(name) == 1; }
  // Of "ip=10.0.0.1,port=6379,…".
  [[nodiscard]] static std::map<std::string, std::string, std::less<>> pairs(
      std::string_view value);
  [[nodiscard]] const std::map<std::string, std::string, std::less<>>& all() const {
    return fields_;
  }

 private:
  std::map<std::string, std::string, std::less<>> fields_;
};

// Fills what INFO says. An Error when it is not that of a Redis server. `failure` becomes none, or
// `loading` while the server still reads its data set.
[[nodiscard]] Status read_info(std::string_view text, NodeFacts& facts);

// Fills what an answer to CONFIG GET says: names and values in turn.
void read_config(const Reply& reply, NodeFacts& facts);

// SENTINEL MASTER, of a Sentinel that knows the master.
[[nodiscard]] Status read_master(const Reply& reply, SentinelFacts& facts);
// SENTINEL REPLICAS. Which of them are phantoms only the configuration tells: see mark_phantoms.
void read_replicas(const Reply& reply, SentinelFacts& facts);
// SENTINEL CKQUORUM answers with a status or an error.
void read_quorum(const Outcome<Reply>& reply, SentinelFacts& facts);

// A replica that Sentinel keeps although there is none: without a port, or at an address of no node
// of `known` and not connected.
void mark_phantoms(std::vector<SentinelFacts>& sentinels, const Snapshot& known);

}  // namespace zx::redis
