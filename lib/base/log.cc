#include "lib/base/log.h"

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <mutex>

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

}  // namespace

void start(Level least, WhenFull when) {
  spdlog::sink_ptr sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  if (when == WhenFull::drop) sink = std::make_shared<DroppingSink>();
  auto logger = std::make_shared<spdlog::logger>("zx", std::move(sink));
  logger->set_pattern("%H:%M:%S.%e %l %v");
  switch (least) {
    case Level::error: logger->set_level(spdlog::level::err); break;
    case Level::warning: logger->set_level(spdlog::level::warn); break;
    case Level::info: logger->set_level(spdlog::level::info); break;
    case Level::debug: logger->set_level(spdlog::level::debug); break;
  }
  spdlog::set_default_logger(std::move(logger));
}

void error(std::string_view text) { spdlog::error("{}", text); }
void warning(std::string_view text) { spdlog::warn("{}", text); }
void info(std::string_view text) { spdlog::info("{}", text); }
void debug(std::string_view text) { spdlog::debug("{}", text); }

}  // namespace zx::log
