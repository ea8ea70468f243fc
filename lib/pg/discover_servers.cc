#include "lib/pg/discover_servers.h"

#include <algorithm>
#include <cstdlib>
#include <set>

namespace zx::pg {
namespace {

using Where = FoundNode::Where;

// Between postmaster.pid's time of start and pg_postmaster_start_time() lies the start itself.
constexpr std::int64_t kStartSlackSeconds = 60;

Where where_of(const Sighting& s, const Here& here) {
  // A name is not looked up for this: its number is the server's own word.
  const bool is_by_name = !is_numeric(s.at.address) && !is_loopback(s.own_address);
  if (!is_own(s.at.address, here) && !(is_by_name && is_own(s.own_address, here)))
    return Where::elsewhere;
  const bool is_direct =
      s.own_port == s.at.port && (s.own_address.empty() || is_own(s.own_address, here));
  const bool is_seen = !here.sees_all || postmaster_of(s, here) != nullptr;
  return is_direct && is_seen ? Where::here : Where::hidden;
}

// The cluster in question is that of the first server that answered.
std::string system_of(const std::vector<Sighting>& seen) {
  for (const auto& s : seen)
    if (s.answered()) return s.system_id;
  return {};
}

// On the upstream's own host, as the upstream sees it.
bool is_beside(const Peer& peer) {
  return peer.client_address.empty() || is_loopback(peer.client_address);
}

bool has_address_of(const Server& server, const Link& link, const Here& here) {
  if (is_here(link, here) && server.where == Where::here) return true;
  return server.has_address(is_beside(link.peer) ? link.upstream->best().at.address
                                                 : link.peer.client_address);
}

// Endpoints without those that were asked.
class Next {
 public:
  explicit Next(const std::vector<Sighting>& seen) : seen_(seen) {}
  void add(const std::string& address, int port, Source source) {
    const auto is_same = [&](const Endpoint& e) { return e.address == address && e.port == port; };
    if (address.empty() || port < 1 || port > 65535) return;
    if (seen_.size() + endpoints_.size() >= kMostEndpoints) return;
    if (std::any_of(seen_.begin(), seen_.end(), [&](const auto& s) { return is_same(s.at); }))
      return;
    if (std::any_of(endpoints_.begin(), endpoints_.end(), is_same)) return;
    endpoints_.push_back({address, port, source});
  }
  [[nodiscard]] std::vector<Endpoint> take() && { return std::move(endpoints_); }

 private:
  const std::vector<Sighting>& seen_;
  std::vector<Endpoint> endpoints_;
};

// Another user's process may lie about its port and be after the password.
bool is_trusted(const Postmaster& p, const std::vector<Server>& servers, const Here& here) {
  bool has_known = false;
  for (const auto& server : servers) {
    const auto* known = postmaster_of(server.best(), here);
    if (known == nullptr) continue;
    if (known->uid == p.uid) return true;
    has_known = true;
  }
  return !has_known;
}

void add_servers_here(Next& next, const std::vector<Server>& servers, const std::string& client,
                      const Here& here) {
  for (const auto& p : here.postmasters) {
    if (p.system_id != servers.front().best().system_id || p.listen.empty()) continue;
    if (!is_trusted(p, servers, here)) continue;
    const bool is_any = p.listen == "*" || p.listen == "0.0.0.0" || p.listen == "::";
    next.add(is_any ? client : p.listen, p.port, Source::here);
  }
}

// pg_stat_replication knows the address of a standby, but not its port.
void add_peer(Next& next, const std::vector<Server>& servers, const Link& link, const Here& here) {
  const auto& upstream = link.upstream->best();
  const auto& client = link.peer.client_address;
  if (link.standby != nullptr) {
    // It was reached by an address that is good on this host only; the upstream knows a better one.
    const auto& standby = link.standby->best();
    if (!is_beside(link.peer) && is_loopback(standby.at.address))
      next.add(client, standby.own_port, Source::itself);
    return;
  }
  if (is_here(link, here)) {
    add_servers_here(next, servers, client.empty() ? "127.0.0.1" : client, here);
    if (here.sees_all) return;
  }
  const bool is_its_own = is_beside(link.peer) && link.upstream->where != Where::here;
  const auto address = client.empty() || is_its_own ? upstream.at.address : client;
  next.add(address, upstream.own_port, Source::peer);
  for (const auto& server : servers) next.add(address, server.best().own_port, Source::peer);
}

}  // namespace

bool is_loopback(std::string_view address) {
  return address.starts_with("127.") || address == "::1" || address == "localhost";
}

bool is_numeric(std::string_view address) {
  return address.find(':') != std::string_view::npos ||
         address.find_first_not_of("0123456789.") == std::string_view::npos;
}

bool is_own(const std::string& address, const Here& here) {
  return is_loopback(address) || (!address.empty() && address == here.name) ||
         std::find(here.addresses.begin(), here.addresses.end(), address) != here.addresses.end();
}

bool is_here(const Link& link, const Here& here) {
  return is_beside(link.peer) ? link.upstream->where == Where::here
                              : is_own(link.peer.client_address, here);
}

const Postmaster* postmaster_of(const Sighting& s, const Here& here) {
  for (const auto& p : here.postmasters)
    if (p.system_id == s.system_id && p.port == s.own_port &&
        std::abs(p.started - s.started / 1'000'000) <= kStartSlackSeconds)
      return &p;
  return nullptr;
}

bool Server::has_address(const std::string& address) const {
  return std::any_of(at.begin(), at.end(), [&](const auto* s) {
    return s->at.address == address || s->own_address == address;
  });
}

bool Server::is_only_from(Source source) const {
  return std::all_of(at.begin(), at.end(), [&](const auto* s) { return s->at.source == source; });
}

std::vector<Server> servers_of(const std::vector<Sighting>& seen, const Here& here) {
  const auto system = system_of(seen);
  std::vector<Server> servers;
  for (const auto& s : seen) {
    if (!s.answered() || s.system_id != system) continue;
    auto same = std::find_if(servers.begin(), servers.end(), [&](const Server& server) {
      return server.best().started == s.started && server.best().own_port == s.own_port;
    });
    if (same == servers.end()) same = servers.insert(servers.end(), Server{});
    same->at.push_back(&s);
    if (same->where != Where::here) same->where = where_of(s, here);
  }
  const bool is_spread = std::any_of(servers.begin(), servers.end(),
                                     [](const Server& s) { return s.where != Where::here; });
  // Other hosts reach no loopback address, and a proxy may lead to another server tomorrow.
  const auto badness = [&](const Sighting* s) {
    return (s->own_port != s->at.port ? 2 : 0) + (is_spread && is_loopback(s->at.address) ? 1 : 0);
  };
  for (auto& server : servers) {
    std::stable_sort(server.at.begin(), server.at.end(),
                     [&](const auto* a, const auto* b) { return badness(a) < badness(b); });
    if (server.where != Where::here) server.where = where_of(server.best(), here);
  }
  return servers;
}

std::vector<Link> links_of(const std::vector<Server>& servers, const Here& here) {
  std::vector<Link> links;
  for (const auto& server : servers)
    for (const auto& peer : server.best().peers) links.push_back({&server, peer, nullptr});
  std::set<const Server*> taken;
  const auto settle = [&](const auto& fits) {
    for (auto& link : links) {
      for (const auto& server : servers) {
        if (link.standby != nullptr) break;
        if (!server.best().is_standby || &server == link.upstream || taken.contains(&server) ||
            !fits(link, server))
          continue;
        link.standby = &server;
        taken.insert(&server);
      }
    }
  };
  settle([](const Link& link, const Server& server) {
    return !link.peer.slot.empty() && link.peer.slot == server.best().slot;
  });
  settle([](const Link& link, const Server& server) {
    const auto& name = link.peer.application_name;
    return !name.empty() && name == server.best().application_name;
  });
  settle(
      [&](const Link& link, const Server& server) { return has_address_of(server, link, here); });
  return links;
}

std::optional<Endpoint> upstream_endpoint(const Server& server) {
  const auto& s = server.best();
  if (!s.is_standby || s.upstream_port == 0) return std::nullopt;
  const bool is_socket = s.upstream_host.empty() || s.upstream_host.starts_with('/');
  const bool is_its_own = is_loopback(s.upstream_host) && server.where != Where::here;
  return Endpoint{is_socket || is_its_own ? s.at.address : s.upstream_host, s.upstream_port,
                  Source::upstream};
}

std::vector<Endpoint> next_endpoints(const std::vector<Sighting>& seen, const Here& here) {
  Next next(seen);
  const auto servers = servers_of(seen, here);
  for (const auto& server : servers) {
    const auto& s = server.best();
    if (s.own_port != s.at.port)
      next.add(s.own_address.empty() || is_loopback(s.own_address) ? s.at.address : s.own_address,
               s.own_port, Source::itself);
    if (const auto upstream = upstream_endpoint(server))
      next.add(upstream->address, upstream->port, Source::upstream);
    // Standbys of this host are found also while they are cut off.
    if (server.where == Where::here) add_servers_here(next, servers, "127.0.0.1", here);
  }
  for (const auto& link : links_of(servers, here)) add_peer(next, servers, link, here);
  return std::move(next).take();
}

}  // namespace zx::pg
