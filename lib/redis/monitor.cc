#include "lib/redis/monitor.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/redis/observe.h"

namespace zx::redis {
namespace {

// After a connection ended the server is asked again at once, then at growing distances.
constexpr Millis kFirstRetry{20};

}  // namespace

struct Monitor::Impl : std::enable_shared_from_this<Monitor::Impl> {
  Impl(net::Loop& l, Settings s, std::function<void(bool)> c)
      : loop(l), settings(std::move(s)), changed(std::move(c)), next(l) {
    facts = blank();
    facts.error.message = "not asked yet";
  }

  net::Loop& loop;
  Settings settings;
  std::function<void(bool)> changed;
  net::Timer next;
  Connection::Pointer connection;
  NodeFacts facts;
  std::uint64_t looks = 0;
  std::optional<Monotonic> answered_at;
  std::optional<End> end;
  Millis retry{0};
  bool is_gone = false;  // the monitor was destroyed
  bool is_looking = false;

  [[nodiscard]] NodeFacts blank() const {
    NodeFacts made;
    made.name = settings.target.name;
    made.host = settings.host;
    made.address = settings.target.address;
    made.port = settings.target.port;
    made.addresses = facts.addresses;
    return made;
  }

  void look() {
    if (std::exchange(is_looking, true)) return;
    const auto started = monotonic_now();
    const auto deadline = Deadline::after(settings.deadline);
    if (settings.overdue)
      next.at(Deadline::after(settings.deadline / 4), [weak = weak_from_this()] {
        if (const auto self = weak.lock(); self && self->is_looking) self->settings.overdue();
      });
    if (connection) return ask(started, deadline);
    look_up();
    Connection::open(loop, settings.target, deadline,
                     [self = shared_from_this(), started, deadline](auto opened) {
                       if (self->is_gone) return;
                       if (!opened) return self->failed(opened.error(), started);
                       self->connection = *opened;
                       self->ask(started, deadline);
                     });
  }

  // What others call it: a replica and a Sentinel know its number.
  void look_up() {
    if (settings.target.address.starts_with('/')) return;
    net::resolve(loop, settings.target.address, [weak = weak_from_this()](const auto& found) {
      const auto self = weak.lock();
      if (self && found) self->facts.addresses = *found;
    });
  }

  void ask(Monotonic started, Deadline deadline) {
    connection->on_end([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->ended();
    });
    ask_facts(connection, blank(), deadline, [self = shared_from_this(), started](NodeFacts found) {
      if (self->is_gone) return;
      found.took = since(started);
      found.addresses = self->facts.addresses;
      self->looked(std::move(found));
    });
  }

  void failed(const Failed& why, Monotonic started) {
    auto found = blank();
    found.failure = why.why;
    found.error = error_of(settings.target, why);
    found.at = wall_now();
    found.took = since(started);
    looked(std::move(found));
  }

  // Of what it was nothing may be taken for what it is; its line is what its replicas are judged
  // by.
  void keep_line(NodeFacts& found) const {
    found.lineage = facts.lineage;
    found.run_id = facts.run_id;
    found.keys = facts.keys;
  }

  void looked(NodeFacts found) {
    const auto failure_before = facts.failure;
    const auto role_before = facts.role;
    const auto link_before = facts.is_linked();
    ++looks;
    is_looking = false;
    if (!found.answered()) {
      // A server that loads goes on over this connection.
      if (!found.is_loading()) connection.reset();
      if (found.role == Role::unknown) keep_line(found);
      if (found.failure == Failure::broken && !end) end = End{monotonic_now(), wall_now()};
      log::debug(fmt::format("{} over its held connection: {} after {}", found.name,
                             name_of(found.failure), format_duration(found.took)));
    }
    facts = std::move(found);
    const bool is_new = looks == 1 || failure_before != facts.failure ||
                        role_before != facts.role || link_before != facts.is_linked();
    if (facts.answered()) {
      answered_at = monotonic_now();
      end.reset();
      retry = Millis(0);
      schedule(settings.interval);
    } else {
      retry = std::min(retry.count() == 0 ? kFirstRetry : retry * 2, settings.interval);
      schedule(retry);
    }
    changed(is_new);
  }

  void ended() {
    connection.reset();
    end = End{monotonic_now(), wall_now()};
    auto found = blank();
    keep_line(found);
    found.failure = Failure::broken;
    found.error = Error{Code::unreachable, found.name + " ended the connection", {}, {}, true};
    found.at = end->wall;
    facts = std::move(found);
    retry = Millis(0);
    schedule(Millis(0));
    changed(true);
  }

  void schedule(Millis in) {
    next.at(Deadline::after(in), [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->look();
    });
  }
};

Monitor::Monitor(net::Loop& loop, Settings settings, std::function<void(bool)> changed)
    : impl_(std::make_shared<Impl>(loop, std::move(settings), std::move(changed))) {
  impl_->schedule(Millis(0));
}

Monitor::~Monitor() {
  impl_->is_gone = true;
  impl_->changed = [](bool) {};
  impl_->connection.reset();
  impl_->next.cancel();
}

bool Monitor::adopt(const Settings& settings, const std::function<void(bool)>& changed) {
  auto& old = impl_->settings;
  if (settings.target != old.target || settings.host != old.host ||
      settings.deadline != old.deadline)
    return false;
  // The look that is planned may be further away than the new interval.
  if (settings.interval < old.interval && !impl_->is_looking) impl_->schedule(Millis(0));
  old = settings;
  impl_->changed = changed;
  return true;
}

void Monitor::look_now() { impl_->look(); }
const NodeFacts& Monitor::facts() const { return impl_->facts; }
bool Monitor::has_looked() const { return impl_->looks > 0; }
std::optional<Monotonic> Monitor::answered_at() const { return impl_->answered_at; }
const std::optional<Monitor::End>& Monitor::end() const { return impl_->end; }
std::uint64_t Monitor::looks() const { return impl_->looks; }

}  // namespace zx::redis
