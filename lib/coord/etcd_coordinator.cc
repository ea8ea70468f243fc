#include "lib/coord/etcd_coordinator.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/log.h"
#include "lib/coord/background.h"
#include "lib/coord/etcd_facts.h"
#include "lib/coord/etcd_keys.h"
#include "lib/coord/etcd_turn.h"
#include "lib/coord/kept_lease.h"
#include "lib/coord/vote_book.h"

namespace zx::coord {
namespace {

constexpr Millis kPoll{500};
constexpr Millis kVotePause{200};  // between two votes of which each says something new
constexpr Millis kGoodbye{1'000};

// What is known now: written by the background thread, read by all.
struct Known {
  mutable std::mutex mutex;
  bool has_ended = false;
  Millis good_until{0};
  std::string leader;
  std::int64_t token = 0;  // 0: another agent leads, or none
  std::int64_t lease = 0;
  std::string why;  // of the last round, if it failed
  VoteBook votes;
  std::vector<TurnKey> left;  // of runs that have ended: they are still to be taken away

  [[nodiscard]] bool is_good() const { return !has_ended && lease_now() < good_until; }
};

std::string why_cut_off(const Known& known) {
  if (!known.why.empty()) return known.why;
  return known.lease == 0 ? "etcd has not answered yet"
                          : "the lease in etcd has run out before it was renewed";
}

class EtcdRunLease final : public Lease {
 public:
  EtcdRunLease(EtcdClient client, std::string key, std::shared_ptr<Known> known, std::int64_t token,
               Millis patience)
      : client_(std::move(client)),
        key_(std::move(key)),
        known_(std::move(known)),
        token_(token),
        patience_(patience) {}
  ~EtcdRunLease() override {
    if (!turn_) return;
    const bool is_good = [&] {
      const std::scoped_lock guard(known_->mutex);
      return known_->is_good();
    }();
    // Without etcd it is not waited for.
    if (is_good && drop_turn(client_, *turn_, Deadline::after(kGoodbye))) return;
    const std::scoped_lock guard(known_->mutex);
    known_->left.push_back(*std::move(turn_));
  }

  // Also nobody else is at work on `name`.
  [[nodiscard]] Status take_turn(const TurnAsk& ask) {
    TurnKey maybe;
    auto turn = create_turn(client_, ask, Deadline::after(patience_), &maybe);
    if (turn) {
      turn_ = *std::move(turn);
      return check_here();
    }
    if (!maybe.key.empty()) {
      const std::scoped_lock guard(known_->mutex);
      known_->left.push_back(std::move(maybe));
    }
    return fail(turn.error());
  }

  // Lost once is lost for good: the run may have been given up already.
  Status check() override {
    if (!is_lost_) {
      auto checked = ask();
      is_lost_ = !checked && checked.error().code == Code::refused;
      return checked;
    }
    return fail(Code::refused, fmt::format("this agent had lost its lead of token {}", token_));
  }

 private:
  [[nodiscard]] Status ask() {
    ZX_TRY(check_here());
    EtcdTxn both;
    both.success.push_back(etcd_range(key_));
    if (turn_) both.success.push_back(etcd_range(turn_->key));
    const auto result = client_.txn(both, Deadline::after(patience_), true);
    if (!result)
      return fail_while(result.error(), fmt::format("asking whether token {} still leads", token_));
    const auto& ranges = result->ranges;
    if (ranges.size() != both.success.size())
      return fail(Code::server, "etcd: an answer without its ranges");
    if (ranges[0].empty()) return fail(Code::refused, "this agent has lost its lead: nobody leads");
    if (ranges[0].front().create_revision != token_)
      return fail(Code::refused, "this agent has lost its lead to " + ranges[0].front().value);
    if (turn_ && (ranges[1].empty() || ranges[1].front().create_revision != turn_->created))
      return fail(Code::refused, "this run has lost its turn: " + turn_->key);
    return check_here();  // the answer may have come late
  }
  [[nodiscard]] Status check_here() const {
    const std::scoped_lock guard(known_->mutex);
    if (known_->has_ended) return fail(Code::refused, "this agent has given up its lead");
    if (!known_->is_good())
      return fail(Code::refused, "this agent has lost its lead: " + why_cut_off(*known_));
    if (known_->token != token_)
      return fail(Code::refused, fmt::format("this agent has lost its lead of token {}", token_));
    return {};
  }

  EtcdClient client_;
  const std::string key_;
  const std::shared_ptr<Known> known_;
  const std::int64_t token_;
  const Millis patience_;
  std::optional<TurnKey> turn_;
  bool is_lost_ = false;
};

class EtcdCoordinator final : public Coordinator {
 public:
  explicit EtcdCoordinator(EtcdCoordinatorOptions options)
      : options_(std::move(options)),
        known_(std::make_shared<Known>()),
        seen_(std::make_shared<EtcdSeen>()),
        client_(options_.etcd, seen_),
        lease_(options_.ttl),
        facts_(EtcdClient(options_.etcd, seen_), options_.prefix, patience()) {}
  ~EtcdCoordinator() override {
    {
      const std::scoped_lock guard(known_->mutex);
      known_->has_ended = true;
    }
    background_.stop();
    if (lease_.id() == 0) return;
    const auto revoked = client_.revoke(lease_.id(), Deadline::after(kGoodbye));
    if (!revoked) log::debug("the lease in etcd is left to run out: " + revoked.error().message);
  }
  Status start() {
    return background_.start([this] { return turn(); });
  }

  Standing standing() override;
  Result<std::unique_ptr<Lease>> lead() override;
  Result<std::unique_ptr<Lease>> take_turn(const std::string& name, const std::string& command,
                                           bool is_urgent) override;
  Status is_turn_free(const std::string& name) override {
    EtcdClient client(options_.etcd, seen_);
    return coord::is_turn_free(client, options_.prefix, name, Deadline::after(patience()));
  }
  void vote(const Json& saw) override;
  std::vector<Vote> votes() override;
  Result<Value> get(const std::string& key) override { return facts_.get(key); }
  Status put(const std::string& key, const std::string& text, std::int64_t version) override {
    return facts_.put(key, text, version);
  }
  Result<GuardState> guard(const std::string& node) override { return facts_.guard(node); }
  Status bar(const std::string& node) override {
    const auto now = standing();
    if (now.role == Standing::Role::leader)
      return facts_.bar(node,
                        {leader_key(options_.prefix), now.token, "this agent has lost its lead"});
    return fail(Code::refused, "only the leading agent may bar " + node);
  }
  Status unbar(const std::string& node) override { return facts_.unbar(node); }

 private:
  struct Ballot {
    std::string text;
    std::int64_t serial = 0;
    bool is_due = false;
  };
  Millis turn();
  Status round(Deadline deadline);
  [[nodiscard]] EtcdTxn question(bool writes, const Ballot& ballot) const;
  [[nodiscard]] Ballot ballot() const;
  void learn(const EtcdTxnResult& result, const Ballot& written);
  void compact(std::int64_t revision, Deadline deadline);
  [[nodiscard]] Status take_away_what_is_left(Deadline deadline);
  // The lease of a run, while this agent leads; etcd is not asked yet.
  [[nodiscard]] Result<std::unique_ptr<EtcdRunLease>> run_lease(std::int64_t* token);
  // Of one who waits for an answer.
  [[nodiscard]] Millis patience() const {
    return std::clamp(options_.ttl / 2, Millis(1'000), Millis(3'000));
  }

  const EtcdCoordinatorOptions options_;
  const std::shared_ptr<Known> known_;
  const std::shared_ptr<EtcdSeen> seen_;

  // Of the background thread.
  EtcdClient client_;
  KeptLease lease_;
  bool someone_led_ = false;
  std::int64_t written_lease_ = 0;  // our key is attached to it
  std::int64_t written_serial_ = 0;
  std::string written_saw_;
  Millis written_at_{0};
  std::int64_t old_revision_ = 0;
  Millis old_at_{0};

  mutable std::mutex vote_mutex_;
  Json saw_;
  std::int64_t serial_ = 0;

  EtcdFacts facts_;

  Background background_;  // the last: it stops before what it uses goes
};

Millis EtcdCoordinator::turn() {
  const auto done =
      round(Deadline::after(std::clamp(options_.ttl / 3, Millis(500), Millis(3'000))));
  const std::scoped_lock guard(known_->mutex);
  known_->why = done ? std::string() : done.error().message;
  if (known_->lease != lease_.id()) known_->good_until = Millis(0);  // it was taken away
  // etcd takes its time, and the processor's, to compare a password.
  const bool is_told_off = !done && done.error().code == Code::auth;
  return is_told_off ? options_.ttl / 3 : std::min(kPoll, options_.ttl / 4);
}

// All that is to be asked and told must succeed for the lease to count: a leader that can read but
// not write would be none.
Status EtcdCoordinator::round(Deadline deadline) {
  const auto before = lease_.id();
  ZX_TRY(lease_.keep(client_, deadline));
  if (before != 0 && before != lease_.id()) {
    // What still hangs on it is in the way of everybody, us too.
    const auto revoked = client_.revoke(before, deadline);
    if (!revoked) log::debug("a lease in etcd is left to run out: " + revoked.error().message);
  }
  const auto paper = ballot();
  auto result = client_.txn(question(!someone_led_ || paper.is_due, paper), deadline, true);
  if (options_.is_candidate && result && !result->ranges.empty() && result->ranges.front().empty())
    result = client_.txn(question(true, paper), deadline, true);
  if (!result) return fail(result.error());
  if (result->ranges.size() != 3) return fail(Code::server, "etcd: an answer without its ranges");
  learn(*result, paper);
  compact(result->revision, deadline);
  return take_away_what_is_left(deadline);
}

// A turn that its run could not give back: it would be in everybody's way as long as this agent
// lives.
Status EtcdCoordinator::take_away_what_is_left(Deadline deadline) {
  while (true) {
    TurnKey turn;
    {
      const std::scoped_lock guard(known_->mutex);
      if (known_->left.empty()) return {};
      turn = known_->left.back();
    }
    ZX_TRY(drop_turn(client_, turn, deadline));
    const std::scoped_lock guard(known_->mutex);
    std::erase_if(known_->left, [&](const auto& one) { return one.text == turn.text; });
  }
}

EtcdTxn EtcdCoordinator::question(bool writes, const Ballot& ballot) const {
  const auto leader = leader_key(options_.prefix);
  const auto votes = votes_under(options_.prefix);
  const auto guards = guards_under(options_.prefix);
  EtcdTxn txn;
  if (writes && options_.is_candidate) {
    txn.compare.push_back(etcd_created_at(leader, 0));
    txn.success.push_back(etcd_put(leader, options_.name, lease_.id()));
  }
  for (auto* branch : {&txn.success, &txn.failure}) {
    if (writes && ballot.is_due)
      branch->push_back(etcd_put(votes + options_.name, ballot.text, lease_.id()));
    branch->push_back(etcd_range(leader));
    branch->push_back(etcd_range_under(votes));
    branch->push_back(etcd_range_under(guards));
  }
  return txn;
}

// A third of the ttl apart, or at once when it says something new. It is written without a vote
// too: that is how a database that takes no writes is noticed.
EtcdCoordinator::Ballot EtcdCoordinator::ballot() const {
  const std::scoped_lock guard(vote_mutex_);
  Ballot ballot;
  ballot.serial = serial_;
  ballot.text = write_vote({options_.name, options_.region, saw_}, serial_);
  const auto age = lease_now() - written_at_;
  const bool is_news = written_serial_ != serial_ && written_saw_ != dump_line(saw_);
  ballot.is_due =
      written_lease_ != lease_.id() || age >= options_.ttl / 3 || (is_news && age >= kVotePause);
  return ballot;
}

void EtcdCoordinator::learn(const EtcdTxnResult& result, const Ballot& written) {
  std::vector<VoteBook::Entry> entries;
  for (const auto& key : result.ranges[1]) {
    auto entry = read_vote(key.value, key.lease);
    if (entry && entry->vote.agent != options_.name) entries.push_back(*std::move(entry));
  }
  if (written.is_due) {
    written_lease_ = lease_.id();
    written_serial_ = written.serial;
    written_at_ = lease_now();
    const auto json = parse_json(written.text, "our vote");
    written_saw_ = json ? dump_line(get_object(*json, "saw")) : std::string();
  }
  facts_.note_guards(result.ranges[2]);
  const auto& leader = result.ranges[0];
  someone_led_ = !leader.empty();
  const std::scoped_lock guard(known_->mutex);
  known_->good_until = lease_.good_until();
  known_->lease = lease_.id();
  known_->leader = leader.empty() ? std::string() : leader.front().value;
  // Not the name: a former life of this agent had it too.
  const bool is_ours = !leader.empty() && leader.front().lease == lease_.id();
  known_->token = is_ours ? leader.front().create_revision : 0;
  known_->votes.note(entries, lease_now());
}

void EtcdCoordinator::compact(std::int64_t revision, Deadline deadline) {
  if (options_.compact_every.count() == 0 || !someone_led_) return;
  if (old_revision_ != 0 && lease_now() - old_at_ < options_.compact_every) return;
  {
    const std::scoped_lock guard(known_->mutex);
    if (known_->token == 0) return;
  }
  if (old_revision_ != 0) {
    const auto done = client_.compact(old_revision_, deadline);
    if (!done) log::debug("etcd keeps its history: " + done.error().message);
  }
  old_revision_ = revision;
  old_at_ = lease_now();
}

Standing EtcdCoordinator::standing() {
  const std::scoped_lock guard(known_->mutex);
  if (!known_->is_good()) return {Standing::Role::cut_off, {}, 0, why_cut_off(*known_)};
  if (known_->token != 0) return {Standing::Role::leader, options_.name, known_->token, {}};
  return {Standing::Role::follower, known_->leader, 0, {}};
}

Result<std::unique_ptr<EtcdRunLease>> EtcdCoordinator::run_lease(std::int64_t* token) {
  const auto now = standing();
  if (now.role == Standing::Role::cut_off)
    return fail(Code::unreachable, "etcd does not say who leads: " + now.why);
  if (now.role == Standing::Role::follower)
    return fail(Code::locked,
                now.leader.empty() ? "no agent leads yet" : "the agent " + now.leader + " leads");
  *token = now.token;
  return std::make_unique<EtcdRunLease>(EtcdClient(options_.etcd, seen_),
                                        leader_key(options_.prefix), known_, now.token, patience());
}

Error not_leading(Error error) {
  if (error.code == Code::refused) error.code = Code::locked;
  return error;
}

Result<std::unique_ptr<Lease>> EtcdCoordinator::lead() {
  std::int64_t token = 0;
  ZX_ASSIGN(auto lease, run_lease(&token));
  if (const auto checked = lease->check(); !checked) return fail(not_leading(checked.error()));
  return lease;
}

// The lease that the agent has already, and one transaction for both: a failover waits for it.
Result<std::unique_ptr<Lease>> EtcdCoordinator::take_turn(const std::string& name,
                                                          const std::string& command,
                                                          bool is_urgent) {
  std::int64_t token = 0;
  ZX_ASSIGN(auto lease, run_lease(&token));
  const auto id = [&] {
    const std::scoped_lock guard(known_->mutex);
    return known_->lease;
  }();
  if (const auto taken = lease->take_turn({options_.prefix, name, command, id, token, is_urgent});
      !taken)
    return fail(not_leading(taken.error()));
  return lease;
}

void EtcdCoordinator::vote(const Json& saw) {
  bool is_news = false;
  {
    const std::scoped_lock guard(vote_mutex_);
    auto now = saw_.is_object() && saw.is_object() ? saw_ : saw;
    if (now.is_object()) now.update(saw);
    is_news = serial_ == 0 || saw_ != now;
    saw_ = std::move(now);
    ++serial_;
  }
  if (is_news) background_.nudge();
}

std::vector<Vote> EtcdCoordinator::votes() {
  const std::scoped_lock guard(known_->mutex);
  return known_->votes.fresh(lease_now(), options_.ttl);
}

}  // namespace

Result<std::unique_ptr<Coordinator>> etcd_coordinator(EtcdCoordinatorOptions options) {
  options.prefix = etcd_prefix(std::move(options.prefix));
  ZX_TRY(check_etcd_options(options.etcd, options.ttl));
  if (options.name.empty()) return fail(Code::config, "an agent without a name");
  auto made = std::make_unique<EtcdCoordinator>(std::move(options));
  ZX_TRY(made->start());
  return made;
}

}  // namespace zx::coord
