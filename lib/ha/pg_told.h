// What whoever carries out a failover or a switchover tells the agents, in the record that they
// share: whom it gives up for whom, before the promotion, and what came of it.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "lib/coord/coordinator.h"
#include "lib/ha/watch_record.h"
#include "lib/run/executor.h"

namespace zx::ha {

[[nodiscard]] Result<WatchRecord> read_record(coord::Shared& shared, const std::string& cluster);
// Changes the record by compare-and-set; not written when nothing changes.
[[nodiscard]] Status change_record(coord::Shared& shared, const std::string& cluster,
                                   const std::function<void(WatchRecord&)>& change);

// The failover that was the last one when this run began, if that was noted.
[[nodiscard]] std::optional<std::string> after_of(const run::Plan& plan);
// Whom a run about a failover promotes, as its journal says; empty: not chosen yet.
[[nodiscard]] std::string candidate_of(const run::Record& record);
// Which failover came after an unfinished run, which nothing of it may survive. Empty: none.
[[nodiscard]] std::string overtaken_by(const WatchRecord& known, const run::Record& record);
// A failover that is taken up must be known again: what was noted may have been settled since.
[[nodiscard]] Status note_resumed(coord::Shared& shared, const std::string& cluster,
                                  const std::string& who, const run::Record& record);

// A person's run, told to the agents of all hosts. `shared` may be null: then nobody is told.
class ToldByHand {
 public:
  // `alone`: on the person's word; the agents are told at the end, if they can be by then.
  ToldByHand(coord::Shared* shared, std::string cluster, bool alone);
  // Signs the plan. An Error: nothing may be begun.
  [[nodiscard]] Status begin(run::Plan& plan, const std::string& promotes);
  // Code::refused when another came after it, see resume(); nothing is told.
  [[nodiscard]] Status may_resume(const run::Record& record);
  // As begin(), for a run that is finished or taken back.
  [[nodiscard]] Status resume(const run::Record& record, bool finishes);
  // It must outlive the run.
  [[nodiscard]] run::Hooks with(run::Hooks hooks, const run::Plan& plan);
  // An Error: the agents do not know what the run did.
  [[nodiscard]] Status end(const run::RunReport& report);

 private:
  [[nodiscard]] Status begun(const run::Plan& plan, const std::string& promotes);
  [[nodiscard]] Status promoted(const run::Plan& plan, const std::string& run, const Json& seen);
  [[nodiscard]] Status is_back(const std::string& node);
  coord::Shared* shared_;
  std::string cluster_, who_;
  bool alone_;
  std::string told_;  // the run
};

}  // namespace zx::ha
