#include "lib/pg/copy_in.h"

#include <libpq-fe.h>
#include <poll.h>

#include <cerrno>
#include <cstdlib>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/signals.h"

namespace zx::pg {
namespace {

constexpr int kLook = 50;  // ms between two questions whether zx is interrupted
constexpr std::size_t kPiece = 1u << 18;

// lock_not_available, deadlock_detected
bool is_about_a_lock(const char* sqlstate) {
  return sqlstate != nullptr &&
         (std::string_view(sqlstate) == "55P03" || std::string_view(sqlstate) == "40P01");
}

bool is_copy(const PGresult* result) {
  const auto status = PQresultStatus(result);
  return status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
}

}  // namespace

struct CopyIn::Impl {
  Target target;
  Deadline until{Monotonic{}};
  PGconn* connection = nullptr;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { PQfinish(connection); }

  [[nodiscard]] Error error(Code code, const std::string& words) const {
    return Error{code, target.name + ": " + clean_utf8(trim(words)), {}, {}, false};
  }
  [[nodiscard]] Error broken() const {
    return error(Code::unreachable,
                 connection == nullptr ? "the connection is closed" : PQerrorMessage(connection));
  }
  Status may_go_on() const {
    if (auto stopped = os::interruption()) return fail(*std::move(stopped));
    if (until.passed()) return fail(error(Code::timeout, "the load did not end in time"));
    return {};
  }
  // Until the server takes more, or has said something.
  Status wait(short events) {
    ZX_TRY(may_go_on());
    pollfd one{PQsocket(connection), events, 0};
    if (poll(&one, 1, kLook) < 0 && errno != EINTR)
      return fail(errno_error(Code::internal, "cannot wait for " + target.name, errno));
    if ((one.revents & POLLIN) != 0 && PQconsumeInput(connection) == 0) return fail(broken());
    return {};
  }
  Status flush() {
    while (true) {
      const int left = PQflush(connection);
      if (left == 0) return {};
      if (left < 0) return fail(broken());
      ZX_TRY(wait(POLLIN | POLLOUT));
    }
  }
  // The next result; null: there is none any more.
  Result<PGresult*> next() {
    while (PQisBusy(connection) != 0) ZX_TRY(wait(POLLIN));
    return PQgetResult(connection);
  }
  Status check(PGresult* result, ExecStatusType wanted) {
    const auto status = PQresultStatus(result);
    const bool is_fine =
        status == wanted || (wanted == PGRES_COMMAND_OK && status == PGRES_TUPLES_OK);
    const std::string words = PQresultErrorMessage(result);
    const bool is_lock = is_about_a_lock(PQresultErrorField(result, PG_DIAG_SQLSTATE));
    PQclear(result);
    if (is_fine) return {};
    if (PQstatus(connection) != CONNECTION_OK) return fail(broken());
    auto said = error(Code::server, words.empty() ? "it answered otherwise than expected" : words);
    said.retryable = is_lock;
    return fail(std::move(said));
  }
  // libpq would tell of it again and again, and the server waits for rows, or has any number.
  Error closed_for_copy(PGresult* result) {
    PQclear(result);
    PQfinish(connection);
    connection = nullptr;
    return error(Code::server, "a COPY was begun where none was expected");
  }
  // All results of a statement, or of the end of a COPY; the rows that the last one counted.
  Result<std::uint64_t> finish() {
    Status done;
    std::uint64_t rows = 0;
    while (true) {
      ZX_TRY(may_go_on());
      ZX_ASSIGN(auto* result, next());
      if (result == nullptr) break;
      if (is_copy(result)) return fail(closed_for_copy(result));
      rows = std::strtoull(PQcmdTuples(result), nullptr, 10);
      if (auto one = check(result, PGRES_COMMAND_OK); !one && done) done = std::move(one);
    }
    if (!done) return fail(done.error());
    return rows;
  }
  Status expect(ExecStatusType wanted) {
    ZX_ASSIGN(auto* result, next());
    if (result == nullptr) return fail(broken());
    return check(result, wanted);
  }
  Status send(const std::string& sql) {
    if (PQsendQuery(connection, sql.c_str()) == 0) return fail(broken());
    return flush();
  }
};

CopyIn::CopyIn(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CopyIn::CopyIn(CopyIn&&) noexcept = default;
CopyIn& CopyIn::operator=(CopyIn&&) noexcept = default;
CopyIn::~CopyIn() = default;

Result<CopyIn> CopyIn::connect(const Target& target,
                               const std::vector<std::pair<std::string, std::string>>& settings,
                               Deadline until) {
  auto impl = std::make_unique<Impl>();
  impl->target = target;
  impl->until = until;
  const auto port = std::to_string(target.port);
  std::string options;
  for (const auto& [name, value] : settings) options += " -c " + name + "=" + value;
  std::vector<const char*> keys, values;
  const auto add = [&](const char* key, const std::string& value) {
    if (value.empty()) return;
    keys.push_back(key);
    values.push_back(value.c_str());
  };
  add("host", target.address);
  add("port", port);
  add("user", target.user);
  add("password", target.password);
  add("dbname", target.database);
  add("sslmode", target.sslmode);
  add("sslrootcert", target.sslrootcert);
  add("options", options);
  const std::string timeout = "10", name = "zx";
  add("connect_timeout", timeout);
  add("application_name", name);
  keys.push_back(nullptr);
  values.push_back(nullptr);
  // The name of a database is not taken for a connection string.
  impl->connection = PQconnectdbParams(keys.data(), values.data(), 0);
  if (PQstatus(impl->connection) != CONNECTION_OK) return fail(impl->broken());
  if (PQsetnonblocking(impl->connection, 1) != 0) return fail(impl->broken());
  return CopyIn(std::move(impl));
}

Status CopyIn::run(const std::string& sql) {
  ZX_TRY(impl_->send(sql));
  ZX_TRY(impl_->finish());
  return {};
}

Result<Rows> CopyIn::ask(const std::string& sql) {
  ZX_TRY(impl_->send(sql));
  ZX_ASSIGN(auto* result, impl_->next());
  if (result == nullptr) return fail(impl_->broken());
  Rows rows;
  for (int at = 0; at < PQntuples(result); ++at) {
    auto& row = rows.emplace_back();
    for (int field = 0; field < PQnfields(result); ++field)
      row.push_back(PQgetisnull(result, at, field) != 0
                        ? std::nullopt
                        : std::optional<std::string>(PQgetvalue(result, at, field)));
  }
  auto done = impl_->check(result, PGRES_TUPLES_OK);
  // The connection is to be at rest whatever was said.
  if (auto rest = impl_->finish(); !rest && done) done = fail(rest.error());
  if (!done) return fail(done.error());
  return rows;
}

Status CopyIn::begin(const std::string& sql) {
  ZX_TRY(impl_->send(sql));
  return impl_->expect(PGRES_COPY_IN);
}

Status CopyIn::put(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto piece = bytes.substr(0, kPiece);
    const int put = PQputCopyData(impl_->connection, piece.data(), static_cast<int>(piece.size()));
    if (put < 0) return fail(impl_->broken());
    if (put > 0) bytes.remove_prefix(piece.size());
    // What libpq keeps in memory is not to grow.
    ZX_TRY(impl_->flush());
  }
  return {};
}

Result<std::uint64_t> CopyIn::end() {
  while (true) {
    const int ended = PQputCopyEnd(impl_->connection, nullptr);
    if (ended < 0) return fail(impl_->broken());
    if (ended > 0) break;
    ZX_TRY(impl_->flush());
  }
  ZX_TRY(impl_->flush());
  return impl_->finish();
}

Status CopyIn::copy_out(const std::string& sql,
                        const std::function<Status(std::string_view)>& take) {
  ZX_TRY(impl_->send(sql));
  ZX_TRY(impl_->expect(PGRES_COPY_OUT));
  std::string piece;
  while (true) {
    char* line = nullptr;
    const int size = PQgetCopyData(impl_->connection, &line, 1);
    if (size == -1) break;
    if (size < -1) return fail(impl_->broken());
    if (size == 0) {
      ZX_TRY(impl_->wait(POLLIN));
      continue;
    }
    piece.append(line, static_cast<std::size_t>(size));
    PQfreemem(line);
    if (piece.size() < kPiece) continue;
    ZX_TRY(take(piece));
    piece.clear();
  }
  ZX_TRY(impl_->finish());
  return piece.empty() ? Status{} : take(piece);
}

}  // namespace zx::pg
