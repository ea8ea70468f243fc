// Private to verify: what its two halves share.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/backup/verify.h"

namespace zx::backup {

// What was found of the parts, from several threads.
class Findings {
 public:
  Findings(const Set& set, const VerifyOptions& options)
      : objects_(set.objects()), set_id_(set.id), options_(options) {}

  // Keeps the outcome of a part, and passes on what is no damage but prevented the look. `further`:
  // what else is damaged of it; of each object the first is kept.
  [[nodiscard]] Status take(const std::string& part, const Result<std::string>& compared,
                            Monotonic start, Fault fault = Fault::damage,
                            const std::vector<Error>& further = {});
  // As the Check tells it; empty: all good.
  [[nodiscard]] std::string problem() const;
  // Fills in what was found.
  void conclude(Check& check) const;

  // Tells now and then how many bytes of `what` have passed. To be called with the more that came.
  [[nodiscard]] std::function<void(std::uint64_t)> counter(const std::string& what);

 private:
  void add(const std::string& part, const Error& error);
  [[nodiscard]] std::string words_of(const Error& error) const;  // as people know the set
  // Its index among the objects, when the words name one.
  [[nodiscard]] std::optional<std::size_t> object_in(const std::string& words) const;

  std::vector<Object> objects_;
  std::string set_id_;
  const VerifyOptions& options_;
  mutable std::mutex mutex_;
  std::vector<std::string> problems_, damaged_;
  bool has_damage_ = false;  // of the problems some are more than answers
  Monotonic told_{};
};

// An RDB is stored as it is. Code::failed unless it is whole and has the keys that the manifest
// counted. Returns what was compared.
[[nodiscard]] Result<std::string> check_rdb(const Repository& repository, const RedisPart& part,
                                            const std::function<void(std::uint64_t)>& progress,
                                            Deadline until);

// PostgreSQL's programs for this set, and Redis's.
[[nodiscard]] std::string bin_dir_of(const config::Config& config, const PgPart& part);
[[nodiscard]] std::string bin_dir_of(const config::Config& config, const RedisPart& part);

// Brings all of the set up, compares, and takes it away. How long that took.
[[nodiscard]] Result<Millis> rehearse(const Repository& repository, const Set& set,
                                      const config::Config& config, const VerifyOptions& options,
                                      Findings& findings);

}  // namespace zx::backup
