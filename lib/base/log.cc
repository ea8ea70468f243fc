#include "lib/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace zx::log {

void start(Level least) {
  auto logger =
      std::make_shared<spdlog::logger>("zx", std::make_shared<spdlog::sinks::stderr_sink_mt>());
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
