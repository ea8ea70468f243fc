#include "lib/coord/vote_book.h"

#include <fmt/format.h>

namespace zx::coord {

void VoteBook::note(const std::vector<Entry>& entries, Millis now) {
  std::map<std::string, Seen> seen;
  for (const auto& entry : entries) {
    const auto before = seen_.find(entry.vote.agent);
    auto& next = seen[entry.vote.agent];
    if (before != seen_.end()) next = before->second;
    if (before != seen_.end() && next.entry.stamp != entry.stamp) {
      next.changed_at = now;
      next.has_changed = true;
    }
    next.entry = entry;
  }
  seen_ = std::move(seen);
}

std::vector<Vote> VoteBook::fresh(Millis now, Millis span) const {
  std::vector<Vote> votes;
  for (const auto& [agent, seen] : seen_)
    if (seen.has_changed && now - seen.changed_at < span) {
      votes.push_back(seen.entry.vote);
      votes.back().age = now - seen.changed_at;
    }
  return votes;
}

std::string write_vote(const Vote& vote, std::int64_t serial) {
  return dump_line(
      {{"agent", vote.agent}, {"region", vote.region}, {"serial", serial}, {"saw", vote.saw}});
}

std::optional<VoteBook::Entry> read_vote(const std::string& text, std::int64_t lease) {
  const auto json = parse_json(text, "a vote");
  if (!json || !json->is_object()) return std::nullopt;
  const auto serial = get_int(*json, "serial");
  VoteBook::Entry entry{
      {get_string(*json, "agent"), get_string(*json, "region"), Json(), Millis(0)},
      fmt::format("{}/{}", lease, serial)};
  entry.vote.saw = get_object(*json, "saw");
  if (entry.vote.agent.empty() || serial < 1) return std::nullopt;
  return entry;
}

}  // namespace zx::coord
