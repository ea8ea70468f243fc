#include "lib/redis/info.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::redis {
namespace {

constexpr std::size_t kMostText = 4u << 20;
constexpr std::size_t kMostFields = 20'000;
constexpr std::size_t kLongestValue = 4096;
constexpr std::size_t kMostAttached = 1000;
constexpr std::size_t kMostReplicas = 1000;

template <class T>
std::optional<T> number_in(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string cleaned(std::string_view text) { return first_line(text.substr(0, kLongestValue)); }

// Paths are used, not only shown: one that would have to be changed is as good as none.
std::string path_in(std::string_view text) {
  if (text.size() > kLongestValue || clean_utf8(text) != text ||
      text.find_first_of("\n\t") != std::string_view::npos)
    return {};
  return std::string(text);
}

std::optional<std::int64_t> not_negative(std::optional<std::int64_t> number) {
  return number && *number >= 0 ? number : std::nullopt;
}

int port_in(std::string_view text) {
  const auto port = number_in<int>(text);
  return port && *port >= 0 && *port <= 65535 ? *port : 0;
}

using Pairs = std::map<std::string, std::string, std::less<>>;

std::string_view in(const Pairs& pairs, std::string_view name) {
  const auto found = pairs.find(name);
  return found == pairs.end() ? std::string_view() : std::string_view(found->second);
}

std::int64_t count_in(const Pairs& pairs, std::string_view name) {
  return not_negative(number_in<std::int64_t>(in(pairs, name))).value_or(0);
}

Lineage lineage_of(const Info& info) {
  Lineage lineage;
  lineage.replid = info.text("master_replid");
  lineage.replid2 = info.text("master_replid2");
  lineage.second_offset = info.number_or("second_repl_offset", -1);
  lineage.offset = info.number_or("master_repl_offset", 0);
  return lineage;
}

Link link_of(const Info& info) {
  Link link;
  link.master_host = info.text("master_host");
  link.master_port = port_in(info.text("master_port"));
  link.is_up = info.text("master_link_status") == "up";
  link.last_io_s = not_negative(info.number("master_last_io_seconds_ago"));
  link.down_for_s = not_negative(info.number("master_link_down_since_seconds"));
  link.is_syncing = info.is_on("master_sync_in_progress");
  link.sync_left_bytes = not_negative(info.number("master_sync_left_bytes"));
  return link;
}

std::vector<AttachedReplica> attached_of(const Info& info) {
  std::vector<std::pair<int, AttachedReplica>> found;
  for (const auto& [name, value] : info.all()) {
    if (!name.starts_with("slave") || found.size() == kMostAttached) continue;
    const auto index = number_in<int>(std::string_view(name).substr(5));
    if (!index) continue;
    const auto pairs = Info::pairs(value);
    AttachedReplica replica;
    replica.address = in(pairs, "ip");
    replica.port = port_in(in(pairs, "port"));
    replica.state = in(pairs, "state");
    replica.offset = count_in(pairs, "offset");
    replica.lag_s = count_in(pairs, "lag");
    found.emplace_back(*index, std::move(replica));
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<AttachedReplica> attached;
  for (auto& [index, replica] : found) attached.push_back(std::move(replica));
  return attached;
}

Persistence persistence_of(const Info& info) {
  Persistence p;
  p.is_loading = info.is_on("loading");
  p.loading_eta_s = not_negative(info.number("loading_eta_seconds"));
  p.is_saving = info.is_on("rdb_bgsave_in_progress");
  p.last_save_ok = info.text("rdb_last_bgsave_status") != "err";
  p.last_save = info.number_or("rdb_last_save_time", 0);
  p.changes_since_save = info.number_or("rdb_changes_since_last_save", 0);
  p.aof = info.is_on("aof_enabled");
  p.aof_rewriting = info.is_on("aof_rewrite_in_progress");
  p.aof_last_write_ok = info.text("aof_last_write_status") != "err";
  p.aof_last_rewrite_ok = info.text("aof_last_bgrewrite_status") != "err";
  return p;
}

void read_keyspace(const Info& info, NodeFacts& facts) {
  facts.keys = facts.expires = 0;
  facts.databases.clear();
  for (const auto& [name, value] : info.all()) {
    if (!name.starts_with("db")) continue;
    const auto index = number_in<int>(std::string_view(name).substr(2));
    if (!index || *index < 0) continue;
    const auto pairs = Info::pairs(value);
    // Hostile counts must not overflow the sum.
    constexpr std::int64_t kMost = 1LL << 50;
    facts.keys += std::min(count_in(pairs, "keys"), kMost);
    facts.expires += std::min(count_in(pairs, "expires"), kMost);
    facts.databases.push_back(*index);
    if (facts.databases.size() == 1024) break;
  }
  std::sort(facts.databases.begin(), facts.databases.end());
}

std::vector<std::string> words_in(std::string_view list) {
  std::vector<std::string> words;
  for (auto& word : split(list, ','))
    if (!word.empty() && words.size() < 64) words.push_back(std::move(word));
  return words;
}

// Names and values in turn.
Pairs pairs_in(const Reply& reply) {
  Pairs pairs;
  for (std::size_t i = 0; i + 1 < reply.items.size(); i += 2)
    pairs.emplace(cleaned(reply.items[i].text), cleaned(reply.items[i + 1].text));
  return pairs;
}

}  // namespace

Info Info::parse(std::string_view text) {
  Info info;
  text = text.substr(0, kMostText);
  while (!text.empty() && info.fields_.size() < kMostFields) {
    const auto end = text.find('\n');
    const auto line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    const auto colon = line.find(':');
    if (colon == std::string_view::npos || line.starts_with('#')) continue;
    info.fields_.emplace(cleaned(line.substr(0, colon)), cleaned(line.substr(colon + 1)));
  }
  return info;
}

std::string Info::text(std::string_view name) const {
  const auto found = fields_.find(name);
  return found == fields_.end() ? std::string() : found->second;
}

std::optional<std::int64_t> Info::number(std::string_view name) const {
  const auto found = fields_.find(name);
  return found == fields_.end() ? std::nullopt : number_in<std::int64_t>(found->second);
}

std::int64_t Info::number_or(std::string_view name, std::int64_t otherwise) const {
  return number(name).value_or(otherwise);
}

Pairs Info::pairs(std::string_view value) {
  Pairs pairs;
  for (const auto& part : split(value, ',')) {
    const auto equals = part.find('=');
    if (equals == std::string::npos) continue;
    pairs.emplace(part.substr(0, equals), part.substr(equals + 1));
  }
  return pairs;
}

Status read_info(std::string_view text, NodeFacts& facts) {
  const auto info = Info::parse(text);
  if (info.text("redis_mode") == "sentinel")
    return fail(Code::server, "a Sentinel answers there, not a server with data",
                "nodes of a deployment are its servers; Sentinels belong in its sentinel.nodes");
  const auto role = info.text("role");
  if (info.text("redis_version").empty() || (role != "master" && role != "slave"))
    return fail(Code::server, "its INFO is not that of a Redis server",
                "check address and port of the node in zx.toml");
  facts.role = role == "master" ? Role::master : Role::replica;
  facts.version = info.text("redis_version");
  facts.run_id = info.text("run_id");
  facts.uptime_s = info.number_or("uptime_in_seconds", 0);
  facts.config_file = path_in(info.text("config_file"));
  facts.lineage = lineage_of(info);
  facts.link.reset();
  if (facts.role == Role::replica) facts.link = link_of(info);
  facts.attached = attached_of(info);
  facts.priority = static_cast<int>(
      std::clamp<std::int64_t>(info.number_or("slave_priority", 100), 0, 1'000'000));
  // Only a replica says it.
  facts.is_read_only = info.number_or("slave_read_only", 1) != 0;
  const auto failover = info.text("master_failover_state");
  facts.paused_by_failover = !failover.empty() && failover != "no-failover";
  facts.backlog_size = info.number_or("repl_backlog_size", 0);
  facts.backlog_first = info.number_or("repl_backlog_first_byte_offset", 0);
  facts.backlog_length = info.number_or("repl_backlog_histlen", 0);
  facts.min_replicas_good = info.number("min_slaves_good_slaves");
  read_keyspace(info, facts);
  facts.memory_used = number_in<std::uint64_t>(info.text("used_memory")).value_or(0);
  facts.memory_max = number_in<std::uint64_t>(info.text("maxmemory")).value_or(0);
  facts.memory_policy = info.text("maxmemory_policy");
  facts.clients = info.number_or("connected_clients", 0);
  facts.clients_max = info.number_or("maxclients", 0);
  facts.blocked_clients = info.number_or("blocked_clients", 0);
  facts.persistence = persistence_of(info);
  if (info.text("redis_mode") == "cluster")
    facts.warnings.push_back("it runs in cluster mode, which zx does not look after");
  facts.failure = Failure::none;
  facts.error = {};
  if (facts.persistence.is_loading) {
    const auto eta = facts.persistence.loading_eta_s;
    facts.failure = Failure::loading;
    facts.error.code = Code::starting_up;
    facts.error.message = says(Failure::loading);
    if (eta) facts.error.message += fmt::format(", about {} s left", *eta);
    facts.error.retryable = true;
  }
  return {};
}

void read_config(const Reply& reply, NodeFacts& facts) {
  for (std::size_t i = 0; i + 1 < reply.items.size(); i += 2) {
    const auto& name = reply.items[i].text;
    const auto& value = reply.items[i + 1].text;
    const auto number = [&] { return not_negative(number_in<std::int64_t>(value)).value_or(0); };
    if (name == "dir") facts.dir = path_in(value);
    if (name == "dbfilename") facts.dbfilename = path_in(value);
    if (name == "appenddirname") facts.appenddirname = path_in(value);
    if (name == "aclfile") facts.aclfile = path_in(value);
    if (name == "min-replicas-to-write") facts.min_replicas_to_write = number();
    if (name == "min-replicas-max-lag") facts.min_replicas_max_lag_s = number();
  }
}

Status read_master(const Reply& reply, SentinelFacts& facts) {
  const auto pairs = pairs_in(reply);
  const auto small = [&](std::string_view name) {
    return static_cast<int>(std::min<std::int64_t>(count_in(pairs, name), 1'000'000));
  };
  const auto span = [&](std::string_view name) {
    return Millis(std::min<std::int64_t>(count_in(pairs, name), 1LL << 40));
  };
  facts.master_host = in(pairs, "ip");
  facts.master_port = port_in(in(pairs, "port"));
  if (facts.master_host.empty() || facts.master_port == 0)
    return fail(Code::server, "it names no address of the master");
  facts.knows_master = true;
  facts.flags = words_in(in(pairs, "flags"));
  facts.quorum = small("quorum");
  facts.other_sentinels = small("num-other-sentinels");
  facts.config_epoch = count_in(pairs, "config-epoch");
  facts.down_after = span("down-after-milliseconds");
  facts.failover_timeout = span("failover-timeout");
  return {};
}

void read_replicas(const Reply& reply, SentinelFacts& facts) {
  facts.replicas.clear();
  for (const auto& item : reply.items) {
    if (facts.replicas.size() == kMostReplicas) break;
    const auto pairs = pairs_in(item);
    SentinelFacts::Replica replica;
    replica.address = in(pairs, "ip");
    replica.port = port_in(in(pairs, "port"));
    replica.flags = words_in(in(pairs, "flags"));
    replica.master_link_status = in(pairs, "master-link-status");
    facts.replicas.push_back(std::move(replica));
  }
}

void read_quorum(const Outcome<Reply>& reply, SentinelFacts& facts) {
  if (reply) {
    facts.has_quorum = true;
    facts.quorum_text = cleaned(reply->text);
  } else if (reply.error().reply.starts_with("NOQUORUM")) {
    facts.has_quorum = false;
    facts.quorum_text = cleaned(reply.error().reply);
  } else {
    facts.has_quorum.reset();
    facts.quorum_text = cleaned(reply.error().error.message);
  }
}

void mark_phantoms(std::vector<SentinelFacts>& sentinels, const Snapshot& known) {
  for (auto& sentinel : sentinels)
    for (auto& replica : sentinel.replicas) {
      const auto& flags = replica.flags;
      const auto has = [&](const char* flag) {
        return std::find(flags.begin(), flags.end(), flag) != flags.end();
      };
      const bool is_connected = !has("disconnected") && !has("s_down");
      // A node whose name could not be looked up may be the one.
      const bool may_be_known = std::any_of(
          known.nodes.begin(), known.nodes.end(),
          [&](const auto& node) { return node.port == replica.port && node.addresses.empty(); });
      const bool is_foreign =
          !may_be_known && node_at(known, replica.address, replica.port) == nullptr;
      replica.is_phantom = replica.port == 0 || (is_foreign && !is_connected);
    }
}

}  // namespace zx::redis
