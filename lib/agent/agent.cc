#include "lib/agent/agent.h"

#include <signal.h>

#include <algorithm>

#include <fmt/format.h>

#include "lib/agent/backup_watch.h"
#include "lib/agent/control.h"
#include "lib/agent/node_guard.h"
#include "lib/agent/recorder.h"
#include "lib/agent/state_dir.h"
#include "lib/agent/status.h"
#include "lib/agent/watches.h"
#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/net/signals.h"
#include "lib/os/files.h"
#include "lib/os/host_name.h"
#include "lib/os/notify.h"

namespace zx::agent {
namespace {

constexpr Millis kDrain{5000};
constexpr Millis kTurn{50};         // how soon what waits for a thread is looked at again
constexpr Millis kHeartbeat{1000};  // the loop's own, and the rate of watchdog messages at most
constexpr std::size_t kMostConnections = 512;

template <class Part>
std::vector<std::string> names_of(const std::vector<Part>& parts) {
  std::vector<std::string> names;
  for (const auto& part : parts) names.push_back(part.name);
  return names;
}

class Agent {
 public:
  Agent(Options options, std::shared_ptr<const config::Config> config)
      : options_(std::move(options)),
        config_(std::move(config)),
        name_(name_of(*config_)),
        recorder_(events_path(*config_), options_.say),
        heartbeat_(loop_),
        turn_(loop_),
        started_(system_clock().wall()),
        clusters_([this](const auto& name, auto* before) {
          return ClusterWatch::start(loop_, means_of<ClusterWatch>(name), before);
        }),
        deployments_([this](const auto& name, auto* before) {
          return RedisWatch::start(loop_, means_of<RedisWatch>(name), before);
        }) {}

  Status run();

 private:
  Status begin();
  Status listen_for_control();
  void care_for_state_dir();
  Status mend(const Lost& lost);
  void record(std::string kind, std::string text);
  template <class Watch>
  typename Watch::Means means_of(const std::string& name) {
    return {config_, name, *coordinator_, name_,
            [this](const store::Event& event) { recorder_.add(event); }};
  }
  Result<std::unique_ptr<NodeGuard>> guard_of(const std::string& node);
  AgentState state() const;
  bool is_well() const;
  void beat();
  void on_signal(int number);
  void stop();
  Status reload();
  Status take_over(std::shared_ptr<const config::Config> fresh);
  void turn();
  void handle_control(const net::HttpRequest& request, const net::HttpReply& reply);
  Status notify(const std::string& text);

  Options options_;
  std::shared_ptr<const config::Config> config_;
  std::string name_;
  Recorder recorder_;
  net::Loop loop_;
  net::Timer heartbeat_, turn_;
  Wall started_;
  std::unique_ptr<coord::Coordinator> coordinator_;
  std::vector<std::unique_ptr<coord::Coordinator>> retired_;  // of watches that leave
  Watches<ClusterWatch> clusters_;
  Watches<RedisWatch> deployments_;
  std::vector<std::unique_ptr<NodeGuard>> guards_;
  std::unique_ptr<BackupWatch> backups_;
  std::unique_ptr<net::HttpServer> http_, control_;
  std::unique_ptr<net::Signals> signals_;
  std::uint64_t reloads_ = 0;
  std::string reload_error_;
  Room room_;
  std::optional<LockFile> lock_file_;
  std::string not_mended_;  // why the state directory could not be made again
  bool is_stopping_ = false;
  int draining_ = 0;
  bool is_over_ = false;
  bool notify_failed_ = false;
};

void Agent::record(std::string kind, std::string text) {
  recorder_.add({system_clock().wall(), {}, std::move(kind), {}, {}, std::move(text), {}});
}

Status Agent::notify(const std::string& text) {
  const auto sent = os::notify(text);
  if (!sent && !std::exchange(notify_failed_, true))
    options_.say(log::Level::warning, sent.error().message);
  return sent;
}

Result<std::unique_ptr<NodeGuard>> Agent::guard_of(const std::string& node) {
  for (const auto& cluster : config_->pg)
    if (cluster.node(node) != nullptr)
      return NodeGuard::start(loop_, {config_, cluster.name, node, name_,
                                      [this](const store::Event& event) { recorder_.add(event); }});
  return fail(Code::config, "no node named " + node);
}

net::HttpLimits http_limits() {
  net::HttpLimits limits;
  limits.connections = kMostConnections;
  return limits;
}

Status Agent::listen_for_control() {
  const auto socket = control_socket(*config_);
  if (auto made = os::make_directories(os::parent_of(socket)); !made) {
    auto error = made.error();
    error.hint = "make " + config_->platform.state_dir +
                 " a directory that this user may write, or change platform.state_dir";
    return fail(std::move(error));
  }
  auto control = net::HttpServer::listen(
      loop_, "unix:" + socket, http_limits(),
      [this](const auto& request, auto reply) { handle_control(request, reply); });
  if (!control && control.error().code == Code::locked)
    return fail(Code::locked, fmt::format("another agent named {} runs here", name_),
                "zx agent status shows it; a second one needs another agent.name");
  if (!control) return fail(control.error());
  control_ = *std::move(control);
  return {};
}

Status Agent::begin() {
  ZX_TRY(listen_for_control());
  const auto& agent = config_->agent;
  if (!agent.listen.empty()) {
    ZX_ASSIGN(http_, net::HttpServer::listen(loop_, agent.listen, http_limits(),
                                             [this](const auto& request, auto reply) {
                                               reply(answer(request, state()));
                                             }));
  }
  ZX_ASSIGN(coordinator_, make_coordinator(*config_, name_));
  for (const auto& cluster : config_->pg) ZX_TRY(clusters_.start(cluster.name));
  for (const auto& deployment : config_->redis) ZX_TRY(deployments_.start(deployment.name));
  for (const auto& name : config_->agent.guard) {
    ZX_ASSIGN(guards_.emplace_back(), guard_of(name));
  }
  return {};
}

AgentState Agent::state() const {
  AgentState state;
  state.name = name_;
  state.region = config_->agent.region;
  state.version = options_.version;
  state.started = started_;
  state.standing = coordinator_->standing();
  state.coordination = config_->agent.coordination;
  for (const auto& cluster : config_->pg)
    if (auto known = clusters_.known_of(cluster.name)) state.clusters.push_back(*std::move(known));
  for (const auto& deployment : config_->redis)
    if (auto known = deployments_.known_of(deployment.name))
      state.deployments.push_back(*std::move(known));
  for (const auto& guard : guards_) state.guards.push_back(guard->state());
  state.is_well = is_well();
  state.is_stopping = is_stopping_;
  state.reload_error = reload_error_;
  state.reloads = reloads_;
  state.events_lost = recorder_.lost();
  state.state_dir_free = room_.free;
  for (const auto* warning : {&not_mended_, &room_.warning})
    if (!warning->empty()) state.warnings.push_back(*warning);
  if (http_) state.http = http_->counters();
  if (backups_) state.backup_metrics = backups_->metrics();
  state.now = system_clock().now();
  state.wall = system_clock().wall();
  return state;
}

bool Agent::is_well() const {
  const auto is_watched = [this](const auto& watches) {
    return [this, &watches](const auto& part) {
      return is_stopping_ || watches.known_of(part.name).has_value();
    };
  };
  return std::all_of(config_->pg.begin(), config_->pg.end(), is_watched(clusters_)) &&
         std::all_of(config_->redis.begin(), config_->redis.end(), is_watched(deployments_)) &&
         clusters_.is_well() && deployments_.is_well() &&
         std::all_of(guards_.begin(), guards_.end(),
                     [](const auto& guard) { return guard->is_well(); });
}

void Agent::beat() {
  const auto span = os::watchdog_span();
  if (span && is_well()) static_cast<void>(notify("WATCHDOG=1"));
  care_for_state_dir();
  const auto next = span ? std::min(kHeartbeat, *span / 3) : kHeartbeat;
  heartbeat_.at(Deadline::after(next), [this] { beat(); });
}

// --- the state directory --------------------------------------------------------------------

void Agent::care_for_state_dir() {
  if (is_stopping_) return;
  const auto& state_dir = config_->platform.state_dir;
  const auto lost =
      what_is_lost(state_dir, control_socket(*config_), config_->agent.coordination == "file",
                   coordinator_->standing(), lock_file_);
  const auto before = std::exchange(not_mended_, std::string());
  if (!lost.is_nothing()) {
    const auto mended = mend(lost);
    if (!mended)
      not_mended_ = fmt::format("{} was removed and cannot be made again: {}", state_dir,
                                mended.error().message);
    if (!mended && not_mended_ != before) record("failed", not_mended_);
    if (mended)
      record("failed", fmt::format("{} was removed while the agent ran, and is made again; what it "
                                   "held is gone: journals, pauses, who is owed a return",
                                   state_dir));
  }
  auto room = room_in(state_dir);
  if (!room.warning.empty() && room_.warning.empty()) record("failed", room.warning);
  room_ = std::move(room);
}

// A leader whose lock went with the directory asks for it anew: another agent may have it now. The
// watches go on with what they know, as at a reload.
Status Agent::mend(const Lost& lost) {
  recorder_.reopen();
  if (!lost.has_socket) ZX_TRY(listen_for_control());
  if (lost.has_coordination) return {};
  ZX_ASSIGN(auto fresh, make_coordinator(*config_, name_));
  retired_.push_back(std::exchange(coordinator_, std::move(fresh)));
  lock_file_.reset();
  clusters_.leave(true);
  deployments_.leave(true);
  turn();
  return {};
}

// --- reload ---------------------------------------------------------------------------------

Status Agent::reload() {
  if (is_stopping_) return fail(Code::refused, "the agent is stopping");
  static_cast<void>(notify(os::reloading_state()));
  auto loaded = config::load(options_.config_path);
  Status status;
  if (!loaded)
    status = fail(loaded.error());
  else
    status = take_over(std::make_shared<const config::Config>(*std::move(loaded)));
  static_cast<void>(notify("READY=1"));
  reload_error_ = status ? std::string() : status.error().message;
  if (status) {
    ++reloads_;
    record("reloaded", options_.config_path);
  } else {
    record("failed", "reload: " + reload_error_ + "; the old configuration stays");
  }
  return status;
}

Status Agent::take_over(std::shared_ptr<const config::Config> fresh) {
  // What other agents and zx on this host find it by does not change under their hands.
  const auto& old = *config_;
  if (fresh->platform != old.platform || fresh->agent != old.agent)
    return fail(Code::config, "[platform] and [agent] are read at the start only",
                "restart the agent for those: systemctl restart zx-agent");
  for (const auto& cluster : fresh->pg) {
    ZX_ASSIGN([[maybe_unused]] const auto password, config::password_of(*fresh, cluster));
  }
  for (const auto& deployment : fresh->redis) {
    ZX_ASSIGN([[maybe_unused]] const auto password, config::password_of(*fresh, deployment));
  }
  const auto before = std::exchange(config_, std::move(fresh));
  if (config_->backup != before->backup) backups_ = std::make_unique<BackupWatch>(config_->backup);
  const bool hosts_changed = config_->hosts != before->hosts || config_->regions != before->regions;
  const auto is_same = [&](const auto* was, const auto* is) {
    return !hosts_changed && was != nullptr && is != nullptr && *was == *is;
  };
  clusters_.take_over(names_of(config_->pg), [&](const std::string& name) {
    return is_same(before->cluster(name), config_->cluster(name));
  });
  deployments_.take_over(names_of(config_->redis), [&](const std::string& name) {
    return is_same(before->deployment(name), config_->deployment(name));
  });
  turn();
  return {};
}

void Agent::turn() {
  const auto failed = [this](const char* kind) {
    return [this, kind](const std::string& name, const Error& error) {
      record("failed", fmt::format("watching {}.{}: {}", kind, name, error.message));
    };
  };
  clusters_.turn(!is_stopping_, failed("pg"));
  deployments_.turn(!is_stopping_, failed("redis"));
  const bool nobody_leaves = clusters_.nobody_leaves() && deployments_.nobody_leaves();
  if (nobody_leaves) retired_.clear();
  if (is_stopping_ && nobody_leaves && draining_ == 0) {
    is_over_ = true;
    return;
  }
  if (!nobody_leaves || is_stopping_) turn_.at(Deadline::after(kTurn), [this] { turn(); });
}

// --- signals --------------------------------------------------------------------------------

void Agent::on_signal(int number) {
  if (number == SIGHUP)
    static_cast<void>(reload());
  else
    stop();
}

void Agent::stop() {
  if (std::exchange(is_stopping_, true)) return;
  record("stopped", "no run is begun any more");
  static_cast<void>(notify("STOPPING=1"));
  clusters_.leave(false);
  deployments_.leave(false);
  for (auto* server : {http_.get(), control_.get()}) {
    if (server == nullptr) continue;
    ++draining_;
    server->drain(Deadline::after(kDrain), [this] { --draining_; });
  }
  turn();
}

// --- control --------------------------------------------------------------------------------

void Agent::handle_control(const net::HttpRequest& request, const net::HttpReply& reply) {
  ControlMeans means;
  means.coordinator = coordinator_.get();
  means.config = config_.get();
  means.state = [this] { return state(); };
  means.reload = [this] { return reload(); };
  means.record = [this](const store::Event& event) { recorder_.add(event); };
  means.newest = [this](std::size_t most, const std::string& cluster) {
    return recorder_.newest(most, cluster);
  };
  reply(answer_control(request, means));
}

Status Agent::run() {
  ZX_TRY(begin());
  backups_ = std::make_unique<BackupWatch>(config_->backup);
  signals_ = std::make_unique<net::Signals>(loop_, std::vector<int>{SIGHUP, SIGTERM, SIGINT},
                                            [this](int number) { on_signal(number); });
  std::vector<std::string> clusters;
  for (const auto& name : clusters_.names()) clusters.push_back("pg." + name);
  for (const auto& name : deployments_.names()) clusters.push_back("redis." + name);
  record("started", fmt::format("zx {}, {}{}", options_.version,
                                clusters.empty() ? "nothing to watch" : join(clusters, ", "),
                                http_ ? fmt::format(", on {}", config_->agent.listen) : ""));
  static_cast<void>(notify("READY=1"));
  beat();
  loop_.run_until([this] { return is_over_; },
                  Deadline::after(Millis(std::chrono::hours(24) * 36500)));
  return {};
}

}  // namespace

std::string name_of(const config::Config& config) {
  if (!config.agent.name.empty()) return config.agent.name;
  return os::host_name();
}

std::string control_socket(const config::Config& config) {
  return config.platform.state_dir + "/agents/" + name_of(config) + ".sock";
}

std::string events_path(const config::Config& config) {
  return config.platform.state_dir + "/events.sqlite";
}

Status run(const Options& options) {
  ZX_ASSIGN(auto config, config::load(options.config_path));
  Agent agent(options, std::make_shared<const config::Config>(std::move(config)));
  return agent.run();
}

}  // namespace zx::agent
