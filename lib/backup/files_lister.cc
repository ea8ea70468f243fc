#include "lib/backup/files_lister.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

namespace zx::backup {
namespace {

constexpr std::size_t kMostAhead = 16;        // directories
constexpr std::size_t kMostLooks = 16 << 10;  // of one directory: 2.3 MiB
constexpr std::size_t kWorthHalves = 4 << 10;

void look(Listing& listing, std::size_t from, std::size_t to) {
  for (std::size_t i = from; i < to; ++i)
    if (fstatat(listing.directory.get(), listing.names[i], &listing.looks[i],
                AT_SYMLINK_NOFOLLOW) != 0)
      listing.failures[i] = errno;
}

Result<Listing> list_in(int parent, const std::string& name, const std::string& path) {
  os::Descriptor directory(
      openat(parent, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_DIRECTORY));
  if (!directory) {
    const bool is_another = errno == ENOTDIR || errno == ELOOP;
    return fail(cannot_read("list", path, is_another ? ENOENT : errno));
  }
  return Lister::list_open(std::move(directory), path);
}

}  // namespace

struct Lister::Ticket::Task {
  int parent = -1;
  std::string name, path;
  bool is_begun = false;
  std::optional<Result<Listing>> done;
};

struct Lister::Impl {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::shared_ptr<Ticket::Task>> waiting;
  std::size_t ahead = 0;  // tickets that are not taken
  bool is_over = false;
  std::thread thread;

  void work() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return is_over || !waiting.empty(); });
      if (is_over) return;
      const auto task = std::move(waiting.front());
      waiting.pop_front();
      if (task->is_begun) continue;
      task->is_begun = true;
      lock.unlock();
      auto listing = list_in(task->parent, task->name, task->path);
      lock.lock();
      task->done = std::move(listing);
      changed.notify_all();
    }
  }
};

Lister::Lister() : impl_(std::make_unique<Impl>()) {
  impl_->thread = std::thread([work = impl_.get()] { work->work(); });
}

Lister::~Lister() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->is_over = true;
  }
  impl_->changed.notify_all();
  impl_->thread.join();
}

bool Lister::has_room() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->ahead < kMostAhead;
}

Lister::Ticket Lister::list(int parent, std::string name, std::string path) {
  Ticket ticket;
  ticket.task_ = std::make_shared<Ticket::Task>();
  ticket.task_->parent = parent;
  ticket.task_->name = std::move(name);
  ticket.task_->path = std::move(path);
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->waiting.push_back(ticket.task_);
    ++impl_->ahead;
  }
  impl_->changed.notify_all();
  return ticket;
}

Result<Listing> Lister::take(Ticket ticket) {
  auto& task = *ticket.task_;
  std::unique_lock lock(impl_->mutex);
  --impl_->ahead;
  if (!task.is_begun) {
    task.is_begun = true;
    lock.unlock();
    return list_in(task.parent, task.name, task.path);
  }
  impl_->changed.wait(lock, [&] { return task.done.has_value(); });
  return *std::move(task.done);
}

Result<Listing> Lister::list_open(os::Descriptor directory, const std::string& path) {
  Listing listing;
  listing.directory = std::move(directory);
  if (fstat(listing.directory.get(), &listing.found) != 0)
    return fail(cannot_read("look at", path, errno));
  ZX_TRY(listing.names.read(listing.directory.get(), path));
  const auto count = listing.names.size();
  if (count > kMostLooks) return listing;
  listing.looks.resize(count);
  listing.failures.resize(count);
  if (count < kWorthHalves) {
    look(listing, 0, count);
    return listing;
  }
  std::thread other([&] { look(listing, count / 2, count); });
  look(listing, 0, count / 2);
  other.join();
  return listing;
}

}  // namespace zx::backup
