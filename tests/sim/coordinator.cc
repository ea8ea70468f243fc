#include "tests/sim/coordinator.h"

namespace zx::sim {
namespace {

constexpr Micros kPatience = 600 * kMs;
constexpr Micros kVoteFades = 3 * kSecond;

}  // namespace

CoordinatorService::Turn CoordinatorService::turn(Micros now, int process,
                                                  const coord::Vote& vote) {
  if (now >= until_) {
    process_ = process;
    taken_at_ = now;
    leader_ = vote.agent;
    ++token_;
  }
  if (process_ == process) until_ = now + kTtl;
  if (!vote.saw.is_null()) votes_[vote.agent] = {vote, now};
  Turn turn{process_ == process ? token_ : 0, leader_, {}};
  for (const auto& [agent, said] : votes_)
    if (agent != vote.agent && now - said.at < kVoteFades) turn.votes.push_back(said.vote);
  return turn;
}

coord::Value CoordinatorService::get(const std::string& key) const {
  const auto found = values.find(key);
  return found == values.end() ? coord::Value{} : found->second;
}

bool CoordinatorService::put(const std::string& key, const std::string& text,
                             std::int64_t version) {
  auto& value = values[key];
  if (value.version != version) return false;
  value = {text, version + 1};
  return true;
}

struct ModelCoordinator::State : std::enable_shared_from_this<State> {
  State(Scheduler& s, Network& n, CoordinatorService& v) : scheduler(s), network(n), service(v) {}
  Scheduler& scheduler;
  Network& network;
  CoordinatorService& service;
  Place here = 0, there = 0;
  int process = 0;
  coord::Vote own;
  bool never_lost = false;
  bool ended = false;
  Micros paused_until = 0;

  Micros good_until = 0;  // counted from before the coordinator was asked
  std::int64_t token = 0;
  std::string leader;
  std::vector<coord::Vote> votes;

  [[nodiscard]] bool is_good() const { return !ended && scheduler.now() < good_until; }

  // Calls when the process goes on; never when it has ended.
  void when_running(std::function<void()> then) {
    if (ended) return;
    if (scheduler.now() >= paused_until) return then();
    scheduler.at(paused_until, [self = shared_from_this(), then = std::move(then)]() mutable {
      self->when_running(std::move(then));
    });
  }

  template <class T>
  std::shared_ptr<Pending<T>> ask(std::function<T()> serve) {
    auto pending = std::make_shared<Pending<T>>();
    if (network.is_down(there) || !network.both_ways(here, there)) return pending;
    network.send(here, there, [self = shared_from_this(), serve = std::move(serve), pending] {
      self->network.send(self->there, self->here,
                         [pending, answer = serve()] { pending->set(answer); });
    });
    return pending;
  }
  // From the fiber of the agent.
  template <class T>
  std::optional<T> wait_for(std::function<T()> serve) {
    auto pending = ask<T>(std::move(serve));
    await_all<T>(scheduler, {pending}, scheduler.now() + kPatience);
    return pending->value;
  }

  void turn() {
    const auto asked = scheduler.now();
    auto pending = ask<CoordinatorService::Turn>([self = shared_from_this()] {
      return self->service.turn(self->scheduler.now(), self->process, self->own);
    });
    pending->wake = [self = shared_from_this(), asked,
                     weak = std::weak_ptr<Pending<CoordinatorService::Turn>>(pending)] {
      self->when_running([self, asked, weak] {
        const auto answer = weak.lock();
        if (answer) self->take(asked, *answer->value);
      });
    };
    scheduler.after(CoordinatorService::kTtl / 4,
                    [self = shared_from_this()] { self->when_running([self] { self->turn(); }); });
  }

  void take(Micros asked, const CoordinatorService::Turn& answer) {
    good_until = std::max(good_until, asked + CoordinatorService::kTtl);
    token = answer.token;
    leader = answer.leader;
    votes = answer.votes;
  }

  [[nodiscard]] Status check_here(std::int64_t wanted) const {
    if (!is_good()) return fail(Code::refused, "this agent has lost its lead: it has run out");
    if (token != wanted) return fail(Code::refused, "this agent has lost its lead");
    return {};
  }
};

namespace {

class ModelLease final : public coord::Lease {
 public:
  explicit ModelLease(std::shared_ptr<ModelCoordinator::State> state)
      : state_(std::move(state)), token_(state_->token) {}
  Status check() override {
    if (state_->never_lost) return {};
    ZX_TRY(state_->check_here(token_));
    const auto leads = state_->wait_for<bool>([state = state_, token = token_] {
      return state->service.leads(state->scheduler.now(), state->process, token);
    });
    if (!leads) return fail(Code::unreachable, "the coordinator does not answer");
    if (!*leads) return fail(Code::refused, "this agent has lost its lead");
    return state_->check_here(token_);
  }

 private:
  std::shared_ptr<ModelCoordinator::State> state_;
  std::int64_t token_;
};

}  // namespace

ModelCoordinator::ModelCoordinator(Scheduler& scheduler, Network& network,
                                   CoordinatorService& service, Place here, Place there,
                                   int process, std::string name, std::string region,
                                   bool never_lost)
    : state_(std::make_shared<State>(scheduler, network, service)) {
  state_->here = here;
  state_->there = there;
  state_->process = process;
  state_->own = {std::move(name), std::move(region), Json()};
  state_->never_lost = never_lost;
  state_->turn();
}

ModelCoordinator::~ModelCoordinator() { state_->ended = true; }

void ModelCoordinator::pause_until(Micros at) {
  state_->paused_until = std::max(state_->paused_until, at);
}

coord::Standing ModelCoordinator::standing() {
  using Role = coord::Standing::Role;
  if (!state_->is_good()) return {Role::cut_off, {}, 0, "the coordinator does not answer"};
  if (state_->token == 0) return {Role::follower, state_->leader, 0, {}};
  return {Role::leader, state_->own.agent, state_->token, {}};
}

Result<std::unique_ptr<coord::Lease>> ModelCoordinator::lead() {
  const auto now = standing();
  if (now.role == coord::Standing::Role::cut_off) return fail(Code::unreachable, now.why);
  if (now.role == coord::Standing::Role::follower)
    return fail(Code::locked, "the agent " + now.leader + " leads");
  return std::make_unique<ModelLease>(state_);
}

void ModelCoordinator::vote(const Json& saw) { state_->own.saw = saw; }

std::vector<coord::Vote> ModelCoordinator::votes() {
  return state_->is_good() ? state_->votes : std::vector<coord::Vote>{};
}

Result<coord::Value> ModelCoordinator::get(const std::string& key) {
  const auto value =
      state_->wait_for<coord::Value>([state = state_, key] { return state->service.get(key); });
  if (!value) return fail(Code::unreachable, "the coordinator does not answer");
  return *value;
}

Status ModelCoordinator::put(const std::string& key, const std::string& text,
                             std::int64_t version) {
  const auto done = state_->wait_for<bool>(
      [state = state_, key, text, version] { return state->service.put(key, text, version); });
  if (!done) return fail(Code::timeout, "the coordinator does not answer");
  if (!*done) return fail(Code::locked, "somebody else changed " + key);
  return {};
}

}  // namespace zx::sim
