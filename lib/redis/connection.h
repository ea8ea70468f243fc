// One connection to a Redis server or Sentinel on the loop, without a blocking call, under hard
// deadlines.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/net/loop.h"

namespace zx::redis {

// Why there is no answer, or none of use. Only `refused` says that nothing listens there; the
// others mean that something may well be alive.
enum class Failure {
  none,
  refused,           // the host answered: nothing listens on that port
  no_route,          // host or network unreachable
  no_answer,         // the deadline passed before TCP was accepted
  silent,            // TCP was accepted, the server said nothing until the deadline
  resolve,           // the name could not be looked up
  auth,              // NOAUTH, WRONGPASS, or AUTH without a password set
  permission,        // NOPERM: logged in, but the ACL forbids the command
  protected_mode,    // DENIED: the server takes no clients of other hosts
  too_many_clients,  // max number of clients reached
  loading,           // LOADING: reading its data set into memory
  master_down,       // MASTERDOWN: a replica without a link that may not serve stale data
  read_only,         // READONLY: it is a replica
  misconf,           // MISCONF: it cannot save, and so takes no writes
  out_of_memory,     // OOM
  no_replicas,       // NOREPLICAS: fewer good replicas than min-replicas-to-write
  busy,              // BUSY: a script runs
  broken,            // the connection broke in the middle
  not_redis,         // something else answers on that port
  error,             // any other error reply
};
[[nodiscard]] const char* name_of(Failure failure);          // stable, for JSON
[[nodiscard]] const char* says(Failure failure);             // for people: "connection refused"
[[nodiscard]] Failure failure_named(std::string_view name);  // error for any other
// It said something, if only that it takes nobody in: it is alive. Pure.
[[nodiscard]] bool proves_life(Failure failure);
// By the text of an error reply, "WRONGPASS invalid username-password pair…". Pure.
[[nodiscard]] Failure classify(std::string_view error_reply);

struct Failed {
  Failure why = Failure::error;
  Error error;
  // Of an error reply: what the server said. The connection can be used on.
  std::string reply;
};
template <class T>
using Outcome = tl::expected<T, Failed>;

// Where and as whom. The password is never part of any message.
struct Target {
  std::string name;     // of the node, for messages
  std::string address;  // name or number; a path (with a leading slash) is a Unix socket
  int port = 6379;
  std::string user;      // empty: the default user
  std::string password;  // empty: no AUTH
  bool operator==(const Target&) const = default;
};

// A reply that is no error. Nested arrays are items; nil is a Reply of that kind.
struct Reply {
  enum class Kind { nil, status, string, integer, array, error };
  Kind kind = Kind::nil;
  std::string text;  // status, string; of an error inside an array
  std::int64_t number = 0;
  std::vector<Reply> items;
  [[nodiscard]] bool is_ok() const { return kind == Kind::status && text == "OK"; }
};

using Command = std::vector<std::string>;  // binary-safe arguments

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Pointer = std::shared_ptr<Connection>;
  // TCP (or Unix socket), AUTH when there is a password, and CLIENT SETNAME zx. Calls back exactly
  // once, on the loop.
  static void open(net::Loop& loop, const Target& target, Deadline deadline,
                   std::function<void(Outcome<Pointer>)> done);
  // Forgets what is out: nobody is called back any more.
  ~Connection();

  // Several may be out at once; they are answered in order. Each calls back exactly once, on the
  // loop. An error reply is a Failed after which the connection goes on; after a deadline or a
  // broken connection nothing more can be asked, and all that are out fail.
  void command(const Command& argv, Deadline deadline, std::function<void(Outcome<Reply>)> done);
  // Tells at once when the server ends the connection while no command is out (a command's own
  // callback tells it otherwise). At most once; nothing more can be asked then.
  void on_end(std::function<void()> ended);
  // Messages of SUBSCRIBE and PSUBSCRIBE. From then on only (p)subscribe, ping and quit may be
  // asked.
  void on_message(std::function<void(const std::string& channel, const std::string& text)> message);

 private:
  struct Impl;
  explicit Connection(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

// A connection of its own loop, for steps that do one thing after the other.
class Client {
 public:
  [[nodiscard]] static Outcome<Client> open(const Target& target, Deadline deadline);
  [[nodiscard]] Outcome<Reply> command(const Command& argv, Deadline deadline);

 private:
  std::unique_ptr<net::Loop> loop_;
  Connection::Pointer connection_;
};

// The error of an Outcome as a Result's, with the node's name and address in front.
[[nodiscard]] Error error_of(const Target& target, const Failed& failed);

}  // namespace zx::redis
