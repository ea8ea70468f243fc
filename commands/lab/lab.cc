// zx lab: real servers in one directory, to try zx on.
#include <algorithm>
#include <csignal>
#include <memory>

#include <fmt/format.h>

#include "commands/command.h"
#include "lib/base/clock.h"
#include "lib/base/text.h"
#include "lib/lab/lab.h"
#include "lib/os/signals.h"

namespace zx::commands {
namespace {

constexpr int kNotGiven = -1;

struct Options {
  std::string dir;
  int pg = kNotGiven, redis = kNotGiven, sentinel = kNotGiven;
  std::vector<std::string> listen;
  std::string node;
  std::string signal = "KILL";
  bool is_removed = false;
};
using Given = std::shared_ptr<Options>;

constexpr std::pair<const char*, int> kSignals[] = {{"KILL", SIGKILL}, {"STOP", SIGSTOP},
                                                    {"CONT", SIGCONT}, {"TERM", SIGTERM},
                                                    {"INT", SIGINT},   {"QUIT", SIGQUIT}};

int number_of(const std::string& signal) {
  for (const auto& [name, number] : kSignals)
    if (signal == name) return number;
  return SIGKILL;
}

// " --dir DIR", or nothing when the default would be that lab.
std::string dir_flag(const lab::Lab& lab) {
  return lab.dir() == lab::default_dir() ? "" : " --dir " + shell_word(lab.dir());
}

std::string state_of(const lab::Node& node) {
  if (node.is_paused) return "paused";
  return node.is_running() ? "running" : "down";
}

Json to_json(const lab::Lab& lab, const std::vector<lab::Node>& nodes) {
  auto list = Json::array();
  for (const auto& node : nodes)
    list.push_back({{"name", node.name},
                    {"host", node.host},
                    {"port", node.port},
                    {"pid", node.is_running() ? Json(node.pid) : Json()},
                    {"running", node.is_running()},
                    {"paused", node.is_paused},
                    {"role", node.role},
                    {"fenced", node.is_fenced},
                    {"data_dir", node.data_dir},
                    {"log", node.log}});
  return Json{{"lab", lab.dir()}, {"config", lab.config_path()}, {"nodes", std::move(list)}};
}

void show_nodes(Screen& screen, const std::vector<lab::Node>& nodes) {
  Table table;
  table.head = {"NODE", "ROLE", "STATE", "ADDRESS", "PID", "DATA"};
  for (const auto& node : nodes) {
    const auto tone = node.is_paused ? Tone::warn : node.is_running() ? Tone::good : Tone::bad;
    const auto address =
        node.host.find(':') == std::string::npos ? node.host : "[" + node.host + "]";
    table.rows.push_back({node.name, node.is_fenced ? node.role + ", fenced" : node.role,
                          Cell(state_of(node), tone), fmt::format("{}:{}", address, node.port),
                          node.is_running() ? std::to_string(node.pid) : "–", node.data_dir});
  }
  screen.table(table);
}

// "3 PostgreSQL servers, 3 Redis servers, 3 Sentinels"
std::string counted(const std::vector<lab::Node>& nodes) {
  std::vector<std::string> parts;
  for (const auto& [kind, what] : {std::pair(lab::Server::postgresql, "PostgreSQL server"),
                                   std::pair(lab::Server::redis, "Redis server"),
                                   std::pair(lab::Server::sentinel, "Sentinel")}) {
    const auto wanted = kind;
    const auto count = std::count_if(nodes.begin(), nodes.end(), [wanted](const auto& node) {
      return lab::server_of(node.name) == wanted;
    });
    if (count > 0) parts.push_back(fmt::format("{} {}{}", count, what, count == 1 ? "" : "s"));
  }
  return join(parts, ", ");
}

void show_next(Env& env, const lab::Lab& lab) {
  env.screen.line(fmt::format("next: zx -c {} status", shell_word(lab.config_path())), Tone::dim);
}

Millis deadline_of(const Env& env, Millis otherwise) {
  return env.shared.timeout.value_or(otherwise);
}

Result<int> run_up(Env& env, const Options& given) {
  const auto began = system_clock().now();
  lab::Options options;
  options.dir = given.dir;
  if (given.pg != kNotGiven) options.pg = given.pg;
  if (given.redis != kNotGiven) options.redis = given.redis;
  if (given.sentinel != kNotGiven) options.sentinel = given.sentinel;
  options.listen = given.listen;
  options.deadline = deadline_of(env, options.deadline);
  options.cancelled = os::interrupted;
  auto result = lab::up(options, [&](const std::string& text) { env.screen.progress(text); });
  if (!result) {
    if (const auto signal = os::interruption()) return fail(*signal);
    return fail(result.error());
  }
  const auto& lab = result->lab;
  ZX_ASSIGN(const auto nodes, lab.nodes());
  const auto took = format_duration(since(began));
  if (result->was_built)
    env.screen.line(fmt::format("lab is up: {}, ready in {}", counted(nodes), took));
  else if (result->started.empty())
    env.screen.line("lab was up already, nothing to start");
  else
    env.screen.line(fmt::format("lab is up: started {} in {}{}", join(result->started, ", "), took,
                                result->were_running.empty()
                                    ? ""
                                    : "; " + join(result->were_running, ", ") + " ran already"));
  show_nodes(env.screen, nodes);
  env.screen.line("");
  show_next(env, lab);
  env.screen.line(fmt::format("stop: zx lab down{}", dir_flag(lab)), Tone::dim);
  auto json = to_json(lab, nodes);
  json["built"] = result->was_built;
  json["started"] = result->started;
  env.screen.json(json);
  return 0;
}

Result<int> run_status(Env& env, const Options& given) {
  ZX_ASSIGN(const auto lab, lab::open(given.dir));
  ZX_ASSIGN(const auto nodes, lab.nodes());
  const auto running =
      std::count_if(nodes.begin(), nodes.end(), [](const auto& n) { return n.is_running(); });
  env.screen.line(fmt::format("{} of {} servers run in {}", running, nodes.size(), lab.dir()));
  show_nodes(env.screen, nodes);
  env.screen.line("");
  if (running == std::ssize(nodes))
    show_next(env, lab);
  else
    env.screen.line(fmt::format("next: zx lab up{}", dir_flag(lab)), Tone::dim);
  env.screen.json(to_json(lab, nodes));
  return 0;
}

Result<int> run_kill(Env& env, const Options& given) {
  ZX_ASSIGN(const auto lab, lab::open(given.dir));
  ZX_ASSIGN(const int count, lab.kill(given.node, number_of(given.signal)));
  ZX_ASSIGN(const auto nodes, lab.nodes());
  if (count == 0)
    env.screen.line(given.node + " was not running");
  else
    env.screen.line(fmt::format("sent SIG{} to {} ({} process{})", given.signal, given.node, count,
                                count == 1 ? "" : "es"));
  if (count > 0 && given.signal == "STOP")
    env.screen.line(fmt::format("next: zx lab kill {} --signal CONT{}", given.node, dir_flag(lab)),
                    Tone::dim);
  else if (given.signal != "CONT")
    env.screen.line(fmt::format("next: zx lab start {}{}", given.node, dir_flag(lab)), Tone::dim);
  auto json = to_json(lab, nodes);
  json["signalled"] = count;
  env.screen.json(json);
  return 0;
}

Result<int> run_start(Env& env, const Options& given) {
  ZX_ASSIGN(const auto lab, lab::open(given.dir));
  ZX_ASSIGN(const bool started, lab.start(given.node, deadline_of(env, Millis(60'000))));
  ZX_ASSIGN(const auto nodes, lab.nodes());
  env.screen.line(given.node + (started ? " started" : " ran already"));
  show_nodes(env.screen, nodes);
  auto json = to_json(lab, nodes);
  json["started"] = started;
  env.screen.json(json);
  return 0;
}

Result<int> run_down(Env& env, const Options& given) {
  // The names of its servers, if it was ever finished.
  const auto finished = lab::open(given.dir);
  ZX_ASSIGN(const auto down,
            lab::down(given.dir, given.is_removed, deadline_of(env, Millis(30'000))));
  const auto lab = finished ? *finished : lab::Lab(down.dir, {});
  if (!down.was_there)
    env.screen.line("there is no lab in " + down.dir + ", nothing to stop");
  else
    env.screen.line(fmt::format("lab is down: {}{}",
                                down.ended == 0 ? "nothing ran"
                                                : fmt::format("{} process{} ended", down.ended,
                                                              down.ended == 1 ? "" : "es"),
                                down.is_removed ? ", " + down.dir + " removed" : ""));
  if (!down.kept.empty())
    env.screen.note(fmt::format("kept {}: it holds {}, not made by the lab", down.dir,
                                clean_utf8(join(down.kept, ", "))));
  if (down.was_there && !given.is_removed)
    env.screen.line(fmt::format("next: zx lab up{0}, or zx lab down --delete{0}", dir_flag(lab)),
                    Tone::dim);
  auto json = Json{{"lab", down.dir}, {"config", Json()}, {"nodes", Json::array()}};
  if (finished && !given.is_removed) {
    ZX_ASSIGN(const auto nodes, lab.nodes());
    json = to_json(lab, nodes);
  }
  json["ended"] = down.ended;
  json["removed"] = down.is_removed;
  json["kept"] = down.kept;
  env.screen.json(json);
  return 0;
}

// A leaf with the flag that they all have.
CLI::App* lab_leaf(Tree& tree, const char* name, const char* summary, LeafDoc doc,
                   const Given& options, Result<int> (*run)(Env&, const Options&)) {
  auto* leaf = tree.leaf(tree.group("lab", "a local lab of real servers"), name, summary,
                         std::move(doc), [options, run](Env& env) { return run(env, *options); });
  auto* dir = leaf->add_option("--dir", options->dir,
                               "the lab's directory; zx-lab-UID in the temporary directory else");
  dir->type_name("DIR");
  tree.complete(dir, Complete::directory);
  return leaf;
}

void add_node_argument(CLI::App* leaf, const Given& options) {
  leaf->add_option("NODE", options->node, "a server of the lab, such as pg-a or redis-a")
      ->required();
}

void add_up(Tree& tree) {
  const auto options = std::make_shared<Options>();
  auto* leaf = lab_leaf(
      tree, "up", "make a lab, or start what does not run of it",
      {.description =
           "Starts real servers on this host: a PostgreSQL primary and standbys that stream from "
           "it, with five demonstration databases; a Redis master, its replicas, and Sentinels "
           "that watch them; and writes a zx.toml for all. Everything lies in one directory. As "
           "root, the servers run as postgres or nobody.\n\n"
           "A lab that is there is kept with its data: only servers that do not run are started. "
           "What an interrupted call left is swept and made again.",
       .examples = {{"zx lab up", "three of each kind on loopback ports"},
                    {"zx lab up --dir /srv/lab --pg 5 --redis 0", "five PostgreSQL servers only"},
                    {"zx lab up --pg 0 --sentinel 0", "Redis without Sentinels"},
                    {"zx lab up --listen 10.9.0.1,10.9.0.2",
                     "a PostgreSQL server on each address"}},
       .exits = {Code::refused, Code::locked, Code::timeout, Code::auth, Code::failed}},
      options, run_up);
  leaf->add_option("--pg", options->pg, "how many PostgreSQL servers")
      ->type_name("N")
      ->default_str(std::to_string(lab::kDefaultNodes))
      ->check(CLI::Range(0, lab::kMostNodes));
  leaf->add_option("--redis", options->redis, "how many Redis servers; with --listen 0")
      ->type_name("N")
      ->default_str(std::to_string(lab::kDefaultRedis))
      ->check(CLI::Range(0, lab::kMostNodes));
  leaf->add_option("--sentinel", options->sentinel, "how many Sentinels, where there is Redis")
      ->type_name("N")
      ->default_str(std::to_string(lab::kDefaultSentinels))
      ->check(CLI::Range(0, lab::kMostNodes));
  leaf->add_option("--listen", options->listen, "an IP address of this host for each server")
      ->type_name("ADDR,...")
      ->delimiter(',');
}

void add_simple(Tree& tree) {
  lab_leaf(tree, "status", "show the servers of a lab",
           {.description = "Shows every server with its role, address, process and directory. Asks "
                           "no server: what it says comes from the process table and the data "
                           "directories.",
            .examples = {{"zx lab status", "what runs"},
                         {"zx lab status -o json", "the same for a script"}},
            .exits = {Code::not_found}},
           std::make_shared<Options>(), run_status);

  const auto starting = std::make_shared<Options>();
  add_node_argument(
      lab_leaf(
          tree, "start", "start a server of a lab as it is",
          {.description = "Starts the server as a supervisor would after a crash, with the data "
                          "directory as it is: a primary that was killed comes back as a primary.",
           .examples = {{"zx lab start pg-a", "bring back a server that was killed"}},
           .exits = {Code::not_found, Code::refused, Code::locked, Code::timeout, Code::failed}},
          starting, run_start),
      starting);

  const auto ending = std::make_shared<Options>();
  lab_leaf(
      tree, "down", "stop all servers of a lab",
      {.description = "Ends every process of the lab at once, also after a crash, and also of a "
                      "lab that was never finished. The data stays unless --delete is given.",
       .examples = {{"zx lab down", "stop; zx lab up goes on with the same data"},
                    {"zx lab down --delete", "and remove the lab's directory"}},
       .exits = {Code::refused, Code::locked, Code::timeout}},
      ending, run_down)
      ->add_flag("--delete", ending->is_removed, "remove the lab's directory too");
}

void add_kill(Tree& tree) {
  const auto options = std::make_shared<Options>();
  auto* leaf = lab_leaf(
      tree, "kill", "crash, pause or stop a server of a lab",
      {.description =
           "Without --signal the server crashes: SIGKILL to it and all its children. STOP and CONT "
           "go to all of them too and look like a host that hangs. The others go to the server "
           "itself. For PostgreSQL TERM waits for clients, INT is a fast shutdown, QUIT an "
           "immediate one; for Redis TERM and INT are an orderly shutdown.",
       .examples = {{"zx lab kill pg-a", "the primary crashes"},
                    {"zx lab kill pg-a --signal STOP", "the primary hangs: its port stays open"},
                    {"zx lab kill pg-a --signal CONT", "and goes on"}},
       .exits = {Code::not_found, Code::timeout}},
      options, run_kill);
  add_node_argument(leaf, options);
  std::vector<std::string> names;
  for (const auto& [name, number] : kSignals) names.emplace_back(name);
  leaf->add_option("--signal", options->signal, "which signal")
      ->type_name("SIGNAL")
      ->capture_default_str()
      ->check(CLI::IsMember(names));
}

}  // namespace

void add_lab(Tree& tree) {
  add_up(tree);
  add_simple(tree);
  add_kill(tree);
}

}  // namespace zx::commands
