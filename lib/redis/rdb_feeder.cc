#include "lib/redis/rdb_feeder.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string_view>
#include <vector>

#include "lib/os/files.h"

namespace zx::redis {
namespace {

constexpr std::uint64_t kBuffer = 1u << 18;
constexpr int kLookMs = 50;  // how often a wait asks whether it was stopped

}  // namespace

RdbFeeder::RdbFeeder(int file, const std::string& fifo)
    : file_(file), thread_([this, fifo] { work(fifo); }) {}

RdbFeeder::~RdbFeeder() {
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void RdbFeeder::written(std::uint64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    written_ = bytes;
  }
  changed_.notify_all();
}

void RdbFeeder::all_written() {
  {
    const std::lock_guard lock(mutex_);
    is_all_ = true;
  }
  changed_.notify_all();
}

bool RdbFeeder::has_ended() {
  const std::lock_guard lock(mutex_);
  return has_ended_;
}

Status RdbFeeder::status() {
  const std::lock_guard lock(mutex_);
  return status_;
}

bool RdbFeeder::has_stopped() {
  const std::lock_guard lock(mutex_);
  return is_stopped_;
}

void RdbFeeder::work(const std::string& fifo) {
  // A reader that goes away is an error here, not a signal.
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
  auto status = feed(fifo);
  const std::lock_guard lock(mutex_);
  status_ = std::move(status);
  has_ended_ = true;
}

Status RdbFeeder::feed(const std::string& fifo) {
  os::Descriptor out;
  while (!out) {
    out = os::Descriptor(open(fifo.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    if (out) break;
    if (errno != ENXIO && errno != EINTR)
      return fail(errno_error(Code::io, "cannot open " + fifo, errno));
    std::unique_lock lock(mutex_);  // nobody reads it yet
    changed_.wait_for(lock, std::chrono::milliseconds(5), [this] { return is_stopped_; });
    if (is_stopped_) return {};
  }
  fcntl(out.get(), F_SETPIPE_SZ, 1 << 20);  // fewer turns between the two; as it is, if not allowed
  std::uint64_t given = 0;
  while (true) {
    std::uint64_t limit = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return is_stopped_ || is_all_ || written_ > given; });
      if (is_stopped_ || (is_all_ && written_ == given)) return {};
      limit = written_;
    }
    if (const auto status = give(out.get(), given, limit); !status) {
      // Its file system cannot give its pages to a pipe.
      if (status.error().code != Code::usage) return status;
      ZX_TRY(copy(out.get(), given, limit));
    }
    if (has_stopped()) return {};
  }
}

// What the file has up to `limit`, by its pages, which are not copied. Code::usage when its file
// system cannot do that.
Status RdbFeeder::give(int out, std::uint64_t& given, std::uint64_t limit) {
  auto at = static_cast<loff_t>(given);
  while (given < limit && !has_stopped()) {
    const auto put = ::splice(file_, &at, out, nullptr, std::min(kBuffer, limit - given),
                              SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (put > 0) given += static_cast<std::uint64_t>(put);
    if (put > 0) continue;
    if (put < 0 && errno == EINVAL) return fail(Code::usage, "no splice from this file");
    if (put == 0) return fail(errno_error(Code::io, "cannot read the copy again", EIO));
    ZX_TRY(wait_for_room(out));
  }
  return {};
}

Status RdbFeeder::copy(int out, std::uint64_t& given, std::uint64_t limit) {
  std::vector<char> buffer(kBuffer);
  while (given < limit) {
    const auto got =
        pread(file_, buffer.data(), std::min(kBuffer, limit - given), static_cast<off_t>(given));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      return fail(errno_error(Code::io, "cannot read the copy again", got == 0 ? EIO : errno));
    std::string_view left(buffer.data(), static_cast<std::size_t>(got));
    given += left.size();
    while (!left.empty()) {
      if (has_stopped()) return {};
      const auto put = ::write(out, left.data(), left.size());
      if (put > 0) left.remove_prefix(static_cast<std::size_t>(put));
      if (put < 0) ZX_TRY(wait_for_room(out));
    }
  }
  return {};
}

// After errno of a write that gave nothing.
Status RdbFeeder::wait_for_room(int out) {
  if (errno == EINTR) return {};
  if (errno == EPIPE)
    return fail(Code::failed, "the server that was to load the copy stopped reading it");
  if (errno != EAGAIN) return fail(errno_error(Code::io, "cannot write to a FIFO", errno));
  pollfd watched{out, POLLOUT, 0};
  ::poll(&watched, 1, kLookMs);
  return {};
}

}  // namespace zx::redis
