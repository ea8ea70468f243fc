#include "commands/watching.h"

#include <algorithm>

#include "lib/base/clock.h"
#include "lib/os/signals.h"

namespace zx::commands {

void add_watch_flags(CLI::App* leaf, Watching& watching) {
  auto* flag =
      leaf->add_flag("-w,--watch", watching.is_on, "look again and again until interrupted");
  leaf->add_option("--interval", watching.interval, "time between two looks with --watch (1s)")
      ->type_name("DURATION")
      ->needs(flag)
      ->check([](const std::string& text) {
        const auto span = parse_duration(text);
        return span && *span >= Millis(100)
                   ? std::string()
                   : "takes a duration of at least 100ms, not \"" + text + "\"";
      });
}

Result<int> watch(Env& env, const Watching& watching, const std::function<Result<int>()>& look) {
  if (!watching.is_on) return look();
  const auto interval =
      watching.interval.empty() ? Millis(1000) : *parse_duration(watching.interval);
  while (!os::interrupted() && !env.screen.is_broken()) {
    ZX_TRY(look());
    const auto again = Deadline::after(interval);
    while (!again.passed() && !os::interrupted()) pause_for(std::min(again.left(), Millis(50)));
    if (!env.screen.is_terminal()) env.screen.line("");
  }
  return 0;
}

}  // namespace zx::commands
