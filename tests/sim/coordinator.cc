#include "tests/sim/coordinator.h"

#include <exception>

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

std::int64_t CoordinatorService::take_turn(Micros now, int process, std::int64_t token) {
  if (token != 0 && !leads(now, process, token)) return 0;
  if (is_turn_held(now) && turn_.process != process) return 0;
  turn_ = {++turns_, process, token, token != 0 ? 0 : now + kTtl, now};
  return turn_.id;
}

bool CoordinatorService::keep_turn(Micros now, std::int64_t id) {
  if (!has_turn(now, id)) return false;
  turn_.until = now + kTtl;
  return true;
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
  ~ModelLease() override {
    // A process that is killed gives nothing back.
    if (turn_ != 0 && std::uncaught_exceptions() == 0)
      state_->ask<bool>([state = state_, turn = turn_] {
        state->service.drop_turn(turn);
        return true;
      });
  }
  [[nodiscard]] Status take_turn() {
    const auto turn = state_->wait_for<std::int64_t>([state = state_, token = token_] {
      return state->service.take_turn(state->scheduler.now(), state->process, token);
    });
    if (!turn) return fail(Code::unreachable, "the coordinator does not answer");
    if (*turn == 0) return fail(Code::locked, "somebody else is at work, or leads");
    turn_ = *turn;
    return state_->check_here(token_);
  }
  Status check() override {
    if (state_->never_lost) return {};
    ZX_TRY(state_->check_here(token_));
    const auto leads = state_->wait_for<bool>([state = state_, token = token_, turn = turn_] {
      const auto now = state->scheduler.now();
      return state->service.leads(now, state->process, token) &&
             (turn == 0 || state->service.has_turn(now, turn));
    });
    if (!leads) return fail(Code::unreachable, "the coordinator does not answer");
    if (!*leads) return fail(Code::refused, "this agent has lost its lead");
    return state_->check_here(token_);
  }

 private:
  std::shared_ptr<ModelCoordinator::State> state_;
  std::int64_t token_;
  std::int64_t turn_ = 0;
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

Result<std::unique_ptr<coord::Lease>> ModelCoordinator::take_turn(const std::string&,
                                                                  const std::string&, bool) {
  const auto now = standing();
  if (now.role == coord::Standing::Role::cut_off) return fail(Code::unreachable, now.why);
  if (now.role == coord::Standing::Role::follower)
    return fail(Code::locked, "the agent " + now.leader + " leads");
  auto lease = std::make_unique<ModelLease>(state_);
  ZX_TRY(lease->take_turn());
  return lease;
}

void ModelCoordinator::vote(const Json& saw) { state_->own.saw = saw; }

std::vector<coord::Vote> ModelCoordinator::votes() {
  return state_->is_good() ? state_->votes : std::vector<coord::Vote>{};
}

namespace {

Result<coord::Value> get_of(ModelCoordinator::State& asking, const std::string& key) {
  const auto value = asking.wait_for<coord::Value>(
      [state = asking.shared_from_this(), key] { return state->service.get(key); });
  if (!value) return fail(Code::unreachable, "the coordinator does not answer");
  return *value;
}

Status put_of(ModelCoordinator::State& asking, const std::string& key, const std::string& text,
              std::int64_t version) {
  const auto done = asking.wait_for<bool>([state = asking.shared_from_this(), key, text, version] {
    return state->service.put(key, text, version);
  });
  if (!done) return fail(Code::timeout, "the coordinator does not answer");
  if (!*done) return fail(Code::locked, "somebody else changed " + key);
  return {};
}

// What the thread that keeps it and the run both know.
struct KeptTurn : std::enable_shared_from_this<KeptTurn> {
  std::shared_ptr<ModelCoordinator::State> state;
  std::int64_t id = 0;
  Micros good_until = 0;
  bool ended = false;

  [[nodiscard]] bool is_good() const {
    return !ended && !state->ended && state->scheduler.now() < good_until;
  }
  void keep() {
    if (!is_good()) return;  // run out is never kept again
    const auto asked = state->scheduler.now();
    auto pending = state->ask<bool>([self = shared_from_this()] {
      return self->state->service.keep_turn(self->state->scheduler.now(), self->id);
    });
    pending->wake = [self = shared_from_this(), asked,
                     weak = std::weak_ptr<Pending<bool>>(pending)] {
      self->state->when_running([self, asked, weak] {
        const auto answer = weak.lock();
        if (answer && *answer->value && self->is_good())
          self->good_until = std::max(self->good_until, asked + CoordinatorService::kTtl);
      });
    };
    state->scheduler.after(CoordinatorService::kTtl / 4, [self = shared_from_this()] {
      self->state->when_running([self] { self->keep(); });
    });
  }
};

class PersonsTurn final : public coord::Lease {
 public:
  explicit PersonsTurn(std::shared_ptr<KeptTurn> kept) : kept_(std::move(kept)) {}
  ~PersonsTurn() override {
    kept_->ended = true;
    if (std::uncaught_exceptions() == 0)
      kept_->state->ask<bool>([kept = kept_] {
        kept->state->service.drop_turn(kept->id);
        return true;
      });
  }
  Status check() override {
    if (is_lost_ || !kept_->is_good()) {
      is_lost_ = true;
      return fail(Code::refused, "the turn has run out");
    }
    const auto has = kept_->state->wait_for<bool>([kept = kept_] {
      return kept->state->service.has_turn(kept->state->scheduler.now(), kept->id);
    });
    if (!has) return fail(Code::unreachable, "the coordinator does not answer");
    is_lost_ = !*has || !kept_->is_good();
    return is_lost_ ? fail(Code::refused, "the turn was lost") : Status{};
  }

 private:
  std::shared_ptr<KeptTurn> kept_;
  bool is_lost_ = false;
};

class NoTurn final : public coord::Lease {
 public:
  Status check() override { return {}; }
};

}  // namespace

Result<coord::Value> ModelCoordinator::get(const std::string& key) { return get_of(*state_, key); }
Status ModelCoordinator::put(const std::string& key, const std::string& text,
                             std::int64_t version) {
  return put_of(*state_, key, text, version);
}

ModelShared::ModelShared(Scheduler& scheduler, Network& network, CoordinatorService& service,
                         Place here, Place there, int process, bool no_turn)
    : state_(std::make_shared<ModelCoordinator::State>(scheduler, network, service)),
      no_turn_(no_turn) {
  state_->here = here;
  state_->there = there;
  state_->process = process;
}

ModelShared::~ModelShared() { state_->ended = true; }

void ModelShared::pause_until(Micros at) {
  state_->paused_until = std::max(state_->paused_until, at);
}

Result<coord::Value> ModelShared::get(const std::string& key) { return get_of(*state_, key); }
Status ModelShared::put(const std::string& key, const std::string& text, std::int64_t version) {
  return put_of(*state_, key, text, version);
}

Result<std::unique_ptr<coord::Lease>> ModelShared::take_turn(const std::string& name,
                                                             const std::string&, bool) {
  if (no_turn_) return std::make_unique<NoTurn>();
  auto kept = std::make_shared<KeptTurn>();
  kept->state = state_;
  kept->good_until = state_->scheduler.now() + CoordinatorService::kTtl;
  const auto id = state_->wait_for<std::int64_t>([state = state_] {
    return state->service.take_turn(state->scheduler.now(), state->process, 0);
  });
  if (!id) return fail(Code::unreachable, "the coordinator does not answer");
  if (*id == 0) return fail(Code::locked, "somebody else is at work on " + name);
  kept->id = *id;
  kept->keep();
  return std::make_unique<PersonsTurn>(std::move(kept));
}

}  // namespace zx::sim
