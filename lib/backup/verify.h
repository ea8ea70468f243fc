// Is a set good? Looked at as far as one asks: what is stored is what was written; all of it can be
// read; a restore of it has what the manifest counted.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/config/config.h"

namespace zx::backup {

// One part of a set that was looked at.
struct PartChecked {
  std::string part;      // "redis cache", "pg shop", "files uploads"
  std::string compared;  // in words: "12 tables, 4711 rows"
  std::string problem;   // empty: good
  Millis took{0};
};

struct VerifyOptions {
  std::string scratch;  // for private servers and restored files; empty: scratch_of()
  // Both are called by one thread at a time, not always the same.
  std::function<void(const std::string&)> progress;  // what is at work, a few times a second
  std::function<void(const PartChecked&)> checked;
  Deadline until = Deadline::after(Millis(24 * 3'600'000));
};

// What is wrong with the set is told in the Check, the first problem as "object 3,
// pg/shop.dump.zst: …". An Error is what prevented the look: an interruption, no space, a program
// or an extension that this host lacks, a newer format. Level::restore brings it up in private
// servers and removes them again, whatever becomes of it; what is left when zx is killed goes with
// the next one. Its restore_ms is from their start to the last comparison. Nothing is written to
// the repository: Repository::remember() does that.
[[nodiscard]] Result<Check> verify(const Repository& repository, const Entry& entry, Level level,
                                   const config::Config& config, const VerifyOptions& options);

// The one whose last check of that level or a higher one is longest ago: of those that have none,
// the newest. Null: there are no sets that this zx can read. Pure.
[[nodiscard]] const Entry* longest_unchecked(const std::vector<Entry>& entries, Level level);

// What contradicts itself in a manifest that could be read; empty: nothing. Pure.
[[nodiscard]] std::string contradiction_in(const Set& set);

}  // namespace zx::backup
