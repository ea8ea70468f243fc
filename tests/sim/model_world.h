// ha::PgWorld over model nodes, as one observer reaches them through the model network.
#pragma once

#include <string>
#include <vector>

#include "lib/ha/pg_world.h"
#include "tests/sim/model_host.h"

namespace zx::sim {

// Bugs that may be planted into what stands between zx and the world; see plants().
struct Plants {
  bool drop_fence = false;        // a fence reports success and does nothing
  bool skip_freeze = false;       // a freeze reports a position and does nothing
  bool skip_lease_check = false;  // the lease is always ours
  bool skip_turn = false;         // a person's run asks nobody for the turn
  bool skip_no_return = false;    // a promotion is asked for before the journal says so
  bool hide_primaries = false;    // whoever looks does not see that another accepts writes
  bool stale_positions = false;   // every standby says that it has all
};

// What all observers share.
struct Environment {
  Scheduler& scheduler;
  Network& network;
  Cluster& cluster;
  ModelHosts& hosts;
  Trace& trace;
  const Plants& plants;
};

// How a server answered one question.
template <class T>
struct Answer {
  pg::Failure failure = pg::Failure::none;
  std::optional<T> value;
};

class ModelWorld final : public ha::PgWorld {
 public:
  ModelWorld(Environment& environment, std::string name, Place place, config::Config config);

  // How often it has changed something, or tried to.
  [[nodiscard]] int effects() const { return effects_; }
  [[nodiscard]] Place place() const { return place_; }

  const config::Config& config() const override { return config_; }
  const config::PgCluster& cluster() const override { return config_.pg.front(); }
  void watch() { watches_ = true; }
  bool watches() const override { return watches_; }
  // Null again before it ends.
  void share(coord::Shared* shared) { shared_ = shared; }
  coord::Shared* shared() override { return shared_; }
  pg::Snapshot observe(const std::vector<std::string>& nodes, Millis deadline) override;
  Result<Json> on_host_of(const std::string& node, const std::string& op, Json request,
                          Millis deadline) override;
  std::vector<pg::Testimony> ask_around(const std::string& node, Millis deadline) override;
  bool refuses(const std::string& node, int tries, Millis apart, Millis deadline) override;
  Result<pg::CurrentUpstream> current_upstream(const std::string& node, Deadline d) override;
  Result<pg::Frozen> freeze(const std::string& node, Deadline d) override;
  Status set_upstream(const std::string& node, const std::string& conninfo, const std::string& slot,
                      bool add_password, Deadline d) override;
  Result<pg::Receiver> wait_streaming(const std::string& node, const std::string& from,
                                      Deadline d) override;
  Result<pg::Promoted> promote(const std::string& node, const std::function<Status()>& before,
                               Deadline d) override;
  Status write_canary(const std::string& node, const std::string& text, Deadline d) override;
  Result<std::vector<std::string>> make_slots(const std::string& node,
                                              const std::vector<std::string>& slots,
                                              Deadline d) override;
  Result<std::vector<std::string>> drop_slots(const std::string& node,
                                              const std::vector<std::string>& slots,
                                              Deadline d) override;
  Status set_sync_names(const std::string& node, const std::string& names, Deadline d) override;
  Status checkpoint(const std::string& node, Deadline d) override;

 private:
  // Asks the server on behalf of `from`: `work` runs there while the question is answered.
  template <class T>
  std::shared_ptr<Pending<Answer<T>>> contact(Place from, ModelNode& node,
                                              std::function<T(ModelNode&)> work,
                                              std::shared_ptr<bool> accepted = {});
  template <class T>
  Result<T> ask(const std::string& node, const char* what, Deadline d,
                std::function<T(ModelNode&)> work);
  Status change(const std::string& node, const char* what, Deadline d,
                std::function<void(ModelNode&)> work);
  void say(const std::string& what);
  pg::NodeFacts blank(const ModelNode& node) const;

  Environment& env_;
  std::string name_;
  Place place_;
  config::Config config_;
  int effects_ = 0;
  coord::Shared* shared_ = nullptr;
  bool watches_ = false;
};

}  // namespace zx::sim
