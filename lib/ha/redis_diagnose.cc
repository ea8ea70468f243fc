#include "lib/ha/redis_diagnose.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/base/units.h"

namespace zx::ha {
namespace {

using redis::NodeFacts;

class Diagnosis {
 public:
  Diagnosis(RedisWorld& world, const NodeFacts& replica, const NodeFacts& master, Deadline deadline)
      : world_(world), replica_(replica), master_(master), deadline_(deadline) {}

  std::string find() const {
    for (const auto why : {&Diagnosis::by_memory, &Diagnosis::by_credentials,
                           &Diagnosis::by_protection, &Diagnosis::by_saving})
      if (auto found = (this->*why)(); !found.empty()) return found;
    return {};
  }

 private:
  // Empty also when it cannot be had.
  std::string setting(const std::string& node, const std::string& name) const {
    const auto reply = world_.command(node, {"CONFIG", "GET", name}, deadline_);
    return reply && reply->items.size() >= 2 ? reply->items[1].text : std::string();
  }

  std::string by_memory() const {
    const bool minds = setting(replica_.name, "replica-ignore-maxmemory") == "no";
    if (!minds || replica_.memory_max == 0 || master_.memory_used <= replica_.memory_max) return {};
    return fmt::format("maxmemory of {} is {}, and {} uses {}", replica_.name,
                       format_bytes(replica_.memory_max), master_.name,
                       format_bytes(master_.memory_used));
  }

  // Does the master let anybody in without a password?
  bool is_open() const {
    if (!setting(master_.name, "requirepass").empty()) return false;
    const auto reply = world_.command(master_.name, {"ACL", "GETUSER", "default"}, deadline_);
    if (!reply) return false;
    for (std::size_t i = 0; i + 1 < reply->items.size(); i += 2) {
      if (reply->items[i].text != "flags") continue;
      const auto& flags = reply->items[i + 1].items;
      return std::any_of(flags.begin(), flags.end(),
                         [](const auto& flag) { return flag.text == "nopass"; });
    }
    return false;
  }

  std::string by_credentials() const {
    const auto user = setting(replica_.name, "masteruser");
    const auto password = setting(replica_.name, "masterauth");
    if (password.empty()) {
      if (!replica_.has_config || is_open()) return {};
      return fmt::format("{} asks for a password, and masterauth of {} is not set", master_.name,
                         replica_.name);
    }
    redis::Target target;
    target.name = master_.name;
    target.address = master_.address;
    target.port = master_.port;
    target.user = user;
    target.password = password;
    const auto client = redis::Client::open(target, deadline_);
    if (client || client.error().why != redis::Failure::auth) return by_permission(user);
    return fmt::format("{} refuses the masterauth{} of {}: wrong password", master_.name,
                       user.empty() ? "" : " and masteruser", replica_.name);
  }

  std::string by_permission(const std::string& user) const {
    if (user.empty()) return {};
    const auto reply =
        world_.command(master_.name, {"ACL", "DRYRUN", user, "PSYNC", "?", "-1"}, deadline_);
    if (!reply || reply->is_ok()) return {};
    return fmt::format("the masteruser of {} may not PSYNC on {} (ACL: +psync +replconf +ping)",
                       replica_.name, master_.name);
  }

  std::string by_protection() const {
    const bool is_near = replica_.address == master_.address;
    if (is_near || setting(master_.name, "protected-mode") != "yes" || !is_open()) return {};
    const auto bind = setting(master_.name, "bind");
    if (!bind.empty() && bind.find("127.0.0.1") == std::string::npos) return {};
    return master_.name + " is in protected mode: it lets no other host in without a password";
  }

  // A full resync begins with a BGSAVE, which a master that cannot fork or write refuses.
  std::string by_saving() const {
    if (master_.persistence.last_save_ok || redis::is_prefix_of(replica_.lineage, master_.lineage))
      return {};
    if (setting(master_.name, "repl-diskless-sync") == "yes") return {};
    return master_.name + " cannot save its data set, which a full resync begins with";
  }

  RedisWorld& world_;
  const NodeFacts& replica_;
  const NodeFacts& master_;
  Deadline deadline_;
};

}  // namespace

std::string why_no_link(RedisWorld& world, const NodeFacts& replica, const NodeFacts& master,
                        Deadline deadline) {
  return Diagnosis(world, replica, master, deadline).find();
}

}  // namespace zx::ha
