// A client that no server can hold: libpq, with a deadline for each answer.
#pragma once

#include <libpq-fe.h>

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace zx::test {

using Clock = std::chrono::steady_clock;
using Connection = std::unique_ptr<PGconn, decltype(&PQfinish)>;
using Answer = std::unique_ptr<PGresult, decltype(&PQclear)>;

inline constexpr std::chrono::milliseconds kAnswerWithin{2000};
inline constexpr std::chrono::milliseconds kReachWithin{250};  // the host, by TCP

// A server that is there and says nothing must not hold the client for ever.
inline Answer ask(PGconn* connection, const std::string& sql) {
  Answer none(nullptr, PQclear);
  if (connection == nullptr || PQsendQuery(connection, sql.c_str()) != 1) return none;
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

inline std::vector<std::string> words_of(const std::string& list) {
  std::vector<std::string> words;
  std::istringstream in(list);
  for (std::string word; std::getline(in, word, ',');) words.push_back(word);
  return words;
}

// One server of a DSN, whose other words are `rest`.
inline Connection connect_to(const std::string& host, const std::string& port,
                             const std::map<std::string, std::string>& rest) {
  std::vector<const char*> keys{"host", "port"}, values{host.c_str(), port.c_str()};
  for (const auto& [key, value] : rest) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  keys.push_back(nullptr);
  values.push_back(nullptr);
  const auto began = Clock::now();
  Connection connection(PQconnectStartParams(keys.data(), values.data(), 0), PQfinish);
  PQsetNoticeProcessor(
      connection.get(), [](void*, const char*) {}, nullptr);
  for (auto state = PGRES_POLLING_WRITING; PQstatus(connection.get()) != CONNECTION_BAD;
       state = PQconnectPoll(connection.get())) {
    if (state == PGRES_POLLING_OK) return connection;
    if (state == PGRES_POLLING_FAILED) break;
    const bool is_reached = PQstatus(connection.get()) != CONNECTION_STARTED;
    const auto until = began + (is_reached ? kAnswerWithin : kReachWithin);
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    pollfd socket{PQsocket(connection.get()),
                  static_cast<short>(state == PGRES_POLLING_READING ? POLLIN : POLLOUT), 0};
    if (left.count() <= 0 || ::poll(&socket, 1, static_cast<int>(left.count())) <= 0) break;
  }
  return {nullptr, PQfinish};
}

// The first of the DSN's servers that takes writes; null when there is none now. libpq's own way
// gives a silent host 2 s at least, which would be how finely an outage is seen.
inline Connection connect(const std::string& dsn) {
  std::map<std::string, std::string> words{{"target_session_attrs", "read-write"}};
  std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> parsed(
      PQconninfoParse(dsn.c_str(), nullptr), PQconninfoFree);
  for (auto* option = parsed.get(); option != nullptr && option->keyword != nullptr; ++option)
    if (option->val != nullptr) words[option->keyword] = option->val;
  const auto hosts = words_of(words["host"]), ports = words_of(words["port"]);
  words.erase("host");
  words.erase("port");
  for (std::size_t i = 0; i < hosts.size(); ++i)
    if (auto connection = connect_to(
            hosts[i], ports.empty() ? "5432" : ports[std::min(i, ports.size() - 1)], words))
      return connection;
  return {nullptr, PQfinish};
}

}  // namespace zx::test
