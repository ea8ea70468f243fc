#include "lib/os/stream.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <vector>

#include <fmt/format.h>

#include "lib/os/process_start.h"
#include "lib/os/signals.h"

namespace zx::os {
namespace {

constexpr int kPipeBytes = 1 << 20;  // an ordinary user's most
constexpr std::size_t kPiece = 1u << 18;
constexpr int kLook = 50;  // ms between two questions whether zx is interrupted

class Pump {
 public:
  Pump(const Argv& argv, const ProcessOptions& options, const Take* take, const Give* give)
      : argv_(argv), options_(options), take_(take), give_(give), buffer_(kPiece) {}

  Result<ProcessResult> run() {
    const auto deadline = Deadline::after(options_.deadline);
    ZX_ASSIGN(child_, start_piped(argv_, options_));
    fcntl(child_.in.get(), F_SETFL, O_NONBLOCK);
    // Fewer switches between the processes; where it is denied the pipes are shorter.
    (void)fcntl(child_.out.get(), F_SETPIPE_SZ, kPipeBytes);
    (void)fcntl(child_.in.get(), F_SETPIPE_SZ, kPipeBytes);
    piece_ = options_.input;
    if (give_ == nullptr && piece_.empty()) child_.in.close();
    while (child_.out || child_.err || child_.in) {
      if (const auto done = step(deadline); !done) {
        end();
        return fail(done.error());
      }
    }
    return reaped(deadline);
  }

 private:
  [[nodiscard]] Status go_on() const {
    if (auto stopped = interruption()) return fail(*std::move(stopped));
    if (options_.cancelled && options_.cancelled())
      return fail(Code::interrupted, argv_.front() + " was interrupted");
    return {};
  }

  Status step(Deadline deadline) {
    ZX_TRY(go_on());
    if (deadline.passed())
      return fail(Code::timeout, fmt::format("{} did not end within {}", argv_.front(),
                                             format_duration(options_.deadline)));
    std::array<pollfd, 3> watched{};
    nfds_t count = 0;
    const auto watch = [&](const Descriptor& one, short events) {
      if (one) watched[count++] = pollfd{one.get(), events, 0};
    };
    watch(child_.out, POLLIN);
    watch(child_.err, POLLIN);
    watch(child_.in, POLLOUT);
    if (poll(watched.data(), count, kLook) < 0 && errno != EINTR)
      return fail(errno_error(Code::internal, "cannot wait for " + argv_.front(), errno));
    for (nfds_t i = 0; i < count; ++i) {
      if (watched[i].revents == 0) continue;
      if (watched[i].fd == child_.in.get()) {
        ZX_TRY(feed());
      } else if (watched[i].fd == child_.out.get()) {
        ZX_TRY(take());
      } else {
        keep_words();
      }
    }
    return {};
  }

  Status take() {
    const auto got = read(child_.out.get(), buffer_.data(), buffer_.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return {};
    if (got <= 0) {
      child_.out.close();
      return {};
    }
    const std::string_view bytes(buffer_.data(), static_cast<std::size_t>(got));
    if (take_ != nullptr) return (*take_)(bytes);
    return {};
  }

  Status feed() {
    if (piece_.empty()) {
      if (give_ != nullptr) {
        ZX_ASSIGN(piece_, (*give_)());
      }
      if (piece_.empty()) {
        child_.in.close();
        return {};
      }
    }
    const auto put = write(child_.in.get(), piece_.data(), piece_.size());
    if (put > 0) piece_.remove_prefix(static_cast<std::size_t>(put));
    if (put < 0 && errno != EINTR && errno != EAGAIN) child_.in.close();  // it wants no more
    return {};
  }

  void keep_words() {
    const auto got = read(child_.err.get(), buffer_.data(), buffer_.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (got <= 0) return child_.err.close();
    const auto room = options_.output_limit - std::min(options_.output_limit, result_.err.size());
    result_.err.append(buffer_.data(), std::min(room, static_cast<std::size_t>(got)));
  }

  void end() {
    kill(-child_.pid, SIGKILL);
    while (waitpid(child_.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  // Its outputs have ended; it is about to.
  Result<ProcessResult> reaped(Deadline deadline) {
    int status = 0;
    while (true) {
      const auto pid = waitpid(child_.pid, &status, WNOHANG);
      if (pid == child_.pid) break;
      if (pid < 0 && errno != EINTR)
        return fail(errno_error(Code::internal, "cannot wait for " + argv_.front(), errno));
      if (const auto may = go_on(); !may) {
        end();
        return fail(may.error());
      }
      if (deadline.passed()) {
        end();
        return fail(Code::timeout, argv_.front() + " closed its output and did not end");
      }
      pause_for(Millis(1));
    }
    if (WIFEXITED(status)) result_.exit = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) result_.signal = WTERMSIG(status);
    return result_;
  }

  const Argv& argv_;
  const ProcessOptions& options_;
  const Take* take_;
  const Give* give_;
  PipedChild child_{};
  std::string_view piece_;
  std::vector<char> buffer_;
  ProcessResult result_;
};

}  // namespace

Result<ProcessResult> run_reading(const Argv& argv, const ProcessOptions& options,
                                  const Take& take) {
  return Pump(argv, options, &take, nullptr).run();
}

Result<ProcessResult> run_feeding(const Argv& argv, const ProcessOptions& options,
                                  const Give& give) {
  return Pump(argv, options, nullptr, &give).run();
}

Result<ProcessResult> run_through(const Argv& argv, const ProcessOptions& options, const Give& give,
                                  const Take& take) {
  return Pump(argv, options, &take, &give).run();
}

}  // namespace zx::os
