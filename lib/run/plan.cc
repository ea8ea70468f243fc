#include "lib/run/plan.h"

#include <algorithm>

namespace zx::run {

Json to_json(const Plan& plan) {
  Json steps = Json::array();
  for (const auto& step : plan.steps)
    steps.push_back({{"name", step.name},
                     {"action", step.action},
                     {"subject", step.subject},
                     {"why", step.why},
                     {"args", step.args},
                     {"deadline_ms", step.deadline.count()},
                     {"optional", step.optional}});
  return {{"command", plan.command},
          {"lock", plan.lock},
          {"summary", plan.summary},
          {"context", plan.context},
          {"steps", std::move(steps)}};
}

Result<Plan> plan_from_json(const Json& json) {
  Plan plan;
  plan.command = get_string(json, "command");
  plan.lock = get_string(json, "lock");
  plan.summary = get_string(json, "summary");
  plan.context = get_object(json, "context");
  const auto& steps = get_object(json, "steps");
  if (!steps.is_array() || plan.command.empty() || plan.lock.empty())
    return fail(Code::io, "the journal has no plan that can be read");
  for (const auto& entry : steps) {
    Step step;
    step.name = get_string(entry, "name");
    step.action = get_string(entry, "action");
    // By its name the journal knows a step: of two with one name the second would never be done.
    const auto is_same = [&](const Step& other) { return other.name == step.name; };
    if (step.name.empty() || step.action.empty() ||
        std::any_of(plan.steps.begin(), plan.steps.end(), is_same))
      return fail(Code::io, "the journal's plan has a step without a name of its own");
    step.subject = get_string(entry, "subject");
    step.why = get_string(entry, "why");
    step.args = get_object(entry, "args");
    step.deadline = Millis(get_int(entry, "deadline_ms", 10'000));
    step.optional = get_bool(entry, "optional");
    plan.steps.push_back(std::move(step));
  }
  return plan;
}

}  // namespace zx::run
