#include "lib/pg/connection.h"

#include <libpq-fe.h>

#include <array>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::pg {
namespace {

struct FailureName {
  Failure failure;
  const char* name;
  const char* says;
  Code code;
};

constexpr std::array kFailures{
    FailureName{Failure::none, "none", "answers", Code::internal},
    FailureName{Failure::refused, "refused", "connection refused", Code::unreachable},
    FailureName{Failure::no_route, "no_route", "no route to the host", Code::unreachable},
    FailureName{Failure::no_answer, "no_answer", "no answer from the host", Code::timeout},
    FailureName{Failure::silent, "silent", "accepts connections but does not answer",
                Code::timeout},
    FailureName{Failure::resolve, "resolve", "its name cannot be resolved", Code::unreachable},
    FailureName{Failure::auth, "auth", "authentication failed", Code::auth},
    FailureName{Failure::permission, "permission", "the role may not see what zx needs",
                Code::auth},
    FailureName{Failure::starting_up, "starting_up", "starting up", Code::starting_up},
    FailureName{Failure::recovering, "recovering", "recovering, takes no connections yet",
                Code::starting_up},
    FailureName{Failure::shutting_down, "shutting_down", "shutting down", Code::shutting_down},
    FailureName{Failure::too_many_connections, "too_many_connections", "no free connection",
                Code::too_many_connections},
    FailureName{Failure::no_database, "no_database", "the database does not exist", Code::server},
    FailureName{Failure::broken, "broken", "the connection broke", Code::unreachable},
    FailureName{Failure::not_postgres, "not_postgres", "something that is not PostgreSQL answers",
                Code::server},
    FailureName{Failure::resources, "resources", "the server lacks space, memory or a file",
                Code::server},
    FailureName{Failure::cancelled, "cancelled", "the statement was cancelled", Code::server},
    FailureName{Failure::in_use, "in_use", "it is in use", Code::server},
    FailureName{Failure::other, "other", "failed", Code::server},
};

const FailureName& entry_of(Failure failure) {
  for (const auto& entry : kFailures)
    if (entry.failure == failure) return entry;
  return kFailures.back();
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

Failed failed_with(Failure why, std::string message) {
  return Failed{why, Error{entry_of(why).code, std::move(message), {}, {}, true}};
}

}  // namespace

const char* name_of(Failure failure) { return entry_of(failure).name; }
const char* says(Failure failure) { return entry_of(failure).says; }
Failure failure_named(std::string_view name) {
  for (const auto& entry : kFailures)
    if (entry.name == name) return entry.failure;
  return Failure::other;
}

const char* name_of(Ending ending) {
  switch (ending) {
    case Ending::stopped_fast: return "stopped_fast";
    case Ending::stopped_immediately: return "stopped_immediately";
    case Ending::crashed: return "crashed";
    case Ending::postmaster_gone: return "postmaster_gone";
    case Ending::broken: return "broken";
  }
  return "broken";
}

Ending ending_of(std::string_view sqlstate, std::string_view function) {
  if (sqlstate == "57P02") return Ending::crashed;
  if (sqlstate != "57P01") return Ending::broken;
  if (function == "ProcessInterrupts") return Ending::stopped_fast;
  if (function == "quickdie") return Ending::stopped_immediately;
  return Ending::postmaster_gone;
}

ServerMessage parse_message(std::string_view verbose) {
  // Severity is translated, the five characters behind it are not.
  const auto is_state = [](std::string_view s) {
    if (s.size() < 5) return false;
    for (const char c : s.substr(0, 5))
      if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'))) return false;
    return s.size() == 5 || s[5] == ':' || s[5] == '\n';
  };
  for (std::size_t at = verbose.find(":  "); at != std::string_view::npos;
       at = verbose.find(":  ", at + 1)) {
    const auto rest = verbose.substr(at + 3);
    if (!is_state(rest)) continue;
    auto text = rest.substr(5);
    if (text.starts_with(": ")) text.remove_prefix(2);
    return {std::string(rest.substr(0, 5)), first_line(text)};
  }
  return {{}, first_line(verbose)};
}

Failure classify(const ServerMessage& m) {
  if (!m.sqlstate.empty()) {
    if (m.sqlstate == "53300") return Failure::too_many_connections;
    if (m.sqlstate == "3D000") return Failure::no_database;
    if (m.sqlstate.starts_with("28")) return Failure::auth;
    if (m.sqlstate == "42501") return Failure::permission;
    if (m.sqlstate.starts_with("53") || m.sqlstate.starts_with("58")) return Failure::resources;
    if (m.sqlstate == "57014") return Failure::cancelled;
    if (m.sqlstate == "55006") return Failure::in_use;
    if (m.sqlstate == "57P01" || m.sqlstate == "57P02") return Failure::shutting_down;
    if (m.sqlstate == "57P03") {
      // One SQLSTATE for four states: only the text tells them apart (English and Chinese servers).
      if (contains(m.text, "shutting down") || contains(m.text, "关闭"))
        return Failure::shutting_down;
      if (contains(m.text, "not yet accepting") || contains(m.text, "not accepting"))
        return Failure::recovering;
      return Failure::starting_up;
    }
    return Failure::other;
  }
  // libpq's own words are not translated: zx never calls setlocale().
  if (contains(m.text, "Connection refused")) return Failure::refused;
  if (contains(m.text, "No route to host") || contains(m.text, "Network is unreachable") ||
      contains(m.text, "Invalid argument"))
    return Failure::no_route;
  if (contains(m.text, "Connection timed out")) return Failure::no_answer;
  if (contains(m.text, "could not translate host name")) return Failure::resolve;
  if (contains(m.text, "expected authentication request from server") ||
      contains(m.text, "invalid response to SSL negotiation"))
    return Failure::not_postgres;
  if (contains(m.text, "no password supplied") || contains(m.text, "authentication") ||
      contains(m.text, "certificate"))
    return Failure::auth;
  if (contains(m.text, "closed the connection") || contains(m.text, "Connection reset") ||
      contains(m.text, "Broken pipe"))
    return Failure::broken;
  return Failure::other;
}

struct Connection::Impl : std::enable_shared_from_this<Connection::Impl> {
  explicit Impl(net::Loop& l) : loop(l), timer(l) {}
  ~Impl() { close(); }

  net::Loop& loop;
  net::Timer timer;
  std::unique_ptr<net::Watch> watch;
  PGconn* conn = nullptr;
  std::string name;
  bool tcp_accepted = false;
  bool finished = false;     // the connect callback was called
  bool is_prepared = false;  // the statement of query_prepared()
  std::function<void(Outcome<Pointer>)> opened;
  std::function<void(Outcome<Rows>)> answered;
  std::function<void(Ending)> ended;
  std::optional<Ending> last_words;
  PGresult* last = nullptr;

  void listen_to(const PGresult* said) {
    const char* state = PQresultErrorField(said, PG_DIAG_SQLSTATE);
    const char* function = PQresultErrorField(said, PG_DIAG_SOURCE_FUNCTION);
    if (state == nullptr || function == nullptr) return;
    if (const auto ending = ending_of(state, function); ending != Ending::broken)
      last_words = ending;
  }

  // Between two queries the connection is watched.
  void idle() {
    if (conn == nullptr || !ended || answered) return;
    keep_watch();
    watch->arm(net::Watch::For::read, [self = shared_from_this()] { self->on_idle_ready(); });
  }

  // The socket of an open connection stays the same.
  void keep_watch() {
    if (!watch) watch = std::make_unique<net::Watch>(loop, PQsocket(conn));
  }

  void on_idle_ready() {
    const bool is_open = PQconsumeInput(conn) != 0;
    (void)PQisBusy(conn);  // reads what came: notices, the last words
    if (is_open && PQstatus(conn) == CONNECTION_OK && !last_words) return idle();
    close();
    auto callback = std::move(ended);
    ended = nullptr;
    callback(last_words.value_or(Ending::broken));
  }

  void close() {
    watch.reset();
    timer.cancel();
    if (last != nullptr) PQclear(last);
    last = nullptr;
    if (conn != nullptr) PQfinish(conn);
    conn = nullptr;
  }

  void finish_open(Outcome<Pointer> outcome) {
    if (std::exchange(finished, true)) return;
    timer.cancel();
    watch.reset();
    if (!outcome) close();
    auto callback = std::move(opened);
    opened = nullptr;
    callback(std::move(outcome));
  }

  void start(const Target& target, const std::vector<std::string>& addresses) {
    std::vector<std::string> hosts(addresses.size(), target.address);
    const auto host = addresses.empty() ? target.address : join(hosts, ",");
    const auto hostaddr = join(addresses, ",");
    const auto port = std::to_string(target.port);
    auto options = std::string("-c search_path=pg_catalog");
    if (target.statement_timeout.count() > 0)
      options += fmt::format(" -c statement_timeout={}", target.statement_timeout.count());
    std::vector<const char*> keys, values;
    const auto set = [&](const char* key, const std::string& value) {
      if (value.empty()) return;
      keys.push_back(key);
      values.push_back(value.c_str());
    };
    set("host", host);
    set("hostaddr", hostaddr);
    set("port", port);
    set("user", target.user);
    set("password", target.password);
    set("dbname", target.database);
    set("sslmode", target.sslmode);
    set("sslrootcert", target.sslrootcert);
    const std::string application = "zx", encoding = "UTF8", gss = "disable";
    set("application_name", application);
    set("client_encoding", encoding);
    set("gssencmode", gss);
    set("options", options);
    keys.push_back(nullptr);
    values.push_back(nullptr);
    conn = PQconnectStartParams(keys.data(), values.data(), 0);
    if (conn == nullptr || PQstatus(conn) == CONNECTION_BAD) return fail_open();
    // Verbose messages carry the SQLSTATE, which libpq has no other way to tell while connecting.
    PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
    PQsetNoticeReceiver(
        conn, [](void* self, const PGresult* said) { static_cast<Impl*>(self)->listen_to(said); },
        this);
    wait_connect(PGRES_POLLING_WRITING);
  }

  void fail_open() {
    const auto message = parse_message(conn != nullptr ? PQerrorMessage(conn) : "out of memory");
    const auto why = classify(message);
    finish_open(tl::unexpected(failed_with(why, message.text)));
  }

  void wait_connect(PostgresPollingStatusType wanted) {
    // libpq may have another socket after each poll (next address, SSL refused): watch anew.
    watch = std::make_unique<net::Watch>(loop, PQsocket(conn));
    watch->arm(wanted == PGRES_POLLING_READING ? net::Watch::For::read : net::Watch::For::write,
               [self = shared_from_this()] { self->step_connect(); });
  }

  void step_connect() {
    watch.reset();
    const auto status = PQconnectPoll(conn);
    tcp_accepted =
        tcp_accepted || (PQstatus(conn) != CONNECTION_STARTED && PQstatus(conn) != CONNECTION_BAD);
    if (status == PGRES_POLLING_FAILED) return fail_open();
    if (status != PGRES_POLLING_OK) return wait_connect(status);
    PQsetnonblocking(conn, 1);
    finish_open(Pointer(new Connection(shared_from_this())));
  }

  void finish_query(Outcome<Rows> outcome) {
    timer.cancel();
    auto callback = std::move(answered);
    answered = nullptr;
    if (callback) callback(std::move(outcome));
    idle();
  }

  void fail_query(Failed failed) {
    failed.ending = last_words.value_or(Ending::broken);
    close();
    ended = nullptr;
    finish_query(tl::unexpected(std::move(failed)));
  }

  Failed broken() {
    const auto message =
        parse_message(conn != nullptr ? PQerrorMessage(conn) : "connection closed");
    auto why = classify(message);
    if (why == Failure::other) why = Failure::broken;
    return failed_with(why, message.text);
  }

  void pump() {
    const int unsent = PQflush(conn);
    if (unsent < 0) return fail_query(broken());
    keep_watch();
    const auto ready = [self = shared_from_this()] { self->on_ready(); };
    if (unsent > 0)
      watch->arm_both(ready);
    else
      watch->arm(net::Watch::For::read, ready);
  }

  void on_ready() {
    if (PQconsumeInput(conn) == 0) return fail_query(broken());
    while (PQisBusy(conn) == 0) {
      PGresult* result = PQgetResult(conn);
      if (result == nullptr) return complete();
      if (last != nullptr) {
        // The first error of several statements is the answer.
        if (PQresultStatus(last) == PGRES_FATAL_ERROR) {
          PQclear(result);
          continue;
        }
        PQclear(last);
      }
      last = result;
    }
    pump();
  }

  void complete() {
    PGresult* result = std::exchange(last, nullptr);
    if (result == nullptr) return fail_query(broken());
    const auto status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY) {
      Rows rows(static_cast<std::size_t>(PQntuples(result)));
      for (std::size_t r = 0; r < rows.size(); ++r)
        for (int c = 0; c < PQnfields(result); ++c) {
          const int row = static_cast<int>(r);
          if (PQgetisnull(result, row, c) != 0)
            rows[r].emplace_back();
          else
            rows[r].emplace_back(std::string(
                PQgetvalue(result, row, c), static_cast<std::size_t>(PQgetlength(result, row, c))));
        }
      PQclear(result);
      return finish_query(std::move(rows));
    }
    const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char* text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    listen_to(result);
    const ServerMessage message{state != nullptr ? state : "",
                                first_line(text != nullptr ? text : PQresultErrorMessage(result))};
    PQclear(result);
    if (PQstatus(conn) == CONNECTION_BAD) {
      auto why = classify(message);
      if (why == Failure::other) why = Failure::broken;
      return fail_query(failed_with(why, message.text));
    }
    auto failed = failed_with(classify(message), message.text);
    failed.error.retryable = false;
    finish_query(tl::unexpected(std::move(failed)));
  }
};

void Connection::open(net::Loop& loop, const Target& target, Deadline deadline,
                      std::function<void(Outcome<Pointer>)> done) {
  auto impl = std::make_shared<Impl>(loop);
  impl->name = target.name;
  impl->opened = std::move(done);
  const auto span = deadline.left();
  impl->timer.at(deadline, [weak = std::weak_ptr<Impl>(impl), span] {
    const auto self = weak.lock();
    if (!self) return;
    const auto why = self->tcp_accepted ? Failure::silent : Failure::no_answer;
    self->finish_open(tl::unexpected(failed_with(
        why, fmt::format("{} within {}", self->tcp_accepted ? "no answer" : "no connection",
                         format_duration(span)))));
  });
  if (target.address.starts_with('/')) {  // the directory of a Unix socket: nothing to look up
    loop.post([impl, target] {
      if (!impl->finished) impl->start(target, {});
    });
    return;
  }
  net::resolve(loop, target.address, [impl, target](Result<std::vector<std::string>> addresses) {
    if (impl->finished) return;
    if (!addresses)
      return impl->finish_open(tl::unexpected(Failed{Failure::resolve, addresses.error()}));
    impl->start(target, *addresses);
  });
}

Connection::~Connection() { impl_->close(); }

void Connection::query(const std::string& sql, const std::vector<std::string>& parameters,
                       Deadline deadline, std::function<void(Outcome<Rows>)> done) {
  auto impl = impl_;
  impl->answered = std::move(done);
  if (impl->conn == nullptr) {
    impl->loop.post([impl] {
      impl->finish_query(tl::unexpected(failed_with(Failure::broken, "the connection is closed")));
    });
    return;
  }
  const auto span = deadline.left();
  impl->timer.at(deadline, [weak = std::weak_ptr<Impl>(impl), span] {
    if (const auto self = weak.lock())
      self->fail_query(
          failed_with(Failure::silent, fmt::format("no answer within {}", format_duration(span))));
  });
  int sent = 0;
  if (parameters.empty()) {
    sent = PQsendQuery(impl->conn, sql.c_str());
  } else {
    std::vector<const char*> values;
    for (const auto& parameter : parameters) values.push_back(parameter.c_str());
    sent = PQsendQueryParams(impl->conn, sql.c_str(), static_cast<int>(values.size()), nullptr,
                             values.data(), nullptr, nullptr, 0);
  }
  if (sent == 0) {
    impl->loop.post([impl] { impl->fail_query(impl->broken()); });
    return;
  }
  impl->pump();
}

void Connection::query_prepared(std::string_view sql, Deadline deadline,
                                std::function<void(Outcome<Rows>)> done) {
  // After an error it is not known whether the statement is there.
  const bool was_prepared = std::exchange(impl_->is_prepared, false);
  query(was_prepared ? "EXECUTE zx"
                     : fmt::format("DEALLOCATE ALL; PREPARE zx AS {}; EXECUTE zx", sql),
        {}, deadline, [impl = impl_.get(), done = std::move(done)](Outcome<Rows> rows) {
          impl->is_prepared = rows.has_value();
          done(std::move(rows));
        });
}

void Connection::on_end(std::function<void(Ending)> ended) {
  impl_->ended = std::move(ended);
  impl_->idle();
}

Outcome<Client> Client::open(const Target& target, Deadline deadline) {
  Client client;
  client.loop_ = std::make_unique<net::Loop>();
  std::optional<Outcome<Connection::Pointer>> outcome;
  Connection::open(*client.loop_, target, deadline,
                   [&](Outcome<Connection::Pointer> result) { outcome = std::move(result); });
  // The connection's own timer answers at the deadline; the margin is for that callback to run.
  client.loop_->run_until([&] { return outcome.has_value(); },
                          Deadline(deadline.at() + Millis(500)));
  if (!outcome) return tl::unexpected(failed_with(Failure::no_answer, "no answer"));
  if (!*outcome) return tl::unexpected(outcome->error());
  client.connection_ = std::move(**outcome);
  return client;
}

Outcome<Rows> Client::query(const std::string& sql, Deadline deadline,
                            const std::vector<std::string>& parameters) {
  std::optional<Outcome<Rows>> outcome;
  connection_->query(sql, parameters, deadline,
                     [&](Outcome<Rows> result) { outcome = std::move(result); });
  loop_->run_until([&] { return outcome.has_value(); }, Deadline(deadline.at() + Millis(500)));
  if (!outcome) return tl::unexpected(failed_with(Failure::silent, "no answer"));
  return *outcome;
}

Error error_of(const Target& target, const Failed& failed) {
  Error error = failed.error;
  error.message = fmt::format("{} ({}:{}): {}", target.name, target.address, target.port,
                              error.message.empty() ? says(failed.why) : error.message);
  return error;
}

std::string quote_literal(std::string_view text) {
  std::string out;
  bool escaped = false;
  for (const char c : text) {
    if (c == '\'') out += '\'';
    if (c == '\\') {
      out += '\\';
      escaped = true;
    }
    out += c;
  }
  return (escaped ? "E'" : "'") + out + "'";
}

}  // namespace zx::pg
