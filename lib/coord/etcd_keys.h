// Private to this room: where things are in etcd. Prefixes end in '/'.
#pragma once

#include <string>

namespace zx::coord {

[[nodiscard]] inline std::string etcd_prefix(std::string prefix) {
  if (!prefix.ends_with('/')) prefix += '/';
  return prefix;
}
[[nodiscard]] inline std::string leader_key(const std::string& prefix) { return prefix + "leader"; }
[[nodiscard]] inline std::string votes_under(const std::string& prefix) {
  return prefix + "votes/";
}
[[nodiscard]] inline std::string shared_key(const std::string& prefix, const std::string& name) {
  return prefix + "shared/" + name;
}
// Of one run on `name`; attached to the lease of who has it.
[[nodiscard]] inline std::string turn_key(const std::string& prefix, const std::string& name) {
  return prefix + "turn/" + name;
}
// Written later than the turn's key was created: whoever has the turn should give way.
[[nodiscard]] inline std::string wanted_key(const std::string& prefix, const std::string& name) {
  return prefix + "wanted/" + name;
}
[[nodiscard]] inline std::string guards_under(const std::string& prefix) {
  return prefix + "guard/";
}
// Written anew with every renewal: a guard that lives changes its revision.
[[nodiscard]] inline std::string guard_key(const std::string& prefix, const std::string& node) {
  return prefix + "guard/" + node;
}
// Stays: {"ttl_ms", "stop_margin_ms", "reply_ms"}. Written whenever a guard gets the key above.
[[nodiscard]] inline std::string guarded_key(const std::string& prefix, const std::string& node) {
  return prefix + "guarded/" + node;
}
// While it is there no guard of the node gets or renews the key.
[[nodiscard]] inline std::string barred_key(const std::string& prefix, const std::string& node) {
  return prefix + "barred/" + node;
}

}  // namespace zx::coord
