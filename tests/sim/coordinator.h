// The coordinator as a service with one memory, and coord::Coordinator over the model network:
// leases with a time to live, fencing tokens, votes, shared facts.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/coord/coordinator.h"
#include "tests/sim/network.h"

namespace zx::sim {

// Its members are called when a request has arrived there.
class CoordinatorService {
 public:
  static constexpr Micros kTtl = 3 * kSecond;
  struct Turn {
    std::int64_t token = 0;  // 0: another leads
    std::string leader;
    std::vector<coord::Vote> votes;
  };
  // Takes the lead when nobody has it, or renews it. `process` tells one life of an agent from the
  // next: a lease that it had before must run out first.
  Turn turn(Micros now, int process, const coord::Vote& vote);
  [[nodiscard]] bool leads(Micros now, int process, std::int64_t token) const {
    return now < until_ && process_ == process && token_ == token;
  }
  // The turn of the only cluster there is: attached to the lead of `token`, or, without one, to a
  // lease of its own. Its id; 0: somebody else has it.
  std::int64_t take_turn(Micros now, int process, std::int64_t token);
  [[nodiscard]] bool has_turn(Micros now, std::int64_t id) const {
    return id == turn_.id && is_turn_held(now);
  }
  bool keep_turn(Micros now, std::int64_t id);
  void drop_turn(std::int64_t id) {
    if (id == turn_.id) turn_ = {};
  }
  // For how long another process has had the turn.
  [[nodiscard]] Micros turn_lost_for(Micros now, int process) const {
    return is_turn_held(now) && turn_.process != process ? now - turn_.taken_at : 0;
  }
  // For how long another process has had the lead.
  [[nodiscard]] Micros lost_for(Micros now, int process) const {
    return process_ == process ? 0 : now - taken_at_;
  }
  [[nodiscard]] coord::Value get(const std::string& key) const;
  [[nodiscard]] bool put(const std::string& key, const std::string& text, std::int64_t version);
  // As a person does: whatever the version is.
  std::map<std::string, coord::Value> values;

 private:
  struct Said {
    coord::Vote vote;
    Micros at = 0;
  };
  struct HeldTurn {
    std::int64_t id = 0;
    int process = 0;
    std::int64_t token = 0;
    Micros until = 0, taken_at = 0;
  };
  [[nodiscard]] bool is_turn_held(Micros now) const {
    return turn_.token != 0 ? leads(now, turn_.process, turn_.token) : now < turn_.until;
  }
  HeldTurn turn_;
  std::int64_t turns_ = 0;
  int process_ = 0;
  std::string leader_;
  std::int64_t token_ = 0;
  Micros until_ = 0, taken_at_ = 0;
  std::map<std::string, Said> votes_;
};

class ModelCoordinator final : public coord::Coordinator {
 public:
  // `never_lost`: a planted bug, every check() says that the lease is ours.
  ModelCoordinator(Scheduler& scheduler, Network& network, CoordinatorService& service, Place here,
                   Place there, int process, std::string name, std::string region, bool never_lost);
  ~ModelCoordinator() override;
  // The whole process stands still, what it does in the background too.
  void pause_until(Micros at);

  coord::Standing standing() override;
  Result<std::unique_ptr<coord::Lease>> lead() override;
  Result<std::unique_ptr<coord::Lease>> take_turn(const std::string& name,
                                                  const std::string& command,
                                                  bool is_urgent) override;
  Status is_turn_free(const std::string&) override { return {}; }
  void vote(const Json& saw) override;
  std::vector<coord::Vote> votes() override;
  Result<coord::Value> get(const std::string& key) override;
  Status put(const std::string& key, const std::string& text, std::int64_t version) override;
  Result<coord::GuardState> guard(const std::string&) override { return coord::GuardState{}; }
  Status bar(const std::string& node) override {
    return fail(Code::not_found, node + " has no guard");
  }
  Status unbar(const std::string&) override { return {}; }

  struct State;

 private:
  std::shared_ptr<State> state_;
};

// Of a person's command: it never leads, and keeps its turn by a lease of its own.
class ModelShared final : public coord::Shared {
 public:
  // `no_turn`: a planted bug, nobody is asked for the turn.
  ModelShared(Scheduler& scheduler, Network& network, CoordinatorService& service, Place here,
              Place there, int process, bool no_turn);
  ~ModelShared() override;
  void pause_until(Micros at);

  Result<std::unique_ptr<coord::Lease>> take_turn(const std::string& name,
                                                  const std::string& command,
                                                  bool is_urgent) override;
  Status is_turn_free(const std::string&) override { return {}; }
  Result<coord::Value> get(const std::string& key) override;
  Status put(const std::string& key, const std::string& text, std::int64_t version) override;
  Result<coord::GuardState> guard(const std::string&) override { return coord::GuardState{}; }
  Status bar(const std::string& node) override {
    return fail(Code::not_found, node + " has no guard");
  }
  Status unbar(const std::string&) override { return {}; }

 private:
  std::shared_ptr<ModelCoordinator::State> state_;
  bool no_turn_;
};

}  // namespace zx::sim
