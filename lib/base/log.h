// Logs go to stderr, results to stdout. Libraries log at debug at most; the caller logs once.
#pragma once

#include <string_view>

namespace zx::log {

enum class Level { error, warning, info, debug };

// What becomes of a line when whoever reads stderr has stopped reading.
enum class WhenFull { wait, drop };

// Where systemd's journal reads stderr, each line has its priority in front ("<4>" is a warning).
// Call once, before anything logs; spdlog's own default would write to stdout.
void start(Level least, WhenFull when = WhenFull::wait);
void write(Level level, std::string_view text);
void error(std::string_view text);
void warning(std::string_view text);
void info(std::string_view text);
void debug(std::string_view text);

}  // namespace zx::log
