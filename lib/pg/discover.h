// Which servers make up a cluster, found from one of them. Whom to ask next and what the answers
// mean is decided by pure functions; discover() does the asking.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/pg/connection.h"
#include "lib/pg/facts.h"

namespace zx::pg {

enum class Source {
  given,     // by the connection string
  upstream,  // a standby receives from there
  peer,      // a standby that its upstream names: the port is a guess
  here,      // a postmaster of this host
  itself,    // the server's own word, when it was reached by another way
};

struct Endpoint {
  std::string address;
  int port = 5432;
  Source source = Source::given;
};
[[nodiscard]] std::string to_string(const Endpoint& endpoint);  // "10.0.0.1:5432", "[::1]:5432"

struct Dsn {
  std::vector<Endpoint> endpoints;
  Target as;                         // user, database, sslmode and sslrootcert; nothing else
  std::string passfile;              // for $PGPASSFILE
  std::vector<std::string> ignored;  // keywords that zx cannot follow
};
// A libpq connection string or URI, also of several hosts. Code::usage when it holds a password:
// the arguments of a program can be read by everyone on its host. Never quotes the string.
[[nodiscard]] Result<Dsn> read_dsn(const std::string& text);

// A server of this host, by its postmaster.pid and pg_control.
struct Postmaster {
  std::string data_dir;
  std::string listen;  // the first address that it listens on, "*", or empty when only a socket
  int port = 0;
  std::int64_t started = 0;  // seconds since the epoch
  std::string system_id;
  std::string bin_dir;
  unsigned uid = 0;
};
struct Here {
  std::string name;                    // of this host, up to the first dot
  std::vector<std::string> addresses;  // of its interfaces
  std::vector<Postmaster> postmasters;
  bool sees_all = false;  // by root: a server that is not in the list is not here
};
[[nodiscard]] Here look_here();
[[nodiscard]] std::optional<Postmaster> read_postmaster(std::string_view pid_file);

// A standby as its upstream has it in pg_stat_replication. Empty: on a socket, or not to be seen.
struct Peer {
  std::string application_name, client_address, slot, user;
};

// What one endpoint said. Texts that may not be seen, or that zx.toml cannot hold, are empty.
struct Sighting {
  Endpoint at;
  Failure failure = Failure::other;  // none: it answered
  Error error;

  std::string system_id;
  std::int64_t started = 0;  // microseconds; with the port it tells servers apart
  std::string own_address;   // where the server thinks that it was reached
  int own_port = 0;
  bool is_standby = false;
  std::string version, user, cluster_name;
  int version_number = 0;
  bool is_monitor = false;  // the role is a member of pg_monitor, or a superuser
  std::string data_dir, config_file;
  std::string upstream_host;     // empty: none, or a socket
  int upstream_port = 0;         // 0: not known
  std::string slot;              // primary_slot_name
  std::string application_name;  // as a standby's walreceiver gives it
  std::vector<Peer> peers;
  std::vector<std::string> databases;  // without templates and postgres
  int hidden_databases = 0;            // whose names zx.toml cannot hold

  [[nodiscard]] bool answered() const { return failure == Failure::none; }
};
[[nodiscard]] Status read_sighting(const std::string& json, Sighting& sighting);

struct FoundNode {
  enum class Where {
    here,
    elsewhere,
    hidden,  // behind an address of this host but not on it: a tunnel, a container
  };
  std::string name;  // unique, letters, digits, '.', '_' and '-'
  std::string host;  // likewise; the same for nodes of one address
  Endpoint at;
  Where where = Where::elsewhere;
  Role role = Role::unknown;
  std::string version;
  std::string data_dir, config_file;  // empty: the role may not see it
  std::string application_name;       // of a standby; empty: not known
  bool is_fed = true;                 // a standby that a node has in pg_stat_replication
};

// A server that belongs to the cluster, but did not answer where it was looked for.
struct Unverified {
  std::string name, host;
  std::string application_name;  // as it was sent: any printable text
  std::string address;           // may be empty
  int port = 0;                  // 0: not known
  bool is_here = false;          // by its address
  std::string data_dir;          // empty: not known
  std::string why;
};

struct Discovery {
  std::string system_id;
  std::vector<FoundNode> nodes;  // the primary first
  std::vector<Unverified> unverified;
  std::vector<std::string> databases;
  int hidden_databases = 0;
  std::string user, replication_user;  // the latter may be empty
  bool is_monitor = false;
  std::string bin_dir;
  std::vector<std::string> left_out;  // sentences about servers that were seen and not taken
};

// Endpoints that nobody was asked at yet, in the light of what was said. Empty: all is known.
[[nodiscard]] std::vector<Endpoint> next_endpoints(const std::vector<Sighting>& seen,
                                                   const Here& here);
// The error of the first endpoint when none answers. Code::refused when they are not one cluster
// with one primary.
[[nodiscard]] Result<Discovery> conclude(const std::vector<Sighting>& seen, const Here& here);

// `password` may be empty: libpq's own ways. Takes no longer than `span`.
[[nodiscard]] Result<Discovery> discover(const Dsn& dsn, const std::string& password, Millis span);

}  // namespace zx::pg
