// The watches of one kind that an agent has: those that run, those that were asked to stop, and
// those that begin when these have, each with what the one before it knew.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/error.h"

namespace zx::agent {

// Of a Watch: ask_to_stop(), has_stopped(), name(), known(), is_well(). All on the loop's thread.
template <class Watch>
class Watches {
 public:
  using Start =
      std::function<Result<std::unique_ptr<Watch>>(const std::string& name, Watch* before)>;
  using Failed = std::function<void(const std::string& name, const Error& error)>;
  using Known = decltype(std::declval<const Watch&>().known());

  explicit Watches(Start start) : start_(std::move(start)) {}

  Status start(const std::string& name) {
    ZX_ASSIGN(running_[name], start_(name, nullptr));
    return {};
  }

  // All are asked to stop; with `anew` others take over from them.
  void leave(bool anew) {
    for (auto& [name, watch] : running_) {
      watch->ask_to_stop();
      leaving_.push_back(std::move(watch));
      if (anew) entering_.push_back(name);
    }
    running_.clear();
  }

  // `names` are those of a new configuration. One that is not as before is asked to stop, and
  // begins anew when it is still named.
  void take_over(const std::vector<std::string>& names,
                 const std::function<bool(const std::string&)>& is_as_before) {
    for (auto one = running_.begin(); one != running_.end();) {
      if (is_as_before(one->first)) {
        ++one;
        continue;
      }
      one->second->ask_to_stop();
      leaving_.push_back(std::move(one->second));
      one = running_.erase(one);
    }
    std::erase_if(entering_, [&](const auto& name) { return !is_in(names, name); });
    for (const auto& name : names)
      if (!running_.contains(name) && !is_in(entering_, name)) entering_.push_back(name);
  }

  // A watch that leaves is given up once its thread has ended; one that enters takes over from it,
  // and looks at its servers before the old one is gone.
  void turn(bool may_enter, const Failed& failed) {
    for (auto name = entering_.begin(); name != entering_.end() && may_enter;) {
      const auto before = std::find_if(leaving_.begin(), leaving_.end(),
                                       [&](const auto& watch) { return watch->name() == *name; });
      if (before != leaving_.end() && !(*before)->has_stopped()) {
        ++name;
        continue;
      }
      auto watch = start_(*name, before == leaving_.end() ? nullptr : before->get());
      if (watch)
        running_[*name] = *std::move(watch);
      else
        failed(*name, watch.error());
      name = entering_.erase(name);
    }
    std::erase_if(leaving_, [](const auto& watch) { return watch->has_stopped(); });
  }

  // A reload is no reason to tell load balancers that there is nobody to write to: the old watch
  // answers until the new one has taken over what it knows.
  [[nodiscard]] std::optional<Known> known_of(const std::string& name) const {
    if (const auto found = running_.find(name); found != running_.end())
      return found->second->known();
    for (const auto& watch : leaving_)
      if (watch->name() == name) return watch->known();
    return std::nullopt;
  }
  [[nodiscard]] bool is_well() const {
    return std::all_of(running_.begin(), running_.end(),
                       [](const auto& one) { return one.second->is_well(); });
  }
  [[nodiscard]] bool nobody_leaves() const { return leaving_.empty(); }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, watch] : running_) all.push_back(name);
    return all;
  }

 private:
  static bool is_in(const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  }

  Start start_;
  std::map<std::string, std::unique_ptr<Watch>> running_;
  std::vector<std::unique_ptr<Watch>> leaving_;
  std::vector<std::string> entering_;
};

}  // namespace zx::agent
