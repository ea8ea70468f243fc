#include "tests/sim/simulation.h"

#include <filesystem>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/ha/sync_debt.h"
#include "tests/sim/clients.h"
#include "tests/sim/faults.h"

namespace zx::sim {
namespace {

constexpr Micros kFaultsEnd = 14 * kSecond;
// By when a cluster that nothing happens to any more must be whole.
constexpr Micros kBound = 70 * kSecond;
constexpr Micros kStartEvery = 4 * kSecond;
constexpr Micros kPersonAfter = 40 * kSecond;
constexpr Micros kLookEvery = 250 * kMs;

// What is drawn once a seed.
struct Setup {
  int nodes = 3, agents = 1;
  int persons = 0;
  std::vector<bool> on_host;  // an agent lives on a node's host, not on a machine of its own
  std::string sync_names;
  bool everywhere = false;  // the standbys have the primary's synchronous_standby_names
  bool slots = false, supervised = false;
  // Hosts of standbys that are away for a while, so that there is something to reduce.
  struct Away {
    int host;
    Micros at, lasts;
  };
  std::vector<Away> away;
  config::PgPolicy policy;
};

Setup draw(Random& random, std::uint64_t seed) {
  Setup setup;
  // By dice of their own, as the policy's rejoin.
  Random hands(seed ^ 0x68616e64);
  if (hands.percent(50)) setup.persons = hands.percent(70) ? 1 : 2;
  setup.nodes = static_cast<int>(random.percent(60) ? 3 : random.between(4, 5));
  Random absences(seed ^ 0x61776179);
  if (absences.percent(15))
    for (int i = 1; i < setup.nodes; ++i)
      if (absences.percent(60))
        setup.away.push_back(
            {i, absences.between(1200, 3500) * kMs, absences.between(2000, 12000) * kMs});
  setup.agents = static_cast<int>(random.between(1, 3));
  for (int i = 0; i < setup.agents; ++i) setup.on_host.push_back(random.percent(40));
  const auto kind = random.between(0, 9);
  std::vector<std::string> names;
  const bool names_all = random.percent(50);
  for (int i = names_all ? 0 : 1; i < setup.nodes; ++i)
    names.push_back(fmt::format("\"pg-{}\"", static_cast<char>('a' + i)));
  const int count = setup.nodes > 3 && random.percent(50) ? 2 : 1;
  if (kind >= 4)
    setup.sync_names =
        fmt::format("{} {} ({})", kind >= 8 ? "FIRST" : "ANY", count, join(names, ", "));
  setup.everywhere = random.percent(50);
  setup.slots = random.percent(50);
  setup.supervised = random.percent(50);
  auto& policy = setup.policy;
  policy.probe_deadline = Millis(400);
  policy.silent_after = Millis(1000);
  policy.planned_restart_grace = Millis(2500);
  policy.fence_deadline = Millis(2500);
  policy.promote_deadline = Millis(4000);
  policy.catchup_deadline = Millis(4000);
  policy.stop_deadline = Millis(3000);
  policy.rebuild_deadline = Millis(6000);
  policy.probe_interval = Millis(1000);
  policy.flap_window = random.percent(70) ? Millis(0) : Millis(5000);
  policy.rejoin = "rebuild";
  policy.require_sync = random.percent(15) && !setup.sync_names.empty();
  policy.require_fence = !random.percent(8);
  return setup;
}

class Simulation {
 public:
  Simulation(std::uint64_t seed, const Plants& plants, const std::string& directory,
             bool with_trace);
  Outcome run();

 private:
  config::Config config_for(int agent, Place place) const;
  void begin();
  void end();
  void start_servers();
  std::set<std::string> given_over() const;
  std::string what_sync_is_owed() const;
  bool run_until(Micros time);  // false: a violation

  Scheduler scheduler_;
  VirtualClock clock_;
  ScopedClock scoped_clock_;
  Random random_;
  int rescues_ = 0;
  Random bytes_;
  ScopedRandom scoped_random_;
  Setup setup_;
  Plants plants_;
  std::string directory_;
  Trace trace_;
  Network network_;
  Cluster cluster_;
  ModelHosts hosts_;
  Environment environment_;
  Invariants invariants_;
  CoordinatorService service_;
  Clients clients_;
  std::vector<std::unique_ptr<Agent>> agents_;
  std::unique_ptr<Faults> faults_;
};

constexpr int kClients = 2;

Simulation::Simulation(std::uint64_t seed, const Plants& plants, const std::string& directory,
                       bool with_trace)
    : clock_(scheduler_),
      scoped_clock_(clock_),
      random_(seed),
      bytes_(random_.fork()),
      scoped_random_([this] { return static_cast<unsigned char>(bytes_.next()); }),
      setup_(draw(random_, seed)),
      plants_(plants),
      directory_(directory),
      trace_(scheduler_, with_trace),
      network_(scheduler_, random_.fork(),
               setup_.nodes + setup_.agents + 1 + kClients + setup_.persons),
      cluster_(scheduler_, network_, random_.fork(), trace_, setup_.nodes),
      hosts_(scheduler_, network_, cluster_, random_.fork()),
      environment_{scheduler_, network_, cluster_, hosts_, trace_, plants_},
      invariants_(scheduler_, cluster_, trace_),
      clients_(scheduler_, network_, cluster_, random_.fork()) {
  // By dice of its own.
  if (Random(~seed).percent(25)) setup_.policy.rejoin = "rewind";
  cluster_.set_witness(&invariants_);
  hosts_.drops_fence = plants_.drop_fence;
}

config::Config Simulation::config_for(int agent, Place place) const {
  config::Config config;
  config.platform.state_dir = fmt::format("{}/{}", directory_, agent);
  config::PgCluster cluster;
  cluster.name = "main";
  cluster.policy = setup_.policy;
  for (const auto& node : cluster_.nodes) {
    config::Host host;
    host.name = "host-" + node.name;
    host.address = Cluster::address_of(node.index);
    host.remote.emplace();
    if (node.index != place) host.remote->push_back("ssh");
    config.hosts.push_back(host);
    config::PgNode own;
    own.name = node.name;
    own.host = host.name;
    own.data_dir = "/data/" + node.name;
    cluster.nodes.push_back(own);
  }
  config.pg.push_back(cluster);
  return config;
}

void Simulation::begin() {
  const auto& first = cluster_.nodes.front();
  for (auto& node : cluster_.nodes) {
    node.supervised = setup_.supervised;
    if (setup_.slots)
      for (const auto& other : cluster_.nodes)
        if (other.index != node.index && &node == &first)
          node.slots.insert(pg::slot_name_of(other.name));
    if (&node == &first || setup_.everywhere) cluster_.set_sync(node, setup_.sync_names);
    if (&node != &first) {
      node.standby_signal = true;
      node.conninfo = fmt::format("user=replicator application_name={} host={} port=5432",
                                  node.name, Cluster::address_of(0));
      if (setup_.slots) node.slot = pg::slot_name_of(node.name);
    }
    cluster_.start(node);
  }
  for (int i = 0; i < setup_.agents; ++i) {
    const Place place = setup_.on_host[static_cast<std::size_t>(i)]
                            ? static_cast<Place>(random_.between(0, setup_.nodes - 1))
                            : setup_.nodes + i;
    agents_.push_back(std::make_unique<Agent>(environment_, service_, invariants_, random_.fork(),
                                              i, place, setup_.nodes + setup_.agents,
                                              config_for(i, place)));
    agents_.back()->start();
  }
  for (int i = 0; i < kClients; ++i) clients_.begin(setup_.nodes + setup_.agents + 1 + i);
  for (int i = 0; i < setup_.persons; ++i) {
    const int number = setup_.agents + i;
    const Place place = setup_.nodes + setup_.agents + 1 + kClients + i;
    agents_.push_back(std::make_unique<Agent>(environment_, service_, invariants_, random_.fork(),
                                              number, place, setup_.nodes + setup_.agents,
                                              config_for(number, place),
                                              static_cast<int>(random_.between(1, 3))));
    agents_.back()->start();
  }
  faults_ = std::make_unique<Faults>(environment_, agents_, random_.fork(),
                                     setup_.nodes + setup_.agents, kFaultsEnd);
  faults_->begin();
  for (const auto& away : setup_.away)
    scheduler_.at(away.at, [this, away] { faults_->crash_host(away.host, away.lasts); });
}

bool Simulation::run_until(Micros time) {
  bool due = false;
  scheduler_.at(time, [&due] { due = true; });
  while (!due && !invariants_.violation()) scheduler_.step();
  return !invariants_.violation();
}

// A person starts servers that are down and that nobody works on: standbys, and when not one node
// serves any more, or after a long while, all.
void Simulation::start_servers() {
  scheduler_.after(kStartEvery, [this] { start_servers(); });
  const bool is_late = scheduler_.now() > kFaultsEnd + kPersonAfter;
  const bool none_serves = std::none_of(cluster_.nodes.begin(), cluster_.nodes.end(),
                                        [](const auto& node) { return node.serves(); });
  for (auto& node : cluster_.nodes)
    if (none_serves || is_late || (node.standby_signal && !node.kept_down)) {
      if (is_late && node.process == Process::down) ++rescues_;
      cluster_.start(node);
    }
}

std::set<std::string> Simulation::given_over() const {
  std::set<std::string> nodes;
  if (setup_.policy.rejoin != "rebuild")
    for (const auto& agent : agents_)
      nodes.insert(agent->given_over().begin(), agent->given_over().end());
  return nodes;
}

// What failovers have taken from synchronous_standby_names comes back when there are enough
// standbys for it, of a cluster that is whole otherwise. Empty when nothing is missing.
std::string Simulation::what_sync_is_owed() const {
  const auto primary = std::find_if(cluster_.nodes.begin(), cluster_.nodes.end(),
                                    [](const auto& node) { return node.accepts_writes(); });
  const auto gone = given_over();
  const auto is_due = [&](const pg::SyncNames& names) {
    return std::count_if(cluster_.nodes.begin(), cluster_.nodes.end(), [&](const auto& node) {
             return node.name != primary->name && !gone.contains(node.name) &&
                    names.lists(node.name);
           }) >= names.count;
  };
  const auto record = ha::watch_record_from(service_.get(ha::watch_key("main")).text);
  if (!record) return record.error().message;
  std::vector<ha::SyncDebt> debts;
  if (record->sync_owed) debts.push_back(*record->sync_owed);
  // An agent tells the others; a person who could not does it with his next command.
  bool is_told = true;
  for (std::size_t i = 0; i < agents_.size(); ++i)
    if (const auto local = ha::local_sync_debt(fmt::format("{}/{}", directory_, i), "main");
        local && !local->is_shared) {
      if (static_cast<int>(i) < setup_.agents)
        debts.push_back(local->debt);
      else
        is_told = false;
    }
  bool is_owed = false;
  for (const auto& debt : debts) {
    if (!ha::is_still_reduced(debt, primary->sync_text)) continue;
    is_owed = true;
    if (const auto wanted = pg::parse_sync_names(debt.wanted); !wanted || is_due(*wanted))
      return fmt::format("{} has '{}', and '{}' is owed since run {}", primary->name,
                         primary->sync_text, debt.wanted, debt.run);
  }
  if (record->sync_owed && !is_owed)
    return fmt::format("'{}' of run {} counts as owed, and was settled", record->sync_owed->wanted,
                       record->sync_owed->run);
  const auto first = pg::parse_sync_names(setup_.sync_names);
  if (setup_.everywhere && is_told && !is_owed && primary->sync.count < first->count)
    return fmt::format("{} has '{}' in the place of '{}', and nothing is owed", primary->name,
                       primary->sync_text, setup_.sync_names);
  return {};
}

// Nothing happens to it any more: it becomes whole, and stays so when every agent has ended what a
// crash left to it.
void Simulation::end() {
  faults_->cease();
  start_servers();
  const auto bound = scheduler_.now() + kBound;
  std::string missing;
  const auto becomes_whole = [&] {
    while (run_until(scheduler_.now() + kLookEvery)) {
      missing = invariants_.what_is_missing(given_over(), setup_.policy.require_sync);
      if (missing.empty()) missing = what_sync_is_owed();
      if (missing.empty()) return true;
      if (scheduler_.now() < bound) continue;
      for (const auto& agent : agents_)
        missing += fmt::format(" ({}: {})", agent->name(), agent->last_words());
      invariants_.violate("it becomes whole again", missing);
    }
    return false;
  };
  if (!becomes_whole()) return;
  for (auto& agent : agents_) agent->retire();
  for (auto& agent : agents_) {
    std::optional<Status> ended;
    const auto fiber = scheduler_.spawn([&] { ended = agent->end_unfinished(); });
    while (!ended && !invariants_.violation()) scheduler_.step();
    if (invariants_.violation()) return;
    if (!*ended)
      return invariants_.violate("every run ends", agent->name() + ": " + ended->error().message);
  }
  for (const auto& node : cluster_.nodes)
    if (node.accepts_writes()) invariants_.check_kept(node, "is the primary at the end");
}

Outcome Simulation::run() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
  begin();
  if (run_until(kFaultsEnd)) end();
  Outcome outcome;
  outcome.violation = invariants_.violation();
  outcome.trace = trace_.lines();
  outcome.promotions = invariants_.promotions();
  outcome.beside = invariants_.beside();
  outcome.rescues = rescues_;
  outcome.acknowledged = invariants_.acknowledgements();
  outcome.took = scheduler_.now();
  for (const auto& agent : agents_) {
    outcome.runs += agent->runs_begun();
    agent->retire();
  }
  return outcome;
}

}  // namespace

Outcome simulate(std::uint64_t seed, const Plants& plants, const std::string& directory,
                 bool with_trace) {
  Simulation simulation(seed, plants, directory, with_trace);
  return simulation.run();
}

}  // namespace zx::sim
