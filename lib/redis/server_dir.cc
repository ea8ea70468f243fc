#include "lib/redis/server_dir.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/net/tcp.h"
#include "lib/os/files.h"

namespace zx::redis {
namespace {

constexpr const char* kFenceFile = "zx-fence.json";
constexpr Millis kLookAgain{3};
constexpr std::size_t kMostConfig = 4u << 20;

std::string fence_path(const ServerDir& dir) { return dir.path + "/" + kFenceFile; }
std::string start_log_path(const ServerDir& dir) { return dir.path + "/zx-start.log"; }

std::string last_words(const ServerDir& dir) {
  const auto text = os::read_file(start_log_path(dir));
  if (!text) return {};
  auto lines = split(trim(*text), '\n');
  if (lines.size() > 4) lines.erase(lines.begin(), lines.end() - 4);
  return clean_utf8(join(lines, "\n"));
}

// The port of "redis-server 127.0.0.1:6379" or "… *:26379 [sentinel]", the title that a server
// gives itself once it has read its configuration; absent before that.
std::optional<int> titled_port(pid_t pid) {
  const auto text = os::read_file(fmt::format("/proc/{}/cmdline", pid), 4096);
  if (!text) return std::nullopt;
  auto line = *text;
  std::replace(line.begin(), line.end(), '\0', ' ');
  for (const auto& word : split(trim(line), ' ')) {
    const auto colon = word.rfind(':');
    if (colon == std::string::npos || colon + 1 == word.size()) continue;
    const auto digits = word.substr(colon + 1);
    if (digits.size() > 5 || digits.find_first_not_of("0123456789") != std::string::npos) continue;
    return std::atoi(digits.c_str());
  }
  return std::nullopt;
}

// Does it work on one thing all the time, as a server does with a long script? One that waits for
// clients, for a disk or to be continued does not. Its children, which save, have other titles.
bool is_working(pid_t pid) {
  constexpr int kLooks = 6;
  constexpr Millis kApart{8};
  const auto title = os::read_file(fmt::format("/proc/{}/cmdline", pid), 4096);
  if (!title || title->find("redis-server") == std::string::npos) return false;
  for (int i = 0; i < kLooks; ++i) {
    if (i > 0) pause_for(kApart);
    if (os::process_state(pid) != 'R') return false;
  }
  return true;
}

// Words of a line as the server splits it, for the few directives that are looked at.
std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  char quote = 0;
  bool is_open = false;
  for (const char c : line) {
    if (quote != 0) {
      if (c == quote)
        quote = 0;
      else
        word += c;
    } else if (c == '"' || c == '\'') {
      quote = c;
      is_open = true;
    } else if (c == ' ' || c == '\t' || c == '\r') {
      if (!word.empty() || is_open) words.push_back(std::exchange(word, {}));
      is_open = false;
    } else {
      word += c;
    }
  }
  if (!word.empty() || is_open) words.push_back(word);
  return words;
}

bool says_whom_to_follow(std::string_view line) {
  const auto text = trim(line);
  if (text.empty() || text.front() == '#') return false;
  const auto words = words_of(text);
  const auto name = words.empty() ? std::string() : lower(words.front());
  return name == "replicaof" || name == "slaveof";
}

bool holds_writes(std::string_view config) {
  for (const auto& line : split(config, '\n')) {
    const auto words = words_of(trim(line));
    if (words.size() == 2 && words[1] == std::to_string(kHeldReplicas) &&
        (lower(words[0]) == "min-replicas-to-write" || lower(words[0]) == "min-slaves-to-write"))
      return true;
  }
  return false;
}

// A link is written through, not replaced by a file.
Result<std::string> real_config(const ServerDir& dir) {
  if (dir.config_file.empty())
    return fail(Code::config, fmt::format("the configuration file of {} is not known", dir.node),
                "set config_file of the node in zx.toml: without it nothing keeps the server from "
                "starting as a master");
  std::error_code code;
  const auto path = std::filesystem::canonical(dir.config_file, code);
  if (code)
    return fail(Code::config,
                fmt::format("{}: cannot find {}: {}", dir.node, dir.config_file, code.message()),
                "set config_file of the node in zx.toml to the file its server is started with");
  return path.string();
}

Status rewrite_config(const std::string& path, const std::optional<Follows>& follows) {
  ZX_ASSIGN(const auto text, os::read_file(path, kMostConfig));
  auto changed = with_follows(text, follows);
  if (changed == text) return {};
  ZX_ASSIGN(const auto owner, os::owner_of(path));
  struct stat found {};
  if (stat(path.c_str(), &found) != 0)
    return fail(errno_error(Code::io, "cannot look at " + path, errno));
  os::WriteOptions options;
  options.mode = found.st_mode & 07777;  // it may hold a password
  options.owner = owner;
  return os::write_file(path, changed, options);
}

Json json_of(const std::optional<Follows>& follows) {
  if (!follows) return Json();
  return {{"host", follows->host}, {"port", follows->port}};
}

std::optional<Follows> follows_from(const Json& json) {
  if (!json.is_object()) return std::nullopt;
  return Follows{get_string(json, "host"), static_cast<int>(get_int(json, "port"))};
}

Status kill_all(const ServerDir& dir, const std::vector<os::FoundProcess>& processes) {
  for (const auto& process : processes)
    if (::kill(process.pid, SIGKILL) != 0 && errno != ESRCH)
      return fail(errno_error(
          Code::auth, fmt::format("cannot end process {} of {}", process.pid, dir.node), errno));
  return {};
}

Status wait_gone(const ServerDir& dir, const std::vector<os::FoundProcess>& processes,
                 Deadline deadline) {
  for (const auto& process : processes)
    while (os::is_running(process.pid)) {
      if (deadline.passed())
        return fail(
            Code::timeout,
            fmt::format("{}: process {} is still there after SIGKILL", dir.node, process.pid),
            "look at it on its host");
      pause_for(kLookAgain);
    }
  return {};
}

Status run_configured(const ServerDir& dir, const std::vector<std::string>& argv,
                      Deadline deadline) {
  os::ProcessOptions options;
  options.deadline = std::max(deadline.left(), Millis(1));
  auto result = os::run_ok(argv, options);
  if (!result) return fail_while(result.error(), "running " + argv.front() + " for " + dir.node);
  return {};
}

bool accepts(const ServerDir& dir) {
  return net::try_tcp(dir.address, dir.port, Deadline::after(Millis(200))) == net::Tcp::accepted;
}

Status spawn(const ServerDir& dir) {
  ZX_ASSIGN(const auto config, real_config(dir));
  ZX_ASSIGN(const auto owner, os::owner_of(dir.path));
  os::ProcessOptions options;
  if (geteuid() == 0 && owner.uid != 0) {
    ZX_ASSIGN(options.user, os::user_of_uid(owner.uid));
  }
  options.directory = "/";
  const auto log = start_log_path(dir);
  ZX_TRY(os::remove_file(log));
  // Detached already; a server that forks by itself would be lost to the check below.
  ZX_TRY(os::spawn_detached({dir.bin_dir + "/redis-server", config, "--daemonize", "no"}, options,
                            log));
  if (geteuid() == 0 && chown(log.c_str(), owner.uid, owner.gid) != 0)
    return fail(errno_error(Code::io, "cannot give " + log + " to its owner", errno));
  return {};
}

}  // namespace

ServerDir server_dir_of(const config::Config& config, const config::RedisDeployment& deployment,
                        const config::RedisNode& node) {
  const auto* host = config.host(node.host);
  ServerDir dir;
  dir.node = node.name;
  dir.path = node.data_dir;
  dir.config_file = node.config_file;
  dir.bin_dir = deployment.bin_dir;
  dir.address = host != nullptr ? host->address : node.host;
  dir.port = node.port;
  dir.service = node.service;
  dir.start = node.start;
  dir.stop = node.stop;
  return dir;
}

Json to_json(const ServerDir& d) {
  return {{"node", d.node},       {"path", d.path},       {"config_file", d.config_file},
          {"bin_dir", d.bin_dir}, {"address", d.address}, {"port", d.port},
          {"service", d.service}, {"start", d.start},     {"stop", d.stop}};
}

Result<ServerDir> server_dir_from_json(const Json& json) {
  ServerDir dir;
  dir.node = get_string(json, "node");
  dir.path = get_string(json, "path");
  dir.config_file = get_string(json, "config_file");
  dir.bin_dir = get_string(json, "bin_dir");
  dir.address = get_string(json, "address");
  dir.port = static_cast<int>(get_int(json, "port"));
  dir.service = get_string(json, "service");
  dir.start = get_strings(json, "start");
  dir.stop = get_strings(json, "stop");
  if (!dir.path.starts_with('/'))
    return fail(Code::config, fmt::format("the data directory of {} is not known", dir.node),
                "set data_dir of the node in zx.toml to what CONFIG GET dir says there");
  if (!dir.bin_dir.starts_with('/') || dir.port < 1 || dir.port > 65535)
    return fail(Code::usage, "the request has no absolute program directory and port");
  return dir;
}

Result<std::vector<os::FoundProcess>> server_processes(const ServerDir& dir) {
  if (!os::exists(dir.path)) return std::vector<os::FoundProcess>();
  ZX_ASSIGN(auto found, os::processes_in(dir.path));
  // Several servers may share a directory; a shell that stands in it is none of ours to end.
  std::erase_if(found, [&](const os::FoundProcess& process) {
    if (!process.command.starts_with("redis-")) return true;
    const auto port = titled_port(process.pid);
    return port && *port != dir.port;
  });
  return found;
}

LocalFacts inspect(const ServerDir& dir) {
  LocalFacts facts;
  if (const auto owner = os::owner_of(dir.path); !owner && owner.error().code == Code::auth) {
    facts.problem = owner.error().message;
    return facts;
  }
  facts.is_data_dir = os::is_directory(dir.path);
  const auto processes = server_processes(dir);
  if (!processes) {
    facts.problem = processes.error().message;
  } else if (!processes->empty()) {
    facts.is_running = true;
    facts.pid = processes->front().pid;
    facts.is_paused = std::all_of(processes->begin(), processes->end(),
                                  [](const auto& process) { return process.state == 'T'; });
    facts.is_working = std::any_of(processes->begin(), processes->end(),
                                   [](const auto& process) { return is_working(process.pid); });
  } else {
    facts.is_running = accepts(dir);
  }
  if (!facts.is_data_dir) {
    facts.problem = dir.path + " does not exist or is not a directory";
  } else if (const auto config = real_config(dir); !config) {
    facts.problem = config.error().message;
  } else if (access(config->c_str(), R_OK) != 0 ||
             access(os::parent_of(*config).c_str(), W_OK) != 0) {
    facts.problem = fmt::format("{} cannot be rewritten by zx", *config);
  }
  if (!dir.config_file.empty())
    if (const auto text = os::read_file(dir.config_file, kMostConfig))
      facts.holds_writes = holds_writes(*text);
  if (const auto text = os::read_file(fence_path(dir), 65536)) {
    facts.fenced = true;
    if (const auto json = parse_json(*text, kFenceFile)) facts.fence_run = get_string(*json, "run");
  }
  return facts;
}

std::optional<Follows> follows_in(std::string_view text) {
  std::optional<Follows> follows;
  for (const auto& line : split(text, '\n')) {
    if (!says_whom_to_follow(line)) continue;
    const auto words = words_of(trim(line));
    if (words.size() != 3) continue;
    if (lower(words[1]) == "no" && lower(words[2]) == "one")
      follows.reset();
    else
      follows = Follows{words[1], std::atoi(words[2].c_str())};
  }
  return follows;
}

std::string with_follows(std::string_view text, const std::optional<Follows>& follows) {
  if (follows_in(text) == follows) return std::string(text);
  std::vector<std::string> lines;
  for (const auto& line : split(text, '\n'))
    if (!says_whom_to_follow(line)) lines.push_back(line);
  if (follows) {
    while (!lines.empty() && trim(lines.back()).empty()) lines.pop_back();
    lines.push_back(fmt::format("replicaof {} {}", follows->host, follows->port));
    lines.emplace_back();
  }
  return join(lines, "\n");
}

Result<FenceReport> fence(const ServerDir& dir, const Follows& to, const std::string& run,
                          Deadline deadline) {
  ZX_ASSIGN(const auto config, real_config(dir));
  ZX_ASSIGN(const auto owner, os::owner_of(dir.path));
  ZX_ASSIGN(const auto text, os::read_file(config, kMostConfig));
  FenceReport report;
  report.was_fenced = os::exists(fence_path(dir));
  if (!report.was_fenced) {
    // What was there before comes first: without it the configuration could not be put back.
    const Json record{
        {"run", run},
        {"at", format_utc(wall_now())},
        {"followed", json_of(follows_in(text))},
        {"what", "zx fenced this server; it starts as a replica until zx redis sync"}};
    os::WriteOptions options;
    options.owner = owner;
    ZX_TRY(os::write_file(fence_path(dir), dump_line(record) + "\n", options));
  }
  ZX_TRY(rewrite_config(config, to));
  // Twice: one that had read the old configuration may not have entered its directory at the first
  // look. What a supervisor has started since is a replica, and is left alone.
  for (int round = 0; round < 2; ++round) {
    ZX_ASSIGN(const auto found, server_processes(dir));
    report.ended += static_cast<int>(found.size());
    ZX_TRY(kill_all(dir, found));
    ZX_TRY(wait_gone(dir, found, deadline));
  }
  return report;
}

Status unfence(const ServerDir& dir, const std::string& run) {
  const auto text = os::read_file(fence_path(dir), 65536);
  if (!text) return text.error().code == Code::not_found ? Status{} : fail(text.error());
  ZX_ASSIGN(const auto record, parse_json(*text, fence_path(dir)));
  if (get_string(record, "run") != run) return {};  // another run's fence stays
  ZX_ASSIGN(const auto config, real_config(dir));
  ZX_TRY(rewrite_config(config, follows_from(get_object(record, "followed"))));
  return os::remove_file(fence_path(dir));
}

Status forget_fence(const ServerDir& dir) { return os::remove_file(fence_path(dir)); }

Result<bool> stop(const ServerDir& dir, Deadline deadline) {
  // Through the supervisor first, or it would start the server again.
  if (!dir.stop.empty())
    ZX_TRY(run_configured(dir, dir.stop, deadline));
  else if (!dir.service.empty())
    ZX_TRY(run_configured(dir, {"systemctl", "stop", dir.service}, deadline));
  ZX_ASSIGN(const auto processes, server_processes(dir));
  for (const auto& process : processes)
    if (::kill(process.pid, SIGTERM) != 0 && errno != ESRCH)
      return fail(errno_error(
          Code::auth, fmt::format("cannot stop process {} of {}", process.pid, dir.node), errno));
  const auto patience = deadline.at_most(deadline.left() * 3 / 4);
  bool orderly = true;
  while (true) {
    ZX_ASSIGN(const auto left, server_processes(dir));
    if (left.empty()) return orderly;
    if (deadline.passed())
      return fail(Code::timeout, fmt::format("{} does not stop", dir.node),
                  fmt::format("look at process {} (state {}) on its host", left.front().pid,
                              left.front().state));
    if (patience.passed()) {
      orderly = false;
      ZX_TRY(kill_all(dir, left));
    }
    pause_for(kLookAgain);
  }
}

Status start(const ServerDir& dir, Deadline deadline) {
  ZX_ASSIGN(const auto before, server_processes(dir));
  const bool is_supervised = !dir.start.empty() || !dir.service.empty();
  if (is_supervised)
    ZX_TRY(run_configured(dir,
                          !dir.start.empty()
                              ? dir.start
                              : std::vector<std::string>{"systemctl", "start", dir.service},
                          deadline));
  else if (before.empty())
    ZX_TRY(spawn(dir));
  // A process that has read no configuration yet is in no directory of ours.
  constexpr Millis kToBegin{2'000};
  const auto begun = Deadline::after(std::min(kToBegin, deadline.left()));
  while (!accepts(dir)) {
    ZX_ASSIGN(const auto processes, server_processes(dir));
    if (processes.empty() && begun.passed())
      return fail(Code::failed, fmt::format("{} did not start: {}", dir.node, last_words(dir)),
                  "its own log on its host says more");
    if (deadline.passed())
      return fail(Code::timeout,
                  fmt::format("{} does not accept connections yet: {}", dir.node, last_words(dir)),
                  "it goes on starting; look again with zx status");
    pause_for(Millis(5));
  }
  return {};
}

}  // namespace zx::redis
