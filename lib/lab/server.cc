#include "lib/lab/server.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/lab/redis.h"
#include "lib/os/files.h"
#include "lib/pg/pid_file.h"

namespace zx::lab {
namespace {

std::size_t size_of(const std::string& path) {
  struct stat found {};
  return stat(path.c_str(), &found) == 0 ? static_cast<std::size_t>(found.st_size) : 0;
}

// What was said since the file had `from` bytes: its last lines.
std::string words_after(const std::string& path, std::size_t from) {
  const auto text = os::read_file(path);
  if (!text || text->size() <= from) return {};
  auto lines = split(trim(std::string_view(*text).substr(from)), '\n');
  constexpr std::ptrdiff_t kMost = 4;
  if (std::ssize(lines) > kMost) lines.erase(lines.begin(), lines.end() - kMost);
  return clean_utf8(join(lines, "\n"));
}

Status launch(const Place& place, const std::string& node) {
  const auto dir = place.data_dir(node);
  ZX_ASSIGN(const auto owner, pg::owner_of(dir));
  os::ProcessOptions options;
  options.user = owner;
  options.directory = place.home(node);
  options.environment = {{"LC_ALL", "C"}, {"PGDATA", dir.path}};
  auto pid = os::spawn_detached({pg::program(dir, "postgres"), "-D", dir.path}, options,
                                place.start_log(node));
  if (!pid) return fail(pid.error());
  return {};
}

bool is_launching(const Place& place, const std::string& node) {
  // Home first: the server goes from there to its data directory, never back.
  for (const auto& path : {place.home(node), place.data(node)}) {
    const auto found = os::processes_in(path);
    if (found && std::any_of(found->begin(), found->end(), is_server_or_tool)) return true;
  }
  return false;
}

// After the postmaster's death its children need a moment to notice, and PostgreSQL refuses to
// start beside them.
Result<Running> settled(const Place& place, const std::string& node, Deadline deadline) {
  while (true) {
    ZX_ASSIGN(auto running, running_in(place, node));
    if (running.processes.empty() || running.postmaster != 0) return running;
    if (deadline.passed())
      return fail(Code::timeout,
                  fmt::format("{}: {} processes of a dead server do not end", node,
                              running.processes.size()),
                  fmt::format("zx lab kill {} --dir {}", node, place.dir));
    pause_for(Millis(10));
  }
}

// A server that was told to end accepts connections a moment longer, and does not run then.
Status await_end(const Place& place, const std::string& node, Deadline deadline,
                 const std::function<bool()>& cancelled) {
  const auto mark = place.told_to_end(node);
  const auto text = os::read_file(mark, 64);
  if (!text) return {};
  const auto told = std::atoi(text->c_str());
  // Redis does not end while it writes its first append-only file, nor later by itself.
  constexpr Millis kAgain{500};
  auto again = Deadline::after(kAgain);
  while (true) {
    ZX_ASSIGN(const auto running, running_in(place, node));
    // A child that it has just forked looks like it: its own number counts.
    const bool is_there = std::any_of(running.processes.begin(), running.processes.end(),
                                      [told](const auto& process) { return process.pid == told; });
    if (running.is_paused || !is_there) break;
    if (cancelled && cancelled())
      return fail(Code::interrupted, "interrupted while waiting for the end of " + node);
    if (again.passed() && server_of(node) != Server::postgresql) {
      if (::kill(told, SIGTERM) != 0 && errno != ESRCH)
        return fail(errno_error(Code::auth, "cannot signal " + node, errno));
      again = Deadline::after(kAgain);
    }
    if (deadline.passed()) {
      // One that will not, for want of disk say, is not waited for twice.
      static_cast<void>(::unlink(mark.c_str()));
      return fail(Code::timeout, node + " was told to end and still runs",
                  "its log: " + place.log(node));
    }
    pause_for(Millis(10));
  }
  static_cast<void>(::unlink(mark.c_str()));
  return {};
}

bool ends_it(int signal) { return signal == SIGTERM || signal == SIGINT || signal == SIGQUIT; }

bool is_postmaster_ready(const pg::DataDir& dir, const Running& now) {
  const auto file = pg::read_pid_file(dir.path);
  return now.postmaster != 0 && file && file->pid == now.postmaster && file->is_ready;
}

Result<bool> is_redis_up(const Place& place, const std::string& node, const Running& now) {
  if (now.postmaster == 0) return false;
  return is_redis_ready(place, node);
}

}  // namespace

bool is_server_or_tool(const os::FoundProcess& process) {
  if (process.command == "postgres" || is_redis(process)) return true;
  const auto words = os::read_file(fmt::format("/proc/{}/cmdline", process.pid), 1 << 20);
  return words && words->find(bin_dir() + "/") != std::string::npos;
}

bool is_redis(const os::FoundProcess& process) {
  return process.command == "redis-server" || process.command == "redis-sentinel";
}

Result<Running> running_in(const Place& place, const std::string& node) {
  if (server_of(node) != Server::postgresql) return running_redis_in(place, node);
  Running running;
  const auto dir = place.data_dir(node);
  if (!os::is_directory(dir.path)) return running;
  ZX_ASSIGN(running.processes, pg::server_processes(dir));
  const auto file = pg::read_pid_file(dir.path);
  for (const auto& process : running.processes) {
    if (!file || process.pid != file->pid) continue;
    running.postmaster = process.pid;
    running.is_paused = process.state == 'T';
  }
  return running;
}

Result<bool> start_server(const Place& place, const std::string& node, Deadline deadline,
                          const std::function<bool()>& cancelled) {
  const auto dir = place.data_dir(node);
  const bool is_pg = server_of(node) == Server::postgresql;
  if (is_pg)
    ZX_TRY(pg::check_data_dir(dir));
  else if (!os::exists(place.redis_config(node)))
    return fail(Code::failed, place.redis_config(node) + " is not there",
                fmt::format("zx lab down --delete --dir {0}, then zx lab up --dir {0}", place.dir));
  ZX_TRY(await_end(place, node, deadline, cancelled));
  ZX_ASSIGN(const auto before, settled(place, node, deadline.at_most(Millis(5'000))));
  if (before.is_paused)
    return fail(Code::refused, node + " is paused by SIGSTOP, it is not down",
                fmt::format("zx lab kill {} --signal CONT --dir {}", node, place.dir));
  const bool ran = before.postmaster != 0;
  const auto start_log = size_of(place.start_log(node));
  const auto log = size_of(place.log(node));
  if (!ran && is_pg) {
    ZX_TRY(pg::drop_pid_file_of_zombie(dir.path));
    ZX_TRY(launch(place, node));
  } else if (!ran) {
    ZX_TRY(launch_redis(place, node));
  }
  const auto last_words = [&] {
    const auto early = words_after(place.start_log(node), start_log);
    const auto late = words_after(place.log(node), log);
    return late.empty() ? early : late;
  };
  // A process in the middle of exec has no command line for an instant.
  constexpr int kMisses = 5;
  int misses = 0;
  while (true) {
    misses = is_launching(place, node) ? 0 : misses + 1;
    ZX_ASSIGN(const auto now, running_in(place, node));
    ZX_ASSIGN(const bool is_ready,
              is_pg ? Result<bool>(is_postmaster_ready(dir, now)) : is_redis_up(place, node, now));
    if (is_ready) return !ran;
    if (misses >= kMisses)
      return fail(Code::failed, fmt::format("{} did not start: {}", node, last_words()),
                  "its log: " + place.log(node));
    if (cancelled && cancelled())
      return fail(Code::interrupted, "interrupted while starting " + node);
    if (deadline.passed())
      return fail(Code::timeout,
                  fmt::format("{} does not accept connections yet: {}", node, last_words()),
                  "it goes on starting; its log: " + place.log(node));
    pause_for(Millis(10));
  }
}

Result<int> signal_server(const Place& place, const std::string& node, int signal) {
  ZX_ASSIGN(auto running, running_in(place, node));
  const auto count = static_cast<int>(running.processes.size());
  const bool to_all = signal == SIGKILL || signal == SIGSTOP || signal == SIGCONT;
  if (!to_all) {
    if (running.postmaster == 0) return 0;
    if (ends_it(signal)) {
      ZX_TRY(os::make_directories(place.state()));
      ZX_TRY(os::write_file(place.told_to_end(node), std::to_string(running.postmaster) + "\n"));
    }
    if (::kill(running.postmaster, signal) != 0)
      return fail(errno_error(Code::auth, "cannot signal " + node, errno));
    return 1;
  }
  const auto deadline = Deadline::after(Millis(5'000));
  const auto is_done = [&](const os::FoundProcess& process) {
    if (signal == SIGSTOP) return process.state == 'T';
    return signal == SIGCONT && process.state != 'T';
  };
  // Again and again: the postmaster may have made a child between the look and the signal.
  while (true) {
    std::erase_if(running.processes, is_done);
    if (running.processes.empty()) return count;
    if (deadline.passed())
      return fail(Code::timeout, fmt::format("{}: {} processes do not react to the signal", node,
                                             running.processes.size()));
    // The postmaster first: it would replace, or end, those that change before it does.
    std::stable_partition(running.processes.begin(), running.processes.end(),
                          [&](const auto& process) { return process.pid == running.postmaster; });
    for (const auto& process : running.processes)
      if (::kill(process.pid, signal) != 0 && errno != ESRCH)
        return fail(errno_error(Code::auth, "cannot signal " + node, errno));
    pause_for(Millis(5));
    ZX_ASSIGN(running, running_in(place, node));
  }
}

}  // namespace zx::lab
