// Discovery's own view of what was seen: servers instead of endpoints, and who feeds whom.
#pragma once

#include <string>
#include <vector>

#include "lib/pg/discover.h"

namespace zx::pg {

// What a server says of its standbys is not trusted to end.
inline constexpr std::size_t kMostEndpoints = 64;

[[nodiscard]] bool is_loopback(std::string_view address);
[[nodiscard]] bool is_numeric(std::string_view address);
[[nodiscard]] bool is_own(const std::string& address, const Here& here);  // of this host

// Null: none of this host, or not to be seen.
[[nodiscard]] const Postmaster* postmaster_of(const Sighting& sighting, const Here& here);

// One server, at every endpoint where it answered.
struct Server {
  std::vector<const Sighting*> at;  // the one for zx.toml first
  FoundNode::Where where = FoundNode::Where::elsewhere;
  [[nodiscard]] const Sighting& best() const { return *at.front(); }
  [[nodiscard]] bool has_address(const std::string& address) const;
  [[nodiscard]] bool is_only_from(Source source) const;
};
// Of the cluster of the first endpoint that answered. They point into `seen`.
[[nodiscard]] std::vector<Server> servers_of(const std::vector<Sighting>& seen, const Here& here);

// A row of pg_stat_replication and the server that it is; null: not known.
struct Link {
  const Server* upstream = nullptr;
  Peer peer;
  const Server* standby = nullptr;
};
[[nodiscard]] std::vector<Link> links_of(const std::vector<Server>& servers, const Here& here);
[[nodiscard]] bool is_here(const Link& link, const Here& here);

// Whom a standby follows, as it is reached from here.
[[nodiscard]] std::optional<Endpoint> upstream_endpoint(const Server& server);

}  // namespace zx::pg
