#include "lib/backup/row_loader.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "lib/os/signals.h"
#include "lib/pg/copy_in.h"

namespace zx::backup {
namespace {

constexpr std::size_t kPiece = 1u << 20;
constexpr std::size_t kMostWaiting = 8;  // pieces

bool is_setting(const std::string& sql) {
  return sql.starts_with("SET ") || sql.starts_with("SELECT pg_catalog.set_config(");
}

// "COPY public.orders (id, says) FROM stdin;"
std::string table_of(const std::string& sql) {
  std::size_t end = 5;
  for (bool is_quoted = false; end < sql.size(); ++end) {
    if (sql[end] == '"') is_quoted = !is_quoted;
    if (!is_quoted && sql[end] == ' ') break;
  }
  return sql.substr(5, end - 5);
}

}  // namespace

struct RowLoader::Impl {
  std::vector<pg::CopyIn> connections;
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::string> pieces;
  std::string piece;  // that is being filled
  std::string copy;   // the statement
  std::vector<TableRows> counted;
  std::optional<Error> failed;
  int open = 0;  // connections in the middle of this COPY
  bool is_copied = false, is_over = false;

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      is_over = true;
    }
    changed.notify_all();
    for (auto& thread : threads) thread.join();
  }

  void fail_with(Error error) {
    const std::lock_guard lock(mutex);
    if (!failed) failed = std::move(error);
    changed.notify_all();
  }

  // One connection: takes pieces, and ends its COPY when there are no more.
  void work(pg::CopyIn& connection, const std::function<bool()>* interruption) {
    os::exchange_interruption(interruption);
    bool is_open = false;
    while (true) {
      std::string mine;
      {
        std::unique_lock lock(mutex);
        changed.wait(
            lock, [&] { return is_over || failed || !pieces.empty() || (is_copied && is_open); });
        if (is_over || failed) return;
        if (!pieces.empty()) {
          mine = std::move(pieces.front());
          pieces.pop_front();
          if (!is_open) ++open;
        }
      }
      changed.notify_all();
      if (mine.empty()) {
        const auto done = connection.end();
        if (!done) return fail_with(done.error());
        is_open = false;
        const std::lock_guard lock(mutex);
        counted.back().rows += *done;
        --open;
        changed.notify_all();
        continue;
      }
      auto done = is_open ? Status{} : connection.begin(copy);
      is_open = true;
      if (done) done = connection.put(mine);
      if (!done) return fail_with(done.error());
    }
  }

  Status push() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return failed || pieces.size() < kMostWaiting; });
    if (failed) return fail(*failed);
    pieces.push_back(std::exchange(piece, {}));
    piece.reserve(kPiece + (1u << 18));
    changed.notify_all();
    return {};
  }

  Status statement(const std::string& sql) {
    if (!is_setting(sql)) return connections.front().run(sql);
    for (auto& connection : connections) ZX_TRY(connection.run(sql));
    return {};
  }
  Status begin(const std::string& sql) {
    const std::lock_guard lock(mutex);
    copy = sql;
    counted.push_back({table_of(sql), 0});
    is_copied = false;
    return {};
  }
  Status rows(std::string_view lines) {
    piece += lines;
    return piece.size() < kPiece ? Status{} : push();
  }
  Status copied() {
    if (!piece.empty()) ZX_TRY(push());
    std::unique_lock lock(mutex);
    is_copied = true;
    changed.notify_all();
    changed.wait(lock, [&] { return failed || (pieces.empty() && open == 0); });
    if (failed) return fail(*failed);
    return {};
  }
};

RowLoader::RowLoader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RowLoader::RowLoader(RowLoader&&) noexcept = default;
RowLoader::~RowLoader() = default;

Result<RowLoader> RowLoader::connect(
    const pg::Target& target, const std::vector<std::pair<std::string, std::string>>& settings,
    int connections, Deadline until) {
  auto impl = std::make_unique<Impl>();
  for (int i = 0; i < connections; ++i) {
    ZX_ASSIGN(auto one, pg::CopyIn::connect(target, settings, until));
    impl->connections.push_back(std::move(one));
  }
  const auto* interruption = os::interrupted_by();
  for (auto& connection : impl->connections)
    impl->threads.emplace_back(
        [work = impl.get(), &connection, interruption] { work->work(connection, interruption); });
  return RowLoader(std::move(impl));
}

std::vector<TableRows> RowLoader::counted() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->counted;
}

DumpScript::Events RowLoader::events() {
  auto* work = impl_.get();
  return {[work](const std::string& sql) { return work->statement(sql); },
          [work](const std::string& sql) { return work->begin(sql); },
          [work](std::string_view lines) { return work->rows(lines); },
          [work] { return work->copied(); }};
}

}  // namespace zx::backup
