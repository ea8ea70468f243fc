// What verifications found of a set, and what is believed of it for that. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/error.h"
#include "lib/base/json.h"

namespace zx::backup {

struct Set;

// How far a set is known to be good. Each is more than the one before.
enum class Level { checksum, decode, restore };
[[nodiscard]] const char* name_of(Level level);  // "checksum"
[[nodiscard]] Result<Level> level_named(const std::string& name);

// What a verification that did not pass says of the set.
enum class Fault {
  damage,   // it is not what was written, or cannot be restored
  answers,  // it is and can be, but a question of backup.checks is answered otherwise
  unknown,  // nothing: the look itself could not be made
};

// A verification, as the set's trust.json remembers it.
struct Check {
  Level level = Level::checksum;
  Wall at{};
  bool ok = false;
  Fault fault = Fault::damage;       // of one that did not pass
  std::string problem;               // of one that did not: "object 3, pg/shop.dump.zst: …"
  std::vector<std::string> damaged;  // the paths of objects that are
  std::string found_in;              // the set that was looked at, when that was another
  std::string host;
  std::int64_t took_ms = 0;
  std::optional<std::int64_t> restore_ms;  // what a restore took: the measured RTO
};
[[nodiscard]] const char* name_of(Fault fault);
[[nodiscard]] Json to_json(const Check& check);
// Code::refused for one that a newer zx made, failed for what is none.
[[nodiscard]] Result<Check> check_from_json(const Json& json);

enum class Trust { checksummed, decoded, restored, corrupt };
[[nodiscard]] const char* name_of(Trust trust);
// What is believed of a set: corrupt while a check has found damage and none of that check's level
// or a higher one has passed since; else the highest that passed. A rehearsal whose answers alone
// were wrong counts as decoded.
struct Believed {
  Trust trust = Trust::checksummed;
  Wall at{};            // when that was found; the set's own end when nobody has looked since
  Wall since{};         // of a corrupt one: when the first was made of what nothing has cleared
  std::string problem;  // of the last of them
  std::vector<std::string> damaged;        // the paths of objects, of all of them
  std::vector<Check> failures;             // they themselves, in the order in which they were made
  std::string doubt;                       // "check orders: …": of answers, of the last rehearsal
  std::optional<std::int64_t> restore_ms;  // of the last rehearsal that worked
};
[[nodiscard]] Believed believed(const Set& set, const std::vector<Check>& checks);

// Adds one to those of a set: at their end, or, when it was made of another set, by its time and
// only once.
void add_check(std::vector<Check>& checks, const Check& check);
// Takes out what says nothing more until there are `most`: looks that could not be made, what
// later ones repeat, damage that was cleared; the oldest first. What believed() tells stays, and so
// does the last look of each level. More than `most` are left when each is needed for that.
void thin_out(std::vector<Check>& checks, std::size_t most);

}  // namespace zx::backup
