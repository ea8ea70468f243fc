#include "lib/coord/etcd_shared.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/coord/background.h"
#include "lib/coord/etcd_facts.h"
#include "lib/coord/etcd_keys.h"
#include "lib/coord/etcd_turn.h"
#include "lib/coord/kept_lease.h"

namespace zx::coord {
namespace {

constexpr Millis kPauseAfterFailure{200};
constexpr Millis kListen{500};  // whether somebody wants the turn
constexpr Millis kGoodbye{1'000};

// The turn that this process has now: bar() asks for it.
struct Held {
  std::mutex mutex;
  std::optional<TurnKey> turn;
};

class PersonsTurn final : public Lease {
 public:
  PersonsTurn(const EtcdSharedOptions& options, std::string name, std::shared_ptr<EtcdSeen> seen,
              std::shared_ptr<Held> held, Millis patience)
      : options_(options),
        name_(std::move(name)),
        patience_(patience),
        client_(options.etcd, seen),
        keeper_(options.etcd, seen),
        lease_(options.ttl),
        held_(std::move(held)) {}
  ~PersonsTurn() override {
    background_.stop();
    {
      const std::scoped_lock guard(held_->mutex);
      if (held_->turn && held_->turn->text == turn_.text) held_->turn.reset();
    }
    if (lease_.id() == 0) return;
    const auto revoked = client_.revoke(lease_.id(), Deadline::after(kGoodbye));
    if (!revoked) log::debug("the turn is left to run out: " + revoked.error().message);
  }

  [[nodiscard]] Status take(const std::string& command, bool is_urgent) {
    const auto deadline = Deadline::after(patience_);
    TurnAsk ask{options_.prefix, name_, command, 0, 0, is_urgent};
    // Whoever has it is named also by an etcd that takes no writes.
    if (const auto free = is_turn_free(client_, options_.prefix, name_, deadline); !free) {
      if (is_urgent && free.error().code == Code::locked)
        if (const auto said = want_turn(client_, ask, deadline); !said)
          log::debug("nobody is told that the turn is wanted: " + said.error().message);
      return free;
    }
    ZX_TRY(lease_.keep(client_, deadline));
    ask.lease = lease_.id();
    TurnKey maybe;
    ZX_ASSIGN(turn_, create_turn(client_, ask, deadline, &maybe));
    good_until_ = lease_.good_until();
    {
      const std::scoped_lock guard(held_->mutex);
      held_->turn = turn_;
    }
    return background_.start([this] { return keep(); });
  }

  bool is_wanted() const override { return is_wanted_; }
  Status check() override {
    if (is_lost_) return fail(Code::refused, lost_);
    auto checked = ask();
    is_lost_ = !checked && checked.error().code == Code::refused;
    if (is_lost_) lost_ = checked.error().message;
    return checked;
  }

 private:
  [[nodiscard]] Status ask() {
    ZX_TRY(check_here());
    const auto keys = client_.range(etcd_range(turn_.key), Deadline::after(patience_));
    if (!keys) return fail_while(keys.error(), "asking whether the turn of " + name_ + " is ours");
    if (keys->empty())
      return fail(Code::refused, fmt::format("the turn of {} was taken away", name_));
    if (keys->front().create_revision != turn_.created)
      return fail(Code::refused, fmt::format("the turn of {} has gone to another run: {}", name_,
                                             first_line(keys->front().value)));
    return check_here();  // the answer may have come late
  }
  [[nodiscard]] Status check_here() {
    const std::scoped_lock guard(mutex_);
    if (lease_now() < good_until_) return {};
    return fail(Code::refused,
                fmt::format("the turn of {} has run out: this process stood still, or etcd did not "
                            "answer, for {}",
                            name_, format_duration(options_.ttl)));
  }
  // One that has run out is never taken again: others may have acted.
  Millis keep() {
    const auto deadline = Deadline::after(std::clamp(options_.ttl / 3, Millis(500), Millis(3'000)));
    const auto renewed = lease_.renew(keeper_, deadline);
    if (renewed && !is_wanted_)
      if (const auto wanted = is_turn_wanted(keeper_, options_.prefix, name_, turn_, deadline))
        is_wanted_ = *wanted;
    const std::scoped_lock guard(mutex_);
    if (renewed) {
      good_until_ = lease_.good_until();
      return std::min(kListen, options_.ttl / 4);
    }
    if (renewed.error().code != Code::not_found)
      return std::min(kPauseAfterFailure, options_.ttl / 10);
    good_until_ = Millis(0);
    return options_.ttl;
  }

  const EtcdSharedOptions options_;
  const std::string name_;
  const Millis patience_;
  EtcdClient client_;
  TurnKey turn_;
  bool is_lost_ = false;
  std::string lost_;

  // Of the background thread, once it runs.
  EtcdClient keeper_;
  KeptLease lease_;

  std::mutex mutex_;
  Millis good_until_{0};
  std::atomic<bool> is_wanted_{false};

  const std::shared_ptr<Held> held_;
  Background background_;  // the last: it stops before what it uses goes
};

class EtcdShared final : public Shared {
 public:
  explicit EtcdShared(EtcdSharedOptions options)
      : options_(std::move(options)),
        seen_(std::make_shared<EtcdSeen>()),
        held_(std::make_shared<Held>()),
        facts_(EtcdClient(options_.etcd, seen_), options_.prefix, patience()) {}

  Result<std::unique_ptr<Lease>> take_turn(const std::string& name, const std::string& command,
                                           bool is_urgent) override {
    auto turn = std::make_unique<PersonsTurn>(options_, name, seen_, held_, patience());
    if (const auto taken = turn->take(command, is_urgent); !taken)
      return fail(not_asked(taken.error(), name));
    // The sooner a guard's renewal is seen, the sooner its end is known.
    EtcdClient client(options_.etcd, seen_);
    if (const auto guards = client.range(etcd_range_under(guards_under(options_.prefix)),
                                         Deadline::after(patience())))
      facts_.note_guards(*guards);
    return turn;
  }
  Status is_turn_free(const std::string& name) override {
    EtcdClient client(options_.etcd, seen_);
    const auto free =
        coord::is_turn_free(client, options_.prefix, name, Deadline::after(patience()));
    if (!free) return fail(not_asked(free.error(), name));
    return {};
  }
  Result<Value> get(const std::string& key) override { return facts_.get(key); }
  Status put(const std::string& key, const std::string& text, std::int64_t version) override {
    return facts_.put(key, text, version);
  }
  Result<GuardState> guard(const std::string& node) override { return facts_.guard(node); }
  Status bar(const std::string& node) override {
    std::optional<TurnKey> turn;
    {
      const std::scoped_lock guard(held_->mutex);
      turn = held_->turn;
    }
    if (!turn) return fail(Code::refused, "without a turn nobody may bar " + node);
    return facts_.bar(node, {turn->key, turn->created, "the turn was lost"});
  }
  Status unbar(const std::string& node) override { return facts_.unbar(node); }

 private:
  [[nodiscard]] Millis patience() const {
    return std::clamp(options_.ttl / 2, Millis(1'000), Millis(3'000));
  }
  static Error not_asked(Error error, const std::string& name) {
    if (error.code == Code::locked) return error;
    error.trail.push_back("while asking etcd whether anybody is at work on " + name);
    error.hint = fmt::format(
        "{}nothing was changed. Make etcd answer; or, when nobody else, person or agent, is at "
        "work on {}: --assume-alone",
        error.hint.empty() ? "" : error.hint + "; ", name);
    return error;
  }

  const EtcdSharedOptions options_;
  const std::shared_ptr<EtcdSeen> seen_;
  const std::shared_ptr<Held> held_;
  EtcdFacts facts_;
};

}  // namespace

std::string etcd_prefix(const config::Config& config) {
  return "/zx/" + config.platform.name + "/";
}

Result<EtcdOptions> etcd_options(const config::Config& config) {
  const auto& agent = config.agent;
  EtcdOptions options;
  options.endpoints = agent.etcd;
  options.username = agent.etcd_user;
  ZX_ASSIGN(options.password, config::etcd_password_of(config));
  options.ca_file = agent.etcd_ca_file;
  options.cert_file = agent.etcd_cert_file;
  options.key_file = agent.etcd_key_file;
  return options;
}

Result<std::unique_ptr<Shared>> etcd_shared(EtcdSharedOptions options) {
  options.prefix = etcd_prefix(std::move(options.prefix));
  ZX_TRY(check_etcd_options(options.etcd, options.ttl));
  return std::make_unique<EtcdShared>(std::move(options));
}

Result<std::unique_ptr<Shared>> shared_of(const config::Config& config) {
  if (config.agent.coordination != "etcd") return file_shared(config.platform.state_dir);
  EtcdSharedOptions options;
  ZX_ASSIGN(options.etcd, etcd_options(config));
  options.prefix = etcd_prefix(config);
  options.ttl = config.agent.lease;
  return etcd_shared(std::move(options));
}

}  // namespace zx::coord
