// A plan is data: printing it is --dry-run, writing it is the first line of the journal, reading it
// back is resume.
#pragma once

#include <string>
#include <vector>

#include "lib/base/json.h"
#include "lib/base/units.h"

namespace zx::run {

struct Step {
  std::string name;     // unique in the plan: "freeze"
  std::string action;   // which Action does it: "pg.freeze"
  std::string subject;  // on what: "pg-b, pg-c"
  std::string why;
  Json args = Json::object();
  Millis deadline{10'000};
  // A failure of it does not stop the steps after it; the run then ends as partly applied.
  bool optional = false;
};

struct Plan {
  std::string command;  // "failover pg"
  std::string lock;     // what it must hold alone: "pg.main"
  std::string summary;
  Json context = Json::object();  // what all actions need; never a secret
  std::vector<Step> steps;
};

[[nodiscard]] Json to_json(const Plan& plan);
[[nodiscard]] Result<Plan> plan_from_json(const Json& json);

}  // namespace zx::run
