// A client that no server can hold: libpq, with a deadline for each answer.
#pragma once

#include <libpq-fe.h>

#include <poll.h>

#include <chrono>
#include <memory>
#include <string>

namespace zx::test {

using Clock = std::chrono::steady_clock;
using Connection = std::unique_ptr<PGconn, decltype(&PQfinish)>;
using Answer = std::unique_ptr<PGresult, decltype(&PQclear)>;

inline constexpr std::chrono::seconds kAnswerWithin{2};

// A server that is there and says nothing must not hold the client for ever.
inline Answer ask(PGconn* connection, const std::string& sql) {
  Answer none(nullptr, PQclear);
  if (PQsendQuery(connection, sql.c_str()) != 1) return none;
  const auto until = Clock::now() + kAnswerWithin;
  while (PQflush(connection) == 1) {
  }
  while (PQisBusy(connection) == 1) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    pollfd socket{PQsocket(connection), POLLIN, 0};
    if (left.count() <= 0 || ::poll(&socket, 1, static_cast<int>(left.count())) <= 0) return none;
    if (PQconsumeInput(connection) != 1) return none;
  }
  Answer last(nullptr, PQclear);
  while (auto* result = PQgetResult(connection)) last.reset(result);
  return last;
}

inline bool is_fine(const Answer& answer) {
  if (!answer) return false;
  const auto status = PQresultStatus(answer.get());
  return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

inline Connection connect(const std::string& dsn) {
  const std::string more = dsn.find("://") == std::string::npos
                               ? dsn + " target_session_attrs=read-write connect_timeout=2"
                               : dsn;
  Connection connection(PQconnectdb(more.c_str()), PQfinish);
  PQsetNoticeProcessor(
      connection.get(), [](void*, const char*) {}, nullptr);
  return connection;
}

}  // namespace zx::test
