// What the answers mean: one cluster with one primary, and a name for everything in it.
#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/pg/admin.h"
#include "lib/pg/discover_servers.h"

namespace zx::pg {
namespace {

using Where = FoundNode::Where;

// libpq begins with the address, which is said already.
std::string reason_of(const Sighting& s) {
  constexpr std::string_view kFailed = " failed: ";
  if (s.failure == Failure::refused || s.failure == Failure::no_route || s.error.message.empty())
    return says(s.failure);
  const auto at = s.error.message.find(kFailed);
  const bool is_prefixed =
      s.error.message.starts_with("connection to server at ") && at != std::string::npos;
  return is_prefixed ? s.error.message.substr(at + kFailed.size()) : s.error.message;
}

std::string hint_for(Failure failure) {
  switch (failure) {
    case Failure::refused:
    case Failure::no_route:
    case Failure::no_answer:
    case Failure::not_postgres:
    case Failure::silent: return "is it running, and is this its address and port?";
    case Failure::resolve: return "is the name spelled right?";
    case Failure::auth:
      return "the password comes from a password file, ~/.pgpass, $PGPASSFILE or $PGPASSWORD, and "
             "pg_hba.conf must let the user in from this host";
    default: return {};
  }
}

Error error_of(const Sighting& s) {
  auto error = s.error;
  error.message = to_string(s.at) + ": " + reason_of(s);
  if (error.hint.empty()) error.hint = hint_for(s.failure);
  return error;
}

const Sighting* failure_at(const std::vector<Sighting>& seen, const Endpoint& endpoint) {
  for (const auto& s : seen)
    if (!s.answered() && s.at.address == endpoint.address && s.at.port == endpoint.port) return &s;
  return nullptr;
}

Status check_answers(const std::vector<Sighting>& seen) {
  const Sighting* first = nullptr;
  for (const auto& s : seen) {
    if (!s.answered() || s.at.source != Source::given) continue;
    if (first != nullptr && first->system_id != s.system_id)
      return fail(Code::refused,
                  fmt::format("{} and {} belong to two clusters (system identifiers {} and {})",
                              to_string(first->at), to_string(s.at), first->system_id, s.system_id),
                  "name servers of one cluster");
    if (first == nullptr) first = &s;
  }
  if (first != nullptr) return {};
  if (seen.empty()) return fail(Code::usage, "no server was named");
  auto error = error_of(seen.front());
  for (std::size_t i = 1; i < seen.size(); ++i) error.trail.push_back(error_of(seen[i]).message);
  return fail(std::move(error));
}

// Standbys only: the server that they follow did not answer, or is not known.
Error no_primary(const std::vector<Sighting>& seen, const std::vector<Server>& servers) {
  for (const auto& server : servers) {
    const auto upstream = upstream_endpoint(server);
    const auto* failed = upstream ? failure_at(seen, *upstream) : nullptr;
    if (failed == nullptr) continue;
    auto error = error_of(*failed);
    error.message = fmt::format("the server that {} follows does not answer: {}",
                                to_string(server.best().at), error.message);
    return error;
  }
  const auto& s = servers.front().best();
  if (!s.is_monitor)
    return Error{
        Code::auth,
        fmt::format("the role {} may not see whom {} follows", first_line(s.user), to_string(s.at)),
        "grant it pg_monitor, or name the primary too",
        {},
        false};
  return Error{Code::unreachable,
               fmt::format("{} is a standby, and its primary was not found", to_string(s.at)),
               "name the primary too",
               {},
               true};
}

Status check_primary(const std::vector<Sighting>& seen, const std::vector<Server>& servers) {
  std::vector<const Server*> primaries;
  for (const auto& server : servers)
    if (!server.best().is_standby) primaries.push_back(&server);
  if (primaries.empty()) return fail(no_primary(seen, servers));
  if (primaries.size() == 1) return {};
  return fail(Code::refused,
              fmt::format("two servers are primary: {} and {}", to_string(primaries[0]->best().at),
                          to_string(primaries[1]->best().at)),
              "name only the right one and its standbys, or stop the other");
}

bool is_plain_name(std::string_view name) {
  constexpr std::size_t kLongest = 63;
  const auto is_alnum = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !name.empty() && name.size() <= kLongest && is_alnum(name.front()) &&
         name != "walreceiver" && std::all_of(name.begin(), name.end(), [&](char c) {
           return is_alnum(c) || c == '.' || c == '_' || c == '-';
         });
}

// "host-10-0-0-1", or the first label of a name.
std::string label_of(const std::string& address, const std::string& prefix) {
  auto label = address.substr(0, address.find('.'));
  if (!is_numeric(address)) return is_plain_name(label) ? label : prefix + "unnamed";
  label = address.substr(0, address.find('%'));
  for (auto& c : label)
    if (c == '.' || c == ':') c = '-';
  label.erase(0, label.find_first_not_of('-'));
  return prefix + label;
}

// Names whose replication slots differ too.
class Names {
 public:
  std::string unique(const std::string& base) {
    for (int n = 1;; ++n) {
      auto name = n == 1 ? base : fmt::format("{}-{}", base, n);
      if (taken_.insert(slot_name_of(name)).second) return name;
    }
  }

 private:
  std::set<std::string> taken_;
};

// One an address.
class Hosts {
 public:
  explicit Hosts(const Here& here) : own_(is_plain_name(here.name) ? here.name : "here") {}
  std::string of(const std::string& address, Where where) {
    auto& name = by_address_[address];
    if (name.empty())
      name = names_.unique(where == Where::here ? own_ : label_of(address, "host-"));
    return name;
  }

 private:
  std::string own_;
  Names names_;
  std::map<std::string, std::string> by_address_;
};

// application_name comes first: by it synchronous_standby_names means a standby. Debian calls every
// cluster "15/main"; such a name says nothing, and neither does one that two servers have.
std::string own_name(const Server& server, const std::vector<Server>& servers) {
  for (const auto& name : {server.best().application_name, server.best().cluster_name}) {
    const auto has_it = [&](const Server& other) {
      return other.best().application_name == name || other.best().cluster_name == name;
    };
    if (is_plain_name(name) && std::count_if(servers.begin(), servers.end(), has_it) == 1)
      return name;
  }
  return {};
}

std::string place_name(const Endpoint& at, bool is_alone) {
  if (is_loopback(at.address)) return fmt::format("pg-{}", at.port);
  const auto label = label_of(at.address, "pg-");
  return is_alone ? label : fmt::format("{}-{}", label, at.port);
}

class Conclusion {
 public:
  Conclusion(const std::vector<Sighting>& seen, const Here& here,
             const std::vector<Server>& servers)
      : seen_(seen),
        here_(here),
        servers_(servers),
        hosts_(here),
        links_(links_of(servers, here)) {}

  Discovery draw() {
    for (const auto& server : servers_) add(server);
    for (const auto& link : links_)
      if (link.standby == nullptr) add_stranger(link);
    for (const auto& s : seen_)
      if (!s.answered() && s.at.source == Source::given) add_silent(s);
    for (const auto& server : servers_)
      if (server.best().is_standby && !is_fed(server)) add_upstream(server);
    std::sort(found_.nodes.begin(), found_.nodes.end(), [](const auto& a, const auto& b) {
      return std::pair(a.role != Role::primary, a.name) <
             std::pair(b.role != Role::primary, b.name);
    });
    if (seen_.size() >= kMostEndpoints)
      found_.left_out.push_back(fmt::format(
          "more than {} addresses were named; the others were not asked", kMostEndpoints));
    return std::move(found_);
  }

 private:
  [[nodiscard]] bool is_fed(const Server& server) const {
    return std::any_of(links_.begin(), links_.end(),
                       [&](const Link& link) { return link.standby == &server; });
  }

  std::string name_of(const Server& server) {
    const auto own = own_name(server, servers_);
    if (!own.empty()) return names_.unique(own);
    const auto& at = server.best().at;
    const auto neighbours =
        std::count_if(servers_.begin(), servers_.end(),
                      [&](const Server& other) { return other.best().at.address == at.address; });
    return names_.unique(place_name(at, neighbours == 1));
  }

  void add(const Server& server) {
    const auto& s = server.best();
    FoundNode node;
    node.name = name_of(server);
    node.at = s.at;
    // The same address as that of its neighbours, so that they are of one host.
    if (s.at.address == "localhost" && is_loopback(s.own_address)) node.at.address = s.own_address;
    node.host = hosts_.of(node.at.address, server.where);
    node.where = server.where;
    node.role = s.is_standby ? Role::standby : Role::primary;
    node.version = s.version;
    node.data_dir = s.data_dir;
    node.config_file = s.config_file;
    const auto* postmaster = server.where == Where::here ? postmaster_of(s, here_) : nullptr;
    if (postmaster != nullptr) {
      if (node.data_dir.empty()) node.data_dir = postmaster->data_dir;
      if (!postmaster->bin_dir.empty()) found_.bin_dir = postmaster->bin_dir;
    }
    if (s.is_standby) {
      node.application_name = s.application_name;
      node.is_fed = is_fed(server);
    } else {
      add_primary(s);
    }
    found_.nodes.push_back(std::move(node));
  }

  void add_primary(const Sighting& s) {
    found_.system_id = s.system_id;
    found_.databases = s.databases;
    found_.hidden_databases = s.hidden_databases;
    found_.user = s.user;
    found_.is_monitor = s.is_monitor;
    if (found_.bin_dir.empty())
      found_.bin_dir = fmt::format("/usr/lib/postgresql/{}/bin", s.version_number / 10'000);
    for (const auto& peer : s.peers)
      if (found_.replication_user.empty()) found_.replication_user = peer.user;
  }

  void add_stranger(const Link& link) {
    const auto& upstream = link.upstream->best();
    const bool is_of_here = is_here(link, here_);
    Unverified one;
    one.application_name = link.peer.application_name;
    one.address = link.peer.client_address.empty() ? upstream.at.address : link.peer.client_address;
    one.why = is_of_here && here_.sees_all ? "no server of this host that can be asked is it"
                                           : "its port is not known";
    for (const auto& s : seen_) {
      if (s.answered() || s.at.address != one.address) continue;
      one.why = fmt::format("{}: {}", to_string(s.at), reason_of(s));
      if (s.at.source == Source::given) one.port = s.at.port;
    }
    if (is_of_here) place_here(one);
    if (!upstream.is_monitor)
      one.why = fmt::format("the role {} may not see more of it", first_line(upstream.user));
    keep(std::move(one), is_of_here ? Where::here : Where::elsewhere);
  }

  // The one server of this host that runs and does not answer.
  void place_here(Unverified& one) {
    const auto is_silent = [](const Sighting& s) {
      return !s.answered() && s.at.source == Source::here;
    };
    if (std::count_if(seen_.begin(), seen_.end(), is_silent) != 1) return;
    const auto& s = *std::find_if(seen_.begin(), seen_.end(), is_silent);
    one.port = s.at.port;
    one.why = reason_of(s);
    for (const auto& p : here_.postmasters)
      if (p.port == s.at.port && p.system_id == found_.system_id) one.data_dir = p.data_dir;
  }

  void add_silent(const Sighting& s) {
    for (const auto& known : found_.unverified)
      if (known.address == s.at.address && known.port == s.at.port) return;
    Unverified one;
    one.address = s.at.address;
    one.port = s.at.port;
    one.why = reason_of(s);
    keep(std::move(one), is_own(s.at.address, here_) ? Where::here : Where::elsewhere);
  }

  // A standby that none of the servers feeds: its upstream is one more of the cluster.
  void add_upstream(const Server& server) {
    const auto upstream = upstream_endpoint(server);
    const auto* failed = upstream ? failure_at(seen_, *upstream) : nullptr;
    if (failed != nullptr) add_silent(*failed);
  }

  void keep(Unverified one, Where where) {
    const auto& name = one.application_name;
    const auto place =
        one.port == 0 ? "standby" : place_name({one.address, one.port, Source::given}, true);
    one.name = names_.unique(is_plain_name(name) ? name : place);
    one.is_here = where == Where::here;
    one.host = hosts_.of(one.address, where);
    found_.unverified.push_back(std::move(one));
  }

  const std::vector<Sighting>& seen_;
  const Here& here_;
  const std::vector<Server>& servers_;
  Names names_;
  Hosts hosts_;
  std::vector<Link> links_;
  Discovery found_;
};

}  // namespace

std::string to_string(const Endpoint& endpoint) {
  const bool is_six = endpoint.address.find(':') != std::string::npos;
  const auto address = first_line(endpoint.address);
  return is_six ? fmt::format("[{}]:{}", address, endpoint.port)
                : fmt::format("{}:{}", address, endpoint.port);
}

Result<Discovery> conclude(const std::vector<Sighting>& seen, const Here& here) {
  ZX_TRY(check_answers(seen));
  auto servers = servers_of(seen, here);
  std::vector<std::string> left_out;
  std::erase_if(servers, [&](const Server& server) {
    if (server.best().is_standby || !server.is_only_from(Source::here)) return false;
    left_out.push_back(fmt::format(
        "{} is another primary with the same system identifier, probably of a copy; left out",
        to_string(server.best().at)));
    return true;
  });
  ZX_TRY(check_primary(seen, servers));
  // The primary has the first choice of names.
  std::stable_partition(servers.begin(), servers.end(),
                        [](const Server& server) { return !server.best().is_standby; });
  auto found = Conclusion(seen, here, servers).draw();
  found.left_out.insert(found.left_out.begin(), left_out.begin(), left_out.end());
  return found;
}

}  // namespace zx::pg
