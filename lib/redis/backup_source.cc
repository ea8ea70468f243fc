#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/signals.h"
#include "lib/redis/backup.h"
#include "lib/redis/info.h"

namespace zx::redis {
namespace {

constexpr Millis kFirstLook{5}, kLastLook{500};

std::string why_not(const NodeFacts& node) {
  if (node.is_loading()) return "it reads its data set into memory";
  if (!node.answered()) return says(node.failure);
  if (node.role == Role::master) return "it is the master";
  if (node.role != Role::replica) return "it does not say what it is";
  if (!node.link || !node.link->is_up) return "its link to its master is down";
  if (node.link->is_syncing) return "it is being filled anew";
  return {};
}

Result<BackupSource> named_source(const config::RedisDeployment& deployment,
                                  const Snapshot& snapshot, const std::string& from, bool bgsave) {
  const auto* node = snapshot.node(from);
  if (node == nullptr) {
    std::vector<std::string> names;
    for (const auto& one : deployment.nodes) names.push_back(one.name);
    return fail(Code::not_found, fmt::format("no node named \"{}\"", first_line(from)),
                "nodes: " + join(names, ", "));
  }
  if (node->answered() && node->role == Role::master && !bgsave &&
      !deployment.sentinel.master_name.empty())
    return fail(
        Code::refused,
        fmt::format("{} is the master: its Sentinels would take the reader for a replica, "
                    "and keep it for good",
                    from),
        "take the copy from a replica, or let the master save it to its own disk: --bgsave");
  const bool is_master = node->answered() && node->role == Role::master;
  // An older state than the master's is what was asked for.
  const bool is_cut_off = node->role == Role::replica && node->link && !node->link->is_up && bgsave;
  if (const auto why = why_not(*node); !why.empty() && !is_master && !is_cut_off) {
    const bool is_denied = node->failure == Failure::auth || node->failure == Failure::permission;
    return fail(node->answered() ? Code::refused
                : is_denied      ? Code::auth
                                 : Code::unreachable,
                fmt::format("no copy from {}: {}", from, why), node->error.hint);
  }
  return BackupSource{from, is_master ? "named, the master" : "named"};
}

// Nobody who could be asked for a copy says anything.
Code code_of_silence(const Snapshot& snapshot) {
  const auto is_denied = [](const NodeFacts& node) {
    return node.failure == Failure::auth || node.failure == Failure::permission;
  };
  const auto& nodes = snapshot.nodes;
  if (nodes.empty() ||
      std::any_of(nodes.begin(), nodes.end(), [](const auto& node) { return node.answered(); }))
    return Code::refused;
  return std::any_of(nodes.begin(), nodes.end(), is_denied) ? Code::auth : Code::unreachable;
}

}  // namespace

Result<BackupSource> choose_source(const config::RedisDeployment& deployment,
                                   const Snapshot& snapshot, const std::string& from, bool bgsave) {
  if (!from.empty()) return named_source(deployment, snapshot, from, bgsave);
  std::int64_t furthest = 0;
  for (const auto& node : snapshot.nodes)
    if (why_not(node).empty()) furthest = std::max(furthest, node.lineage.offset);
  const NodeFacts* best = nullptr;
  int least = 0;
  std::vector<std::string> reasons;
  for (const auto& node : snapshot.nodes) {
    const auto behind = furthest - node.lineage.offset;
    if (const auto why = why_not(node); !why.empty()) {
      reasons.push_back(node.name + ": " + why);
      continue;
    }
    if (behind > static_cast<std::int64_t>(deployment.policy.max_lag)) {
      reasons.push_back(fmt::format("{}: {} behind", node.name,
                                    format_bytes(static_cast<std::uint64_t>(behind))));
      continue;
    }
    const auto* known = deployment.node(node.name);
    const int priority = known == nullptr ? 0 : known->priority;
    if (best != nullptr && priority >= least) continue;
    best = &node;
    least = priority;
  }
  if (best != nullptr)
    return BackupSource{best->name, fmt::format("a linked replica, priority {}", least)};
  const auto code = code_of_silence(snapshot);
  if (code == Code::auth)
    return fail(code, "no node lets zx in: " + join(reasons, "; "),
                "user and password_file of the deployment in zx.toml are what zx logs in with");
  if (code == Code::unreachable)
    return fail(code, "no node answers: " + join(reasons, "; "), "zx redis status says more");
  return fail(code, "no replica to take a copy from: " + join(reasons, "; "),
              deployment.sentinel.master_name.empty()
                  ? "name a node: --from NODE"
                  : "name a node: --from NODE; the master with --bgsave");
}

Result<std::int64_t> wait_for_offset(const Target& replica, std::int64_t offset,
                                     Deadline deadline) {
  auto client = Client::open(replica, deadline);
  if (!client) return fail(error_of(replica, client.error()));
  while (true) {
    const auto reply = client->command({"INFO", "replication"}, deadline);
    if (!reply) return fail(error_of(replica, reply.error()));
    const auto lacking = offset - Info::parse(reply->text).number_or("master_repl_offset", 0);
    if (lacking <= 0) return 0;
    if (const auto signal = os::interruption()) return fail(*signal);
    if (deadline.passed()) return lacking;
    pause_for(kFirstLook);
  }
}

Result<std::string> save_on_server(const Target& target, Deadline deadline) {
  auto client = Client::open(target, deadline.at_most(Millis(5000)));
  if (!client) return fail(error_of(target, client.error()));
  const auto ask = [&](const Command& command) -> Result<Reply> {
    auto reply = client->command(command, deadline);
    if (!reply) return fail(error_of(target, reply.error()));
    return *std::move(reply);
  };
  const auto setting = [&](const char* name) -> Result<std::string> {
    ZX_ASSIGN(const auto reply, ask({"CONFIG", "GET", name}));
    if (reply.items.size() != 2 || reply.items[1].text.empty())
      return fail(Code::server, fmt::format("{} does not tell its {}", target.name, name),
                  "the ACL user needs +config|get");
    return reply.items[1].text;
  };
  ZX_ASSIGN(const auto directory, setting("dir"));
  ZX_ASSIGN(const auto name, setting("dbfilename"));
  ZX_ASSIGN(const auto clock, ask({"TIME"}));
  const auto began = clock.items.empty() ? 0 : std::atoll(clock.items[0].text.c_str());
  bool is_asked = false, was_seen = false;
  auto look = kFirstLook;
  while (true) {
    if (const auto signal = os::interruption()) return fail(*signal);
    ZX_ASSIGN(const auto text, ask({"INFO", "persistence"}));
    const auto info = Info::parse(text.text);
    const bool is_saving = info.is_on("rdb_bgsave_in_progress");
    if (!is_asked && !is_saving) {
      // SCHEDULE: behind an AOF rewrite that goes on.
      ZX_ASSIGN(const auto said, ask({"BGSAVE", "SCHEDULE"}));
      is_asked = true;
      was_seen = said.text.find("started") != std::string::npos;
      continue;
    }
    if (is_asked && is_saving) was_seen = true;
    ZX_ASSIGN(const auto last, ask({"LASTSAVE"}));
    if (is_asked && was_seen && !is_saving && info.text("rdb_last_bgsave_status") == "err")
      return fail(Code::server, target.name + " could not save its data set",
                  "its log says why; a full disk in " + clean_utf8(directory) + ", often");
    if (is_asked && !is_saving && (last.number > began || (was_seen && last.number == began)))
      return directory + (directory.ends_with('/') ? "" : "/") + name;
    // Of the second in which it was asked, and not seen to go on: perhaps one from before.
    if (is_asked && !is_saving && last.number == began && !info.is_on("aof_rewrite_in_progress"))
      is_asked = false;
    if (deadline.passed())
      return fail(Code::timeout, target.name + " has not saved its data set by the deadline");
    pause_for(look);
    look = std::min(look * 2, kLastLook);
  }
}

}  // namespace zx::redis
