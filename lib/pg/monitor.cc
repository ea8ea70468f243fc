#include "lib/pg/monitor.h"

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/pg/observe.h"

namespace zx::pg {
namespace {

// After a connection ended the server is asked again at once, then at growing distances.
constexpr Millis kFirstRetry{20};
constexpr int kGrains = 20;  // of an interval

constexpr const char* kCanary = "SELECT pg_logical_emit_message(true, 'zx', 'canary')";

}  // namespace

struct Monitor::Impl : std::enable_shared_from_this<Monitor::Impl> {
  Impl(net::Loop& l, Settings s, std::function<void(bool)> c)
      : loop(l), settings(std::move(s)), changed(std::move(c)), next(l) {
    facts.name = settings.target.name;
    facts.host = settings.host;
    facts.address = settings.target.address;
    facts.port = settings.target.port;
    facts.error.message = "not asked yet";
    settings.target.statement_timeout = settings.deadline;
  }

  net::Loop& loop;
  Settings settings;
  std::function<void(bool)> changed;
  net::Timer next;
  Connection::Pointer connection, writer;
  NodeFacts facts;
  std::uint64_t looks = 0;
  std::optional<Monotonic> answered_at;
  std::optional<End> end;
  Millis retry{0};
  bool is_gone = false;  // the monitor was destroyed
  bool is_looking = false;
  bool is_writing = false;
  Monotonic commit_began{};
  std::optional<Millis> commit_took;

  void look() {
    if (std::exchange(is_looking, true)) return;
    const auto started = std::chrono::steady_clock::now();
    const auto deadline = Deadline::after(settings.deadline);
    if (settings.overdue)
      next.at(Deadline::after(settings.deadline / 4), [weak = weak_from_this()] {
        if (const auto self = weak.lock(); self && self->is_looking) self->settings.overdue();
      });
    if (connection) return ask(started, deadline);
    Connection::open(loop, settings.target, deadline,
                     [self = shared_from_this(), started, deadline](auto opened) {
                       if (self->is_gone) return;
                       if (!opened) return self->failed(opened.error(), started);
                       self->connection = *opened;
                       self->ask(started, deadline);
                     });
  }

  void ask(Monotonic started, Deadline deadline) {
    connection->on_end([weak = weak_from_this()](Ending ending) {
      if (const auto self = weak.lock()) self->ended(ending);
    });
    NodeFacts asked;
    asked.name = facts.name;
    asked.host = facts.host;
    asked.address = facts.address;
    asked.port = facts.port;
    asked.lineage = facts.lineage;  // as far as it is known
    ask_facts(connection, std::move(asked), deadline,
              [self = shared_from_this(), started](NodeFacts found) {
                if (self->is_gone) return;
                found.took = since(started);
                self->looked(std::move(found));
              });
  }

  void failed(const Failed& why, Monotonic started) {
    auto found = facts;
    found.failure = why.why;
    found.error = error_of(settings.target, why);
    found.at = std::chrono::system_clock::now();
    found.took = since(started);
    looked(std::move(found));
  }

  void looked(NodeFacts found) {
    const bool was_answered = facts.answered();
    const auto before = facts.role;
    ++looks;
    is_looking = false;
    if (!found.answered()) {
      connection.reset();
      writer.reset();
      // Of what it was nothing may be taken for what it is; its line is a help for the next look.
      found.lineage = facts.lineage;
      found.role = Role::unknown;
      found.receiver.reset();
      found.senders.clear();
      note_end(found);
      log::debug(fmt::format("{} over its held connection: {} after {}", found.name,
                             name_of(found.failure), format_duration(found.took)));
    }
    facts = std::move(found);
    const bool is_new = looks == 1 || was_answered != facts.answered() || before != facts.role;
    if (facts.answered()) {
      answered_at = std::chrono::steady_clock::now();
      end.reset();
      retry = Millis(0);
      if (facts.role == Role::primary)
        write();
      else
        writer.reset();
      schedule_next();
    } else {
      retry = std::min(retry.count() == 0 ? kFirstRetry : retry * 2, settings.interval);
      schedule(retry);
    }
    changed(is_new);
  }

  // It went while it was being asked, or says itself that it is going.
  void note_end(const NodeFacts& found) {
    auto ending = found.ending;
    if (ending == Ending::broken && found.failure == Failure::shutting_down)
      ending = Ending::stopped_fast;
    const bool is_told = ending != Ending::broken;
    if (!end || (is_told && end->ending == Ending::broken))
      end = End{ending, std::chrono::steady_clock::now(), std::chrono::system_clock::now()};
  }

  void ended(Ending ending) {
    connection.reset();
    writer.reset();
    end = End{ending, std::chrono::steady_clock::now(), std::chrono::system_clock::now()};
    facts.failure = Failure::broken;
    facts.error = Error{Code::unreachable, facts.name + " ended the connection", {}, {}, true};
    facts.at = end->wall;
    facts.role = Role::unknown;
    facts.receiver.reset();
    facts.senders.clear();
    retry = Millis(0);
    schedule(Millis(0));
    changed(true);
  }

  // Those of many servers wake the process together.
  void schedule_next() {
    const auto grain = std::chrono::duration_cast<Monotonic::duration>(settings.interval) / kGrains;
    const auto at = std::chrono::steady_clock::now() + settings.interval;
    schedule(std::chrono::duration_cast<Millis>(at - at.time_since_epoch() % grain -
                                                std::chrono::steady_clock::now()));
  }

  void schedule(Millis in) {
    next.at(Deadline::after(in), [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->look();
    });
  }

  // On a connection of its own: a commit that hangs must not keep the looks from going on.
  void write() {
    if (is_writing) return;
    is_writing = true;
    commit_began = std::chrono::steady_clock::now();
    if (writer) return write_now();
    Connection::open(loop, settings.target, Deadline::after(settings.deadline),
                     [self = shared_from_this()](auto opened) {
                       if (self->is_gone) return;
                       if (!opened) return self->wrote(std::nullopt);
                       self->writer = *opened;
                       self->commit_began = std::chrono::steady_clock::now();
                       self->write_now();
                     });
  }

  void write_now() {
    writer->query(
        kCanary, {}, Deadline::after(settings.deadline),
        [self = shared_from_this()](const Outcome<Rows>& rows) {
          if (self->is_gone) return;
          const bool is_silent = !rows && rows.error().why == Failure::silent;
          self->wrote(rows || is_silent ? std::optional(since(self->commit_began)) : std::nullopt);
          if (!rows) self->writer.reset();
        });
  }

  void wrote(std::optional<Millis> took) {
    is_writing = false;
    commit_took = took;
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
  impl_->writer.reset();
  impl_->next.cancel();
}

bool Monitor::adopt(const Settings& settings, const std::function<void(bool)>& changed) {
  auto mine = settings;
  mine.target.statement_timeout = mine.deadline;
  auto& old = impl_->settings;
  if (mine.target != old.target || mine.host != old.host || mine.deadline != old.deadline)
    return false;
  // The look that is planned may be further away than the new interval.
  if (mine.interval < old.interval && !impl_->is_looking) impl_->schedule(Millis(0));
  old = std::move(mine);
  impl_->changed = changed;
  return true;
}

void Monitor::look_now() { impl_->look(); }
const NodeFacts& Monitor::facts() const { return impl_->facts; }
bool Monitor::has_looked() const { return impl_->looks > 0; }
std::optional<Monotonic> Monitor::answered_at() const { return impl_->answered_at; }
const std::optional<Monitor::End>& Monitor::end() const { return impl_->end; }
std::uint64_t Monitor::looks() const { return impl_->looks; }

std::optional<Monitor::Commit> Monitor::commit() const {
  if (impl_->is_writing) {
    const auto so_far = since(impl_->commit_began);
    return Commit{std::max(so_far, impl_->commit_took.value_or(Millis(0))), true};
  }
  if (!impl_->commit_took) return std::nullopt;
  return Commit{*impl_->commit_took, false};
}

}  // namespace zx::pg
