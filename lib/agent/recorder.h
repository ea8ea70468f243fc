// What happened, to the log and into the table of events.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lib/base/log.h"
#include "lib/store/events.h"

namespace zx::agent {

// As it is logged: a run that failed is an error; what keeps the agent from acting, and what it
// could not do, is a warning.
[[nodiscard]] log::Level level_of(const store::Event& event);
// Of the name of a record, as zx.toml has it: "pg.shop", "redis.cache".
[[nodiscard]] std::string table_of(const std::string& record);
[[nodiscard]] std::string line_of(const store::Event& event);

// From any thread. Events are written at once; what cannot be written is counted.
class Recorder {
 public:
  using Say = std::function<void(log::Level, const std::string&)>;
  Recorder(std::string path, Say say) : path_(std::move(path)), say_(std::move(say)) {}

  void add(const store::Event& event);
  [[nodiscard]] Result<std::vector<store::Event>> newest(std::size_t most,
                                                         const std::string& cluster);
  [[nodiscard]] std::uint64_t lost() const { return lost_; }
  // The file may be another one now: SQLite goes on with the one that was removed.
  void reopen();

 private:
  void lose(const Error& error);

  const std::string path_;
  const Say say_;
  std::mutex mutex_;
  std::unique_ptr<store::Events> events_;
  std::atomic<std::uint64_t> lost_ = 0;
  bool complained_ = false;
};

}  // namespace zx::agent
