// libpq connection strings of standbys (primary_conninfo): taken apart, kept without their
// password, put together again.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/error.h"

namespace zx::pg {

using Conninfo = std::vector<std::pair<std::string, std::string>>;  // only what is set

[[nodiscard]] Result<Conninfo> parse_conninfo(const std::string& text);
[[nodiscard]] std::string to_string(const Conninfo& conninfo);  // quoted for libpq
[[nodiscard]] std::string value_of(const Conninfo& conninfo, const std::string& key);
void set_value(Conninfo& conninfo, const std::string& key, const std::string& value);
void remove_value(Conninfo& conninfo, const std::string& key);

// host and port of a conninfo string, its first host.
struct Upstream {
  std::string host;
  int port = 5432;
};
[[nodiscard]] std::optional<Upstream> upstream_of(const std::string& conninfo);

}  // namespace zx::pg
