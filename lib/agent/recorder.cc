#include "lib/agent/recorder.h"

#include <array>

#include "lib/base/units.h"

namespace zx::agent {

log::Level level_of(const store::Event& event) {
  constexpr std::array kWarnings{"failed",  "blocked",   "detected",     "unproved",
                                 "cut_off", "lost_lead", "commits_hang", "self_fenced"};
  if (event.kind == "failed" && !event.run.empty()) return log::Level::error;
  for (const auto* kind : kWarnings)
    if (event.kind == kind) return log::Level::warning;
  return log::Level::info;
}

std::string table_of(const std::string& record) {
  return record.empty() || record.starts_with("redis.") ? record : "pg." + record;
}

std::string line_of(const store::Event& event) {
  std::string line = event.kind;
  for (const auto& part : {table_of(event.cluster), event.node,
                           event.took ? format_duration(*event.took) : std::string(),
                           event.run.empty() ? "" : "run " + event.run, event.text})
    if (!part.empty()) line += (line == event.kind ? ": " : ", ") + part;
  return line;
}

void Recorder::add(const store::Event& event) {
  say_(level_of(event), line_of(event));
  const std::lock_guard lock(mutex_);
  if (!events_) {
    auto opened = store::Events::open(path_);
    if (!opened) return lose(opened.error());
    events_ = *std::move(opened);
  }
  if (const auto added = events_->add(event); !added) {
    events_.reset();
    return lose(added.error());
  }
  complained_ = false;
}

Result<std::vector<store::Event>> Recorder::newest(std::size_t most, const std::string& cluster) {
  const std::lock_guard lock(mutex_);
  if (!events_) {
    ZX_ASSIGN(events_, store::Events::open(path_));
  }
  return events_->newest(most, cluster);
}

void Recorder::reopen() {
  const std::lock_guard lock(mutex_);
  events_.reset();
}

void Recorder::lose(const Error& error) {
  ++lost_;
  if (!std::exchange(complained_, true))
    say_(log::Level::warning, "events are not stored: " + error.message);
}

}  // namespace zx::agent
