// What a request's target names.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zx::net {

using QueryList = std::vector<std::pair<std::string, std::string>>;

// "%41" becomes "A", with `plus_is_space` "+" a space. False for an escape that is not whole, and
// for one of the byte 0, which no name of ours has.
[[nodiscard]] bool percent_decode(std::string_view text, bool plus_is_space, std::string& decoded);

// Of "/a%20b?k=v&flag", "http://host/a" or "*": the decoded path and the pairs of the query in
// their order ("flag" has an empty value). Dots in the path are left as they are. False when the
// target is of no such form.
[[nodiscard]] bool parse_target(std::string_view target, std::string& path, QueryList& query);

}  // namespace zx::net
