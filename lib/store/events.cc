#include "lib/store/events.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "lib/os/files.h"

namespace zx::store {
namespace {

constexpr int kBusyMs = 2000;
constexpr int kSchema = 1;
constexpr const char* kMakeTables = R"SQL(
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  cluster TEXT NOT NULL,
  kind TEXT NOT NULL,
  node TEXT NOT NULL,
  run TEXT NOT NULL,
  text TEXT NOT NULL,
  took_ms INTEGER
) STRICT;
)SQL";

std::int64_t millis_of(Wall at) {
  return std::chrono::duration_cast<Millis>(at.time_since_epoch()).count();
}

class Statement {
 public:
  Statement(sqlite3* db, const char* sql) {
    status_ = sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  [[nodiscard]] bool is_ready() const { return status_ == SQLITE_OK; }
  void bind(int at, std::int64_t number) { sqlite3_bind_int64(statement_, at, number); }
  void bind(int at, const std::string& text) {
    sqlite3_bind_text(statement_, at, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
  }
  [[nodiscard]] int step() { return is_ready() ? sqlite3_step(statement_) : status_; }
  [[nodiscard]] std::string text(int column) const {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return bytes == nullptr
               ? std::string()
               : std::string(bytes,
                             static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
  }
  [[nodiscard]] std::int64_t number(int column) const {
    return sqlite3_column_int64(statement_, column);
  }
  [[nodiscard]] bool is_null(int column) const {
    return sqlite3_column_type(statement_, column) == SQLITE_NULL;
  }

 private:
  sqlite3_stmt* statement_ = nullptr;
  int status_ = SQLITE_OK;
};

}  // namespace

struct Events::Impl {
  sqlite3* db = nullptr;
  std::string path;
  int until_trim = 0;
  ~Impl() { sqlite3_close(db); }

  // SQLite does not wait where two that wait could wait for each other, as when both begin the WAL.
  [[nodiscard]] int execute(const char* sql, const Deadline& patience) const {
    while (true) {
      const int status = sqlite3_exec(db, sql, nullptr, nullptr, nullptr);
      if (status != SQLITE_BUSY || patience.passed()) return status;
      pause_for(Millis(5));
    }
  }
  [[nodiscard]] tl::unexpected<Error> error(const char* doing) const {
    const int code = sqlite3_errcode(db);
    return fail(code == SQLITE_FULL ? Code::disk_full : Code::io,
                std::string(doing) + " " + path + ": " + sqlite3_errmsg(db),
                code == SQLITE_CORRUPT || code == SQLITE_NOTADB
                    ? "move the file away: it holds events only, a new one is made"
                    : "");
  }
};

Json to_json(const Event& event) {
  Json json{{"at", format_utc(event.at)}, {"cluster", event.cluster}, {"event", event.kind},
            {"node", event.node},         {"run", event.run},         {"text", event.text}};
  json["ms"] = event.took ? Json(event.took->count()) : Json();
  return json;
}

Event event_from_json(const Json& json) {
  Event event{parse_utc(get_string(json, "at")),
              get_string(json, "cluster"),
              get_string(json, "event"),
              get_string(json, "node"),
              get_string(json, "run"),
              get_string(json, "text"),
              {}};
  if (get_object(json, "ms").is_number_integer()) event.took = Millis(get_int(json, "ms"));
  return event;
}

Events::Events(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Events::~Events() = default;

Result<std::unique_ptr<Events>> Events::open(const std::string& path) {
  ZX_TRY(os::make_directories(os::parent_of(path)));
  {
    // Before SQLite makes it with the mode of the umask; its WAL takes the mode of the file. Closed
    // before SQLite opens it: closing any descriptor of a file drops all locks that this process
    // has on it, and the next reader to leave would delete the WAL under the writer.
    const os::Descriptor made(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    if (!made) return fail(errno_error(Code::io, "cannot open " + path, errno));
  }
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  if (sqlite3_open_v2(path.c_str(), &impl->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
                      nullptr) != SQLITE_OK)
    return impl->error("cannot open");
  sqlite3_busy_timeout(impl->db, kBusyMs);
  {
    // Before anything of it is changed.
    Statement version(impl->db, "PRAGMA user_version");
    if (version.step() != SQLITE_ROW) return impl->error("cannot open");
    if (version.number(0) > kSchema)
      return fail(Code::io, path + " was made by a newer zx", "use that version");
  }
  const auto set_version = "PRAGMA user_version = " + std::to_string(kSchema);
  const auto patience = Deadline::after(Millis(kBusyMs));
  for (const char* sql : {"PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", kMakeTables,
                          set_version.c_str()})
    if (impl->execute(sql, patience) != SQLITE_OK) return impl->error("cannot open");
  return std::unique_ptr<Events>(new Events(std::move(impl)));
}

Result<std::unique_ptr<Events>> Events::open_existing(const std::string& path) {
  if (!os::exists(path)) return std::unique_ptr<Events>();
  return open(path);
}

Status Events::add(const Event& event) {
  Statement insert(impl_->db,
                   "INSERT INTO events (at_ms, cluster, kind, node, run, text, took_ms) "
                   "VALUES (?, ?, ?, ?, ?, ?, ?)");
  if (insert.is_ready()) {
    insert.bind(1, millis_of(event.at));
    insert.bind(2, event.cluster);
    insert.bind(3, event.kind);
    insert.bind(4, event.node);
    insert.bind(5, event.run);
    insert.bind(6, event.text);
    if (event.took) insert.bind(7, event.took->count());
  }
  if (insert.step() != SQLITE_DONE) return impl_->error("cannot write to");
  if (impl_->until_trim-- > 0) return {};
  impl_->until_trim = 1000;
  Statement trim(impl_->db, "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?");
  if (trim.is_ready()) trim.bind(1, kMost);
  if (trim.step() != SQLITE_DONE) return impl_->error("cannot write to");
  return {};
}

Result<std::vector<Event>> Events::newest(std::size_t most, const std::string& cluster) const {
  Statement select(impl_->db,
                   "SELECT at_ms, cluster, kind, node, run, text, took_ms FROM events "
                   "WHERE ?1 = '' OR cluster = ?1 ORDER BY id DESC LIMIT ?2");
  if (select.is_ready()) {
    select.bind(1, cluster);
    select.bind(2, static_cast<std::int64_t>(std::min<std::size_t>(most, kMost)));
  }
  std::vector<Event> events;
  int status = SQLITE_ROW;
  while ((status = select.step()) == SQLITE_ROW) {
    Event event{Wall(Millis(select.number(0))),
                select.text(1),
                select.text(2),
                select.text(3),
                select.text(4),
                select.text(5),
                {}};
    if (!select.is_null(6)) event.took = Millis(select.number(6));
    events.push_back(std::move(event));
  }
  if (status != SQLITE_DONE) return impl_->error("cannot read");
  std::reverse(events.begin(), events.end());
  return events;
}

}  // namespace zx::store
