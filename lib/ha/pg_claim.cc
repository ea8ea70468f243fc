#include "lib/ha/pg_claim.h"

#include <condition_variable>
#include <future>
#include <mutex>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "lib/base/clock.h"
#include "lib/base/text.h"
#include "lib/coord/turn.h"

namespace zx::ha {
namespace {

// 'zx', and the run of a cluster. A server belongs to one cluster, whatever zx.toml calls it.
constexpr const char* kKey = "31352, 1";
constexpr const char* kIdle = "10s";
constexpr Millis kGood{8'000};  // less than that, by our own clock
constexpr Millis kEvery{2'000};
constexpr Millis kAnswers{1'000};
// A server that is busy learns late that the process of a run was killed.
constexpr Millis kLasting{1'000};
constexpr Millis kAgain{10};

struct Held {
  pg::Target target;
  pg::Client client;
};

std::string opening(const std::string& who) {
  // set_config() for a server that does not have the setting yet.
  return fmt::format(
      "SELECT set_config('idle_session_timeout', '{}', false) FROM pg_settings WHERE name = "
      "'idle_session_timeout'; SET application_name = {}",
      kIdle, pg::quote_literal(who));
}

Error taken(const pg::Target& target, pg::Client& client, Deadline deadline) {
  const auto rows = client.query(
      "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE "
      "l.locktype = 'advisory' AND l.granted AND l.classid = 31352 AND l.objid = 1",
      deadline);
  const auto who = rows && !rows->empty() ? clean_utf8(rows->front().front().value_or("")) : "";
  return Error{
      Code::locked,
      fmt::format("{} is at work, says {}", who.empty() ? "another run" : who, target.name),
      "wait until it has ended; a run whose process was killed ends at once",
      {},
      false};
}

// Nothing when the server does not say. One that has said no has said so.
std::optional<bool> try_lock(pg::Client& client) {
  const auto lasting = Deadline::after(kLasting);
  std::optional<bool> said;
  while (true) {
    const auto rows = client.query(fmt::format("SELECT pg_try_advisory_lock({})", kKey),
                                   Deadline::after(kAnswers));
    if (!rows || rows->empty()) return said;
    said = rows->front().front().value_or("") == "t";
    if (*said || lasting.passed()) return said;
    pause_for(kAgain);
  }
}

class Claim final : public coord::Lease {
 public:
  // `since`: no server of `held` was asked for the last time before that.
  Claim(std::vector<Held> held, Monotonic since)
      : held_(std::move(held)), good_until_(since + kGood) {
    keeper_ = std::jthread([this](const std::stop_token& stop) { keep(stop); });
  }
  Status check() override {
    const std::scoped_lock guard(mutex_);
    if (!is_lost_ && system_clock().now() < good_until_) return {};
    is_lost_ = true;
    return fail(Code::refused,
                "this process has stood still for too long: another run may have begun");
  }

 private:
  void keep(const std::stop_token& stop) {
    std::mutex idle;
    std::condition_variable_any wake;
    std::unique_lock waiting(idle);
    while (!wake.wait_for(waiting, stop, kEvery, [] { return false; }) && !stop.stop_requested()) {
      if (!check()) return;
      const auto asked = system_clock().now();
      // One that stops in the course of the run claims nothing any more.
      std::erase_if(held_, [](Held& one) {
        return !one.client.query("SELECT 1", Deadline::after(kAnswers)).has_value();
      });
      if (!check()) return;
      const std::scoped_lock guard(mutex_);
      good_until_ = asked + kGood;
    }
  }

  std::vector<Held> held_;  // of the keeper
  std::mutex mutex_;
  bool is_lost_ = false;
  Monotonic good_until_;
  std::jthread keeper_;  // the last: it ends before what it uses goes
};

}  // namespace

Result<std::unique_ptr<coord::Lease>> claim_servers(const std::vector<pg::Target>& targets,
                                                    const std::string& command, Deadline deadline) {
  const auto me = coord::turn_holder("zx " + command);
  const auto who = fmt::format("{} on {} (pid {})", me.command, me.host, me.pid);
  std::vector<std::future<std::optional<pg::Client>>> opened;
  for (const auto& target : targets)
    opened.push_back(std::async(std::launch::async, [&]() -> std::optional<pg::Client> {
      auto client = pg::Client::open(target, deadline);
      if (!client || !client->query(opening(who), deadline)) return std::nullopt;
      return std::move(*client);
    }));
  std::vector<std::optional<pg::Client>> clients;
  for (auto& one : opened) clients.push_back(one.get());
  // One after the other and all in the same order: of two that begin at once one gets the first.
  std::vector<Held> held;
  const auto since = system_clock().now();
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (!clients[i]) continue;
    const auto locked = try_lock(*clients[i]);
    if (!locked) continue;
    if (!*locked) return fail(taken(targets[i], *clients[i], Deadline::after(kAnswers)));
    held.push_back({targets[i], std::move(*clients[i])});
  }
  return std::make_unique<Claim>(std::move(held), since);
}

}  // namespace zx::ha
