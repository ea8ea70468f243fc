#include "lib/lab/lab.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/lab/build.h"
#include "lib/lab/place.h"
#include "lib/lab/redis.h"
#include "lib/lab/server.h"
#include "lib/os/files.h"
#include "lib/pg/conninfo.h"

namespace zx::lab {
namespace {

// Of a lab that is not there yet.
Counts counts_of(const Options& options) {
  const auto addresses = static_cast<int>(options.listen.size());
  Counts counts;
  counts.pg = options.pg.value_or(addresses > 0 ? addresses : kDefaultNodes);
  counts.redis = options.redis.value_or(addresses > 0 ? 0 : kDefaultRedis);
  counts.sentinels = options.sentinel.value_or(counts.redis > 0 ? kDefaultSentinels : 0);
  return counts;
}

Status check_options(const Options& options) {
  const auto counts = counts_of(options);
  for (const auto& [count, what] :
       {std::pair(counts.pg, "PostgreSQL servers"), std::pair(counts.redis, "Redis servers"),
        std::pair(counts.sentinels, "Sentinels")})
    if (count < 0 || count > kMostNodes)
      return fail(Code::usage,
                  fmt::format("a lab has 0 to {} {}, not {}", kMostNodes, what, count));
  if (counts.pg + counts.redis == 0)
    return fail(Code::usage, "a lab has at least one PostgreSQL or Redis server");
  if (counts.redis == 0 && counts.sentinels > 0)
    return fail(Code::usage, "Sentinels need a Redis server to watch",
                "give --redis too, or leave --sentinel out");
  const int servers = counts.pg > 0 ? counts.pg : counts.redis;
  if (!options.listen.empty() && std::ssize(options.listen) != servers)
    return fail(Code::usage,
                fmt::format("{} addresses for {} servers", options.listen.size(), servers),
                "--listen takes one address for each server");
  return {};
}

std::vector<std::string> without_repeats(const std::vector<std::string>& hosts) {
  std::vector<std::string> once;
  for (const auto& host : hosts)
    if (std::find(once.begin(), once.end(), host) == once.end()) once.push_back(host);
  return once;
}

// A finished lab keeps its shape: another number of servers would mean to make or to delete data.
Status check_shape(const Place& place, const std::vector<Lab::Member>& members,
                   const Options& options) {
  const auto hint = fmt::format(
      "zx lab down --delete --dir {}, then zx lab up as you want it; or name "
      "another directory with --dir",
      place.dir);
  struct Wish {
    std::optional<int> count;
    Server kind;
    const char* what;
  };
  for (const auto& [count, kind, what] :
       {Wish{options.pg, Server::postgresql, "PostgreSQL servers"},
        Wish{options.redis, Server::redis, "Redis servers"},
        Wish{options.sentinel, Server::sentinel, "Sentinels"}}) {
    const auto there = members_of(members, kind).size();
    if (count && *count != static_cast<int>(there))
      return fail(Code::refused,
                  fmt::format("the lab in {} has {} {}, not {}", place.dir, there, what, *count),
                  hint);
  }
  if (options.listen.empty()) return {};
  std::vector<std::string> hosts;
  for (const auto& member : members) hosts.push_back(member.host);
  hosts = without_repeats(hosts);
  if (hosts == without_repeats(options.listen)) return {};
  return fail(Code::refused,
              fmt::format("the lab in {} listens on {}", place.dir, join(hosts, ",")), hint);
}

Result<Up> start_all(const Place& place, std::vector<Lab::Member> members, const Options& options,
                     Deadline deadline) {
  if (!os::exists(place.config())) ZX_TRY(write_config(place, members));
  std::vector<char> was_started(
      members.size());  // not vector<bool>: threads write beside each other
  const auto status = in_parallel(static_cast<int>(members.size()), [&](int i) -> Status {
    const auto at = static_cast<std::size_t>(i);
    ZX_ASSIGN(const bool started,
              start_server(place, members[at].name, deadline, options.cancelled));
    was_started[at] = started;
    return {};
  });
  if (!status) return fail(status.error());
  Up up{Lab(place.dir, members), false, {}, {}};
  for (std::size_t i = 0; i < members.size(); ++i)
    (was_started[i] != 0 ? up.started : up.were_running).push_back(members[i].name);
  return up;
}

Status check_programs(const Counts& counts) {
  if (counts.pg > 0)
    for (const char* name : {"initdb", "postgres", "pg_basebackup", "psql"})
      if (!os::exists(bin_dir() + "/" + name))
        return fail(Code::not_found, fmt::format("{}/{} is not there", bin_dir(), name),
                    "apt install postgresql-15, or --pg 0 for a lab without PostgreSQL");
  if (counts.redis > 0 && !os::exists(redis_program()))
    return fail(Code::not_found, redis_program() + " is not there",
                "apt install redis-server, or --redis 0 for a lab without Redis");
  return {};
}

Result<Up> build_anew(const Place& place, const Options& options, Deadline deadline,
                      const Progress& progress) {
  const auto counts = counts_of(options);
  ZX_TRY(check_programs(counts));
  ZX_ASSIGN(const auto user, server_user());
  ZX_TRY(check_reachable(place.dir, user));
  // What a killed `up` may have left.
  ZX_ASSIGN(const int ended, stop_everything(place, deadline));
  if (ended > 0 && progress)
    progress(fmt::format("ended {} processes of an unfinished lab", ended));
  ZX_ASSIGN(const auto others, remove_contents(place));
  if (!others.empty())
    return fail(
        Code::refused,
        fmt::format("{} holds {}, which is none of a lab's", place.dir, clean_utf8(others.front())),
        "move it away, or name another directory with --dir");
  ZX_ASSIGN(auto members, choose_members(counts, options.listen));
  const Blueprint blueprint{place,
                            members_of(members, Server::postgresql),
                            members_of(members, Server::redis),
                            members_of(members, Server::sentinel),
                            user,
                            deadline,
                            options.cancelled,
                            progress,
                            options.redis_settings};
  auto status = build(blueprint);
  if (status) status = write_record(place, members);
  if (!status) {
    // The files stay for whoever wants to know why; the next call sweeps them.
    (void)stop_everything(place, Deadline::after(Millis(10'000)));
    return fail(status.error());
  }
  Up up{Lab(place.dir, members), true, {}, {}};
  for (const auto& member : members) up.started.push_back(member.name);
  return up;
}

Status check_known(const Lab& lab, const std::string& node) {
  std::vector<std::string> names;
  for (const auto& member : lab.members()) names.push_back(member.name);
  if (std::find(names.begin(), names.end(), node) != names.end()) return {};
  const auto meant = nearest(node, names);
  return fail(Code::not_found, fmt::format("the lab has no server {}", clean_utf8(node)),
              meant.empty() ? "it has " + join(names, ", ") : "did you mean " + meant);
}

}  // namespace

std::string Lab::config_path() const { return Place{dir_}.config(); }
std::string Lab::passfile() const { return Place{dir_}.secret(kSuperuserPassfile); }
std::string Lab::redis_password_file() const { return Place{dir_}.secret(kRedisPassword); }
std::string Lab::sentinel_password_file() const { return Place{dir_}.secret(kSentinelPassword); }

std::string Lab::conninfo(const std::string& node, const std::string& database) const {
  for (const auto& member : members_)
    if (member.name == node && server_of(node) == Server::postgresql)
      return pg::to_string({{"host", member.host},
                            {"port", std::to_string(member.port)},
                            {"user", kSuperuser},
                            {"dbname", database},
                            {"passfile", passfile()}});
  return {};
}

Result<std::vector<Node>> Lab::nodes() const {
  const Place place{dir_};
  std::vector<Node> nodes;
  for (const auto& member : members_) {
    Node node{
        member.name, member.host, member.port, place.data(member.name), place.log(member.name), 0,
        false,       "unknown",   false};
    ZX_ASSIGN(const auto running, running_in(place, member.name));
    node.pid = running.postmaster;
    node.is_paused = running.is_paused;
    if (server_of(member.name) != Server::postgresql) {
      node.role = redis_role(place, member.name);
    } else {
      const auto facts = pg::inspect(place.data_dir(member.name), std::nullopt);
      if (facts.is_data_directory) node.role = facts.standby_signal ? "standby" : "primary";
      node.is_fenced = facts.fenced;
    }
    nodes.push_back(std::move(node));
  }
  return nodes;
}

Result<Node> Lab::node(const std::string& name) const {
  ZX_TRY(check_known(*this, name));
  ZX_ASSIGN(const auto all, nodes());
  for (const auto& node : all)
    if (node.name == name) return node;
  return fail(Code::internal, name + " is a member without a node");
}

Result<int> Lab::kill(const std::string& node, int signal) const {
  ZX_TRY(check_known(*this, node));
  return signal_server(Place{dir_}, node, signal);
}

Result<bool> Lab::start(const std::string& node, Millis deadline) const {
  ZX_TRY(check_known(*this, node));
  const Place place{dir_};
  ZX_ASSIGN(const auto lock, take(place, "zx lab start " + node));
  return start_server(place, node, Deadline::after(deadline), {});
}

Result<Up> up(const Options& options, const Progress& progress) {
  const auto deadline = Deadline::after(options.deadline);
  ZX_TRY(check_options(options));
  ZX_ASSIGN(const auto place, place_of(options.dir));
  ZX_ASSIGN(const auto kind, look(place));
  if (kind != Kind::ours) {
    // Before anything is made there.
    ZX_ASSIGN(const auto user, server_user());
    ZX_TRY(check_reachable(place.dir, user));
  }
  ZX_ASSIGN(const auto lock, take(place, "zx lab up"));
  auto members = read_record(place);
  if (!members && members.error().code == Code::not_found)
    return build_anew(place, options, deadline, progress);
  if (!members) return fail(members.error());
  ZX_TRY(check_shape(place, *members, options));
  return start_all(place, *std::move(members), options, deadline);
}

Result<Lab> open(const std::string& dir) {
  ZX_ASSIGN(const auto place, place_of(dir));
  ZX_ASSIGN(const auto kind, look(place));
  if (kind != Kind::ours)
    return fail(Code::not_found, "there is no lab in " + place.dir,
                "make one: zx lab up --dir " + place.dir);
  ZX_ASSIGN(auto members, read_record(place));
  return Lab(place.dir, std::move(members));
}

Result<Down> down(const std::string& dir, bool remove, Millis deadline) {
  ZX_ASSIGN(const auto place, place_of(dir));
  ZX_ASSIGN(const auto kind, look(place));
  Down down;
  down.dir = place.dir;
  if (kind != Kind::ours) return down;
  down.was_there = true;
  ZX_ASSIGN(const auto lock, take(place, "zx lab down"));
  ZX_ASSIGN(down.ended, stop_everything(place, Deadline::after(deadline)));
  if (!remove) return down;
  ZX_ASSIGN(down.kept, remove_contents(place));
  if (!down.kept.empty()) return down;
  // The marker goes last: until then a killed removal is an unfinished lab.
  ZX_TRY(os::remove_file(place.marker()));
  std::error_code code;
  std::filesystem::remove(place.dir, code);
  if (code == std::errc::directory_not_empty) return down;  // the next `up` has it already
  if (code) return fail(Code::io, "cannot remove " + place.dir + ": " + code.message());
  down.is_removed = true;
  return down;
}

}  // namespace zx::lab
