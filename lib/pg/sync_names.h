// synchronous_standby_names: who must have a commit before it is acknowledged.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/error.h"

namespace zx::pg {

struct SyncNames {
  enum class Method { none, first, any };
  Method method = Method::none;
  int count = 0;                   // standbys that must acknowledge
  std::vector<std::string> names;  // application names; "*" stands for every standby
  [[nodiscard]] bool lists(std::string_view application_name) const;
};

// The grammar of src/backend/replication/syncrep_gram.y: "a, b", "2 (a, b)", "FIRST 2 (a, b)",
// "ANY 1 (a, \"b c\")", "*", "".
[[nodiscard]] Result<SyncNames> parse_sync_names(std::string_view text);
[[nodiscard]] std::string to_string(const SyncNames& names);

// After `promoted` took over from `old_primary`: the same rule over the same nodes, the old primary
// in the place of the promoted one. `alive` are the
// standbys that will stream; no more acknowledgements are asked for than those can give, unless
// `strict`, so that commits do not hang.
[[nodiscard]] SyncNames after_promotion(const SyncNames& before, const std::string& old_primary,
                                        const std::string& promoted,
                                        const std::vector<std::string>& alive, bool strict);

}  // namespace zx::pg
