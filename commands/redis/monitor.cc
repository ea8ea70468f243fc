// zx redis monitor: what happens on servers and Sentinels, a line an event, as it happens.
#include <chrono>
#include <map>
#include <memory>

#include <fmt/format.h>

#include "commands/redis_deployment.h"
#include "commands/times.h"
#include "lib/os/signals.h"
#include "lib/redis/events.h"
#include "lib/redis/monitor.h"
#include "lib/redis/observe.h"

namespace zx::commands {
namespace {

struct Options {
  std::string deployment;
};

using Tell = std::function<void(const redis::Event&)>;

// Listens to one Sentinel for as long as it lives, and comes back to it.
class Ear : public std::enable_shared_from_this<Ear> {
 public:
  Ear(net::Loop& loop, redis::Target target, std::string master_name, Millis deadline, Tell tell)
      : loop_(loop),
        next_(loop),
        target_(std::move(target)),
        master_name_(std::move(master_name)),
        name_(fmt::format("{}:{}", target_.address, target_.port)),
        deadline_(deadline),
        tell_(std::move(tell)) {}

  void listen() {
    redis::Connection::open(loop_, target_, Deadline::after(deadline_),
                            [weak = weak_from_this()](auto opened) {
                              const auto self = weak.lock();
                              if (!self) return;
                              if (!opened)
                                return self->lost(error_of(self->target_, opened.error()).message);
                              self->connection_ = *opened;
                              self->subscribe();
                            });
  }

 private:
  void subscribe() {
    connection_->on_end([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->lost("Sentinel " + self->name_ + " has gone");
    });
    connection_->on_message(
        [weak = weak_from_this()](const std::string& channel, const std::string& text) {
          const auto self = weak.lock();
          if (!self) return;
          if (const auto event =
                  redis::sentinel_event(self->name_, wall_now(), channel, text, self->master_name_))
            self->tell_(*event);
        });
    ask({"PSUBSCRIBE", "*"}, true);
  }

  // Its end is noticed at once, its silence by a question now and then.
  void ask(const redis::Command& question, bool is_first) {
    connection_->command(question, Deadline::after(deadline_),
                         [weak = weak_from_this(), is_first](const auto& reply) {
                           const auto self = weak.lock();
                           if (!self) return;
                           if (!reply)
                             return self->lost(error_of(self->target_, reply.error()).message);
                           self->is_lost_ = false;
                           if (is_first)
                             self->say("up", "Sentinel " + self->name_ + " is heard", false);
                           self->again(5 * kRetry, [](Ear& ear) { ear.ask({"PING"}, false); });
                         });
  }

  void lost(const std::string& why) {
    connection_.reset();
    if (!std::exchange(is_lost_, true)) say("down", why, true);
    again(kRetry, [](Ear& ear) { ear.listen(); });
  }

  void say(const char* kind, const std::string& text, bool is_bad) {
    tell_({wall_now(), name_, kind, text, is_bad});
  }

  void again(Millis in, void (*what)(Ear&)) {
    next_.at(Deadline::after(in), [weak = weak_from_this(), what] {
      if (const auto self = weak.lock()) what(*self);
    });
  }

  static constexpr Millis kRetry{1000};
  net::Loop& loop_;
  net::Timer next_;
  redis::Target target_;
  std::string master_name_, name_;
  Millis deadline_;
  Tell tell_;
  redis::Connection::Pointer connection_;
  bool is_lost_ = false;
};

void print(Screen& screen, const std::string& deployment, const redis::Event& event) {
  if (screen.is_json()) {
    Json line{{"schema", 1}, {"deployment", deployment}};
    line.update(to_json(event));
    return screen.raw(dump_line(line) + "\n");
  }
  const auto since_epoch = event.at.time_since_epoch();
  const auto millis = std::chrono::duration_cast<Millis>(since_epoch).count() % 1000;
  screen.line(fmt::format("{}.{:03}  {}", time_of(event.at), millis, event.text),
              event.is_bad ? Tone::bad : Tone::plain);
}

// One server: what is new at every look.
struct Watched {
  redis::History history;
  std::unique_ptr<redis::Monitor> monitor;
};

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto* deployment, pick_deployment(*config, given.deployment));
  ZX_ASSIGN(const auto audience, redis::audience_of(*config, *deployment));
  const auto deadline = deployment->policy.probe_deadline;
  const auto tell = [&](const redis::Event& event) { print(env.screen, deployment->name, event); };
  net::Loop loop;
  std::map<std::string, Watched> nodes;
  redis::Snapshot seen;  // by what addresses they call each other
  for (const auto& target : audience.nodes) {
    auto& place = seen.nodes.emplace_back();
    place.name = target.name;
    place.address = target.address;
    place.port = target.port;
  }
  for (std::size_t i = 0; i < audience.nodes.size(); ++i) {
    const auto& target = audience.nodes[i];
    auto& watched = nodes[target.name];
    redis::Monitor::Settings settings;
    settings.target = target;
    settings.host = deployment->node(target.name)->host;
    settings.interval = deployment->policy.probe_interval;
    settings.deadline = deadline;
    watched.monitor =
        std::make_unique<redis::Monitor>(loop, settings, [&watched, &seen, i, tell](bool) {
          const auto& facts = watched.monitor->facts();
          seen.nodes[i].addresses = facts.addresses;
          for (const auto& event : redis::events_since(watched.history, facts, seen)) tell(event);
          watched.history.add(facts);
        });
  }
  std::vector<std::shared_ptr<Ear>> ears;
  for (const auto& target : audience.sentinels) {
    ears.push_back(std::make_shared<Ear>(loop, target, audience.master_name, deadline, tell));
    ears.back()->listen();
  }
  std::optional<Deadline> end;
  if (env.shared.timeout) end = Deadline::after(*env.shared.timeout);
  const auto is_over = [&] {
    return os::interrupted() || env.screen.is_broken() || (end && end->passed());
  };
  while (!is_over()) loop.run_until(is_over, Deadline::after(Millis(100)));
  return 0;
}

}  // namespace

void add_redis_monitor(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("redis", "look at Redis and its Sentinels"), "monitor",
      "print what happens on Redis servers and Sentinels, as it happens",
      {.description =
           "Holds a connection to every server and every Sentinel of a deployment and prints one "
           "line for each event, until interrupted or for as long as --timeout says: servers that "
           "go, come back, restart, load, "
           "change their role or the master that they follow, lose their link or copy everything; "
           "saves that fail; what Sentinels announce. The end of a connection is noticed at once, "
           "the rest at the probe interval. With -o json each line is a JSON object.",
       .examples = {{"zx redis monitor", "watch until Ctrl-C"},
                    {"zx redis monitor -o json", "the same for a script, a JSON object a line"}},
       .exits = {Code::config, Code::auth}},
      [given](Env& env) { return run(env, *given); });
  add_deployment_flag(tree, leaf, given->deployment);
}

}  // namespace zx::commands
