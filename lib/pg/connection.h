// One libpq connection in its asynchronous mode, on the loop, under hard deadlines.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/net/loop.h"

namespace zx::pg {

// Why a server gave no answer. Only `refused` says that nothing listens there; the others mean
// that something may well be alive.
enum class Failure {
  none,
  refused,               // the host answered: nothing listens on that port
  no_route,              // host or network unreachable
  no_answer,             // the deadline passed before TCP was accepted
  silent,                // TCP was accepted, the server said nothing until the deadline
  resolve,               // the name could not be looked up
  auth,                  // SQLSTATE class 28, or no pg_hba.conf entry
  permission,            // 42501: connected, but the role may not see what zx needs
  starting_up,           // 57P03
  recovering,            // 57P03: a standby that has not reached consistency, or hot_standby=off
  shutting_down,         // 57P03, 57P01
  too_many_connections,  // 53300
  no_database,           // 3D000
  broken,                // the connection broke in the middle
  not_postgres,          // something else answers on that port
  other,                 // what the server says of the statement itself, mostly
  resources,             // classes 53, 58: it lacks space, memory, a file
  cancelled,             // 57014: by a timeout of the server, or by somebody
  in_use,                // 55006: a database with sessions, a slot with a receiver
};
[[nodiscard]] const char* name_of(Failure failure);          // stable, for JSON
[[nodiscard]] const char* says(Failure failure);             // for people: "connection refused"
[[nodiscard]] Failure failure_named(std::string_view name);  // other for any other

// Why a server ended a connection, by its last words. They are translated; the SQLSTATE and the
// function that spoke are not (postgres.c, be-secure.c).
enum class Ending {
  stopped_fast,         // pg_ctl stop -m fast, or pg_terminate_backend
  stopped_immediately,  // pg_ctl stop -m immediate
  crashed,              // another process of it crashed: it starts again by itself
  postmaster_gone,      // killed
  broken,               // no last words
};
[[nodiscard]] const char* name_of(Ending ending);
[[nodiscard]] Ending ending_of(std::string_view sqlstate, std::string_view function);

struct Failed {
  Failure why = Failure::other;
  Error error;
  Ending ending = Ending::broken;  // when the connection is gone
};

// Where and as whom. The password is never part of any message.
struct Target {
  std::string name;     // of the node, for messages
  std::string address;  // name or number
  int port = 5432;
  std::string user;
  std::string password;  // empty: libpq's own ways (.pgpass)
  std::string database = "postgres";
  std::string sslmode = "prefer";
  std::string sslrootcert;
  Millis statement_timeout{0};  // 0: none
  bool operator==(const Target&) const = default;
};

using Row = std::vector<std::optional<std::string>>;
using Rows = std::vector<Row>;
template <class T>
using Outcome = tl::expected<T, Failed>;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Pointer = std::shared_ptr<Connection>;
  // Calls back exactly once, on the loop.
  static void open(net::Loop& loop, const Target& target, Deadline deadline,
                   std::function<void(Outcome<Pointer>)> done);
  ~Connection();

  // One query at a time. Parameters are text; none means that `sql` may hold several statements,
  // of which the last one's rows are returned. After a deadline or a broken connection nothing
  // more can be asked.
  void query(const std::string& sql, const std::vector<std::string>& parameters, Deadline deadline,
             std::function<void(Outcome<Rows>)> done);
  // The same for the one statement that is asked again and again over this connection: it is
  // prepared the first time, so that the server plans it once.
  void query_prepared(std::string_view sql, Deadline deadline,
                      std::function<void(Outcome<Rows>)> done);
  // Tells at once when the server ends the connection while no query is out (a query's own callback
  // tells it otherwise). At most once; nothing more can be asked then.
  void on_end(std::function<void(Ending)> ended);

 private:
  struct Impl;
  explicit Connection(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

// A connection of its own loop, for steps that do one thing after the other.
class Client {
 public:
  [[nodiscard]] static Outcome<Client> open(const Target& target, Deadline deadline);
  [[nodiscard]] Outcome<Rows> query(const std::string& sql, Deadline deadline,
                                    const std::vector<std::string>& parameters = {});

 private:
  std::unique_ptr<net::Loop> loop_;
  Connection::Pointer connection_;
};

// The error of an Outcome as a Result's, with the node's name in front.
[[nodiscard]] Error error_of(const Target& target, const Failed& failed);

// 'text' with quotes doubled, an SQL literal for statements that take no parameters. Backslashes
// make it an E'' literal, so it is right whatever standard_conforming_strings says.
[[nodiscard]] std::string quote_literal(std::string_view text);

// SQLSTATE and message of libpq's VERBOSE error text, such as
// "FATAL:  53300: sorry, too many clients already\nLOCATION: …".
struct ServerMessage {
  std::string sqlstate;  // empty when the text is libpq's own
  std::string text;
};
[[nodiscard]] ServerMessage parse_message(std::string_view verbose);
[[nodiscard]] Failure classify(const ServerMessage& message);

}  // namespace zx::pg
