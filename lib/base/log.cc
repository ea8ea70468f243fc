#include "lib/base/log.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace zx::log {

namespace {

class DroppingSink final : public spdlog::sinks::base_sink<std::mutex> {
  void sink_it_(const spdlog::details::log_msg& message) override {
    pollfd out{STDERR_FILENO, POLLOUT, 0};
    if (poll(&out, 1, 0) != 1 || (out.revents & POLLOUT) == 0) return;
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    std::fwrite(text.data(), 1, text.size(), stderr);
  }
  void flush_() override { std::fflush(stderr); }
};

// Of syslog(3), as the journal takes it in front of a line.
class Priority final : public spdlog::custom_flag_formatter {
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& text) override {
    std::string_view mark = "<7>";
    if (message.level == spdlog::level::err) mark = "<3>";
    if (message.level == spdlog::level::warn) mark = "<4>";
    if (message.level == spdlog::level::info) mark = "<6>";
    text.append(mark.data(), mark.data() + mark.size());
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<Priority>();
  }
};

// systemd tells which file its journal reads: stderr may have been redirected since.
bool is_read_by_journal() {
  const auto* stream = std::getenv("JOURNAL_STREAM");
  unsigned long long device = 0, inode = 0;
  struct stat file {};
  return stream != nullptr && std::sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
         fstat(STDERR_FILENO, &file) == 0 && file.st_dev == device && file.st_ino == inode;
}

}  // namespace

void start(Level least, WhenFull when) {
  spdlog::sink_ptr sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  if (when == WhenFull::drop) sink = std::make_shared<DroppingSink>();
  auto logger = std::make_shared<spdlog::logger>("zx", std::move(sink));
  auto lines = std::make_unique<spdlog::pattern_formatter>();
  lines->add_flag<Priority>('*').set_pattern(is_read_by_journal() ? "%*%H:%M:%S.%e %l %v"
                                                                  : "%H:%M:%S.%e %l %v");
  logger->set_formatter(std::move(lines));
  switch (least) {
    case Level::error: logger->set_level(spdlog::level::err); break;
    case Level::warning: logger->set_level(spdlog::level::warn); break;
    case Level::info: logger->set_level(spdlog::level::info); break;
    case Level::debug: logger->set_level(spdlog::level::debug); break;
  }
  spdlog::set_default_logger(std::move(logger));
}

void write(Level level, std::string_view text) {
  switch (level) {
    case Level::error: return error(text);
    case Level::warning: return warning(text);
    case Level::info: return info(text);
    case Level::debug: return debug(text);
  }
}

void error(std::string_view text) { spdlog::error("{}", text); }
void warning(std::string_view text) { spdlog::warn("{}", text); }
void info(std::string_view text) { spdlog::info("{}", text); }
void debug(std::string_view text) { spdlog::debug("{}", text); }

}  // namespace zx::log
