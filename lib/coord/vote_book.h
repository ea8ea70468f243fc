// Private to this room: which votes are fresh. No clock of another host has a part in it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/coord/coordinator.h"

namespace zx::coord {

class VoteBook {
 public:
  struct Entry {
    Vote vote;
    std::string stamp;  // changes whenever the agent votes, and with every start of it
  };
  // All votes there are, at `now` of our own clock; whoever is not among them is forgotten.
  void note(const std::vector<Entry>& entries, Millis now);
  // Those whose stamp we saw change within the last `span`. A vote seen for the first time may be
  // of any age, and counts from its first change on.
  [[nodiscard]] std::vector<Vote> fresh(Millis now, Millis span) const;

 private:
  struct Seen {
    Entry entry;
    Millis changed_at{0};
    bool has_changed = false;
  };
  std::map<std::string, Seen> seen_;  // by agent
};

// As it stands in etcd.
[[nodiscard]] std::string write_vote(const Vote& vote, std::int64_t serial);
// `lease` of the key. Not an error of ours what others write: absent when it is no vote.
[[nodiscard]] std::optional<VoteBook::Entry> read_vote(const std::string& text, std::int64_t lease);

}  // namespace zx::coord
