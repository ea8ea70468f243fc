#include "lib/agent/backup_watch.h"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "lib/backup/metrics.h"

namespace zx::agent {
namespace {

constexpr Millis kEvery{60'000};

std::string read(const config::Backup& backup) {
  const std::string head =
      "# HELP zx_backup_readable Whether the repository of the backups can be read.\n"
      "# TYPE zx_backup_readable gauge\n";
  const auto repository = backup::Repository::open(backup.repository);
  const auto sets = repository ? repository->sets() : fail(repository.error());
  if (!sets) return head + "zx_backup_readable 0\n";
  return head + "zx_backup_readable 1\n" +
         backup::metrics_text(*sets, backup, system_clock().wall());
}

}  // namespace

struct BackupWatch::State {
  config::Backup backup;
  std::mutex mutex;
  std::condition_variable wake;
  std::string text;
  bool is_over = false;

  void work() {
    while (true) {
      auto now = read(backup);
      std::unique_lock lock(mutex);
      text = std::move(now);
      if (wake.wait_for(lock, kEvery, [this] { return is_over; })) return;
    }
  }
};

BackupWatch::BackupWatch(config::Backup backup) : state_(std::make_shared<State>()) {
  state_->backup = std::move(backup);
  if (state_->backup.repository.empty()) return;
  std::thread([state = state_] { state->work(); }).detach();
}

BackupWatch::~BackupWatch() {
  const std::lock_guard lock(state_->mutex);
  state_->is_over = true;
  state_->wake.notify_all();
}

std::string BackupWatch::metrics() const {
  const std::lock_guard lock(state_->mutex);
  return state_->text;
}

}  // namespace zx::agent
