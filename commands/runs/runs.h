// What ending a run has in common, whatever kind of server it acts on.
#pragma once

#include <string>

#include "commands/command.h"
#include "commands/run_report.h"
#include "lib/run/journal.h"

namespace zx::commands {

struct EndOptions {
  std::string run;
  const char* what = "resume";  // or "abort"
  bool dry_run = false, as_is = false, assume_alone = false;
  [[nodiscard]] bool is_resumed() const { return std::string_view(what) == "resume"; }
};

void show_rest(Env& env, const run::Record& record, const char* what);
[[nodiscard]] Json run_json(const config::Config& config, const run::Record& record);
[[nodiscard]] Result<int> end_as_it_is(Env& env, const config::Config& config,
                                       const std::string& id, const std::string& command);

[[nodiscard]] bool is_about_redis(const run::Record& record);
// zx runs resume|abort of a run on a Redis deployment.
[[nodiscard]] Result<int> end_redis_run(Env& env, const config::Config& config,
                                        const run::Record& record, const EndOptions& given);

}  // namespace zx::commands
