#include "tests/sim/model_world.h"

#include <fmt/format.h>

#include "lib/os/signals.h"

namespace zx::sim {
namespace {

using pg::Failure;

constexpr Millis kPoll{25};
constexpr Micros kHideAfter = 3 * kSecond;

Micros micros(Millis span) { return span.count() * kMs; }

Code code_of(Failure failure) {
  switch (failure) {
    case Failure::starting_up: return Code::starting_up;
    case Failure::shutting_down: return Code::shutting_down;
    case Failure::no_answer:
    case Failure::silent: return Code::timeout;
    default: return Code::unreachable;
  }
}

Failure greeting(const ModelNode& node) {
  switch (node.process) {
    case Process::down: return Failure::refused;
    case Process::starting: return Failure::starting_up;
    case Process::stopping: return Failure::shutting_down;
    case Process::running: return Failure::none;
  }
  return Failure::other;
}

}  // namespace

ModelWorld::ModelWorld(Environment& environment, std::string name, Place place,
                       config::Config config)
    : env_(environment), name_(std::move(name)), place_(place), config_(std::move(config)) {}

void ModelWorld::say(const std::string& what) {
  env_.trace([&] { return name_ + ": " + what; });
}

template <class T>
std::shared_ptr<Pending<Answer<T>>> ModelWorld::contact(Place from, ModelNode& node,
                                                        std::function<T(ModelNode&)> work,
                                                        std::shared_ptr<bool> accepted) {
  auto pending = std::make_shared<Pending<Answer<T>>>();
  auto& net = env_.network;
  const Place to = node.index;
  // A connection is made by packets both ways; nothing is sent before.
  if (net.is_down(to) || !net.both_ways(from, to)) return pending;
  auto& cluster = env_.cluster;
  const auto reply = [&net, from, to, pending](Answer<T> answer) {
    net.send(to, from,
             [pending, answer = std::move(answer)]() mutable { pending->set(std::move(answer)); });
  };
  net.send(from, to,
           [&net, &cluster, &node, from, to, reply, work = std::move(work), accepted]() mutable {
             if (node.process == Process::down) return reply({Failure::refused, {}});
             if (accepted) *accepted = true;
             net.send(from, to, [&cluster, &node, reply, work = std::move(work)]() mutable {
               if (node.process == Process::down) return reply({Failure::broken, {}});
               cluster.when_awake(node, [&node, reply, work = std::move(work)] {
                 const auto greeted = greeting(node);
                 if (greeted != Failure::none) return reply({greeted, {}});
                 reply({Failure::none, work(node)});
               });
             });
           });
  return pending;
}

template <class T>
Result<T> ModelWorld::ask(const std::string& name, const char* what, Deadline d,
                          std::function<T(ModelNode&)> work) {
  auto* node = env_.cluster.find(name);
  if (node == nullptr) return fail(Code::not_found, "no node named " + name);
  auto pending = contact<T>(place_, *node, std::move(work));
  await_all<Answer<T>>(env_.scheduler, {pending}, env_.scheduler.now() + micros(d.left()));
  const auto answer = pending->value.value_or(Answer<T>{Failure::no_answer, {}});
  if (answer.failure == Failure::none) return *answer.value;
  say(fmt::format("{} {}: {}", what, name, pg::says(answer.failure)));
  return fail(code_of(answer.failure), fmt::format("{}: {}", name, pg::says(answer.failure)));
}

Status ModelWorld::change(const std::string& name, const char* what, Deadline d,
                          std::function<void(ModelNode&)> work) {
  ++effects_;
  say(fmt::format("{} {}", what, name));
  const auto done = ask<bool>(name, what, d, [this, what, work = std::move(work)](ModelNode& node) {
    say(fmt::format("{} {} takes effect", what, node.name));
    work(node);
    return true;
  });
  if (!done) return fail(done.error());
  return {};
}

pg::NodeFacts ModelWorld::blank(const ModelNode& node) const {
  pg::NodeFacts facts;
  facts.name = node.name;
  facts.error.code = Code::timeout;
  return facts;
}

pg::Snapshot ModelWorld::observe(const std::vector<std::string>& names, Millis deadline) {
  const auto began = env_.scheduler.now();
  pg::Snapshot snapshot;
  snapshot.at = wall_now();
  snapshot.observer = name_;
  snapshot.deadline = deadline;
  std::vector<std::shared_ptr<Pending<Answer<pg::NodeFacts>>>> asked;
  std::vector<std::shared_ptr<bool>> accepted;
  std::vector<ModelNode*> nodes;
  for (auto& node : env_.cluster.nodes) {
    if (!names.empty() && std::find(names.begin(), names.end(), node.name) == names.end()) continue;
    nodes.push_back(&node);
    accepted.push_back(std::make_shared<bool>(false));
    asked.push_back(contact<pg::NodeFacts>(
        place_, node, [this](ModelNode& there) { return env_.cluster.facts(there); },
        accepted.back()));
  }
  await_all(env_.scheduler, asked, began + micros(deadline));
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    auto facts = blank(*nodes[i]);
    if (!asked[i]->value) {
      facts.failure = *accepted[i] ? Failure::silent : Failure::no_answer;
    } else if (asked[i]->value->failure != Failure::none) {
      facts.failure = asked[i]->value->failure;
    } else {
      facts = *asked[i]->value->value;
    }
    if (env_.plants.hide_primaries && facts.answered() && facts.role == pg::Role::primary &&
        env_.scheduler.now() > kHideAfter)
      facts.failure = Failure::no_answer;
    if (env_.plants.stale_positions && facts.role == pg::Role::standby)
      facts.received = facts.replayed = Lsn{0x4000000};
    facts.error.message = pg::says(facts.failure);
    facts.host = "host-" + facts.name;
    facts.address = Cluster::address_of(nodes[i]->index);
    facts.port = 5432;
    facts.at = wall_now();
    facts.took = Millis((env_.scheduler.now() - began) / kMs);
    snapshot.nodes.push_back(std::move(facts));
  }
  return snapshot;
}

Result<Json> ModelWorld::on_host_of(const std::string& name, const std::string& op, Json request,
                                    Millis deadline) {
  auto* node = env_.cluster.find(name);
  if (node == nullptr) return fail(Code::not_found, "no node named " + name);
  const bool looks = op == "pg-inspect" || op == "pg-own-upstream" || op == "pg-keep-wal";
  if (!looks) {
    ++effects_;
    say(fmt::format("{} {}", op, name));
  }
  auto pending = std::make_shared<Pending<Result<Json>>>();
  auto& net = env_.network;
  const Place from = place_;
  const Place to = node->index;
  const auto end = env_.scheduler.now() + micros(deadline) + kSecond;
  // While no connection can be made its first packet is sent again, less and less often.
  for (Micros again = kSecond; env_.scheduler.now() < end; again *= 2) {
    if (!net.is_down(to) && net.both_ways(from, to)) {
      net.send(from, to, [this, &net, node, op, request, from, to, pending] {
        env_.hosts.run(op, *node, request, [&net, from, to, pending](Result<Json> result) {
          net.send(to, from, [pending, result = std::move(result)]() mutable {
            pending->set(std::move(result));
          });
        });
      });
      await_all<Result<Json>>(env_.scheduler, {pending}, end);
      break;
    }
    env_.scheduler.sleep(std::min(again, end - env_.scheduler.now()));
  }
  if (!pending->value)
    return fail(Code::timeout, fmt::format("host {}: no answer to {}", node->name, op));
  if (!looks || !*pending->value)
    say(fmt::format("{} {}: {}", op, name,
                    *pending->value ? "done" : pending->value->error().message));
  return *pending->value;
}

std::vector<pg::Testimony> ModelWorld::ask_around(const std::string& name, Millis deadline) {
  auto* node = env_.cluster.find(name);
  if (node == nullptr) return {};
  auto& net = env_.network;
  std::vector<std::shared_ptr<Pending<pg::Testimony>>> asked;
  std::vector<pg::Testimony> testimonies;
  for (const auto& host : env_.cluster.nodes) {
    const Place at = host.index;
    if (at == place_) continue;  // this host has no way round
    pg::Testimony testimony;
    testimony.observer = "host-" + host.name;
    testimony.node = name;
    testimony.error = "no answer";
    testimonies.push_back(testimony);
    auto pending = std::make_shared<Pending<pg::Testimony>>();
    asked.push_back(pending);
    if (net.is_down(at) || !net.both_ways(place_, at)) continue;
    net.send(place_, at, [this, &net, node, at, testimony, pending, deadline]() mutable {
      const auto reply = [this, &net, at, pending](pg::Testimony said) {
        net.send(at, place_, [pending, said = std::move(said)] { pending->set(said); });
      };
      auto inner = contact<pg::Role>(at, *node, [](ModelNode& there) {
        return there.primary ? pg::Role::primary : pg::Role::standby;
      });
      // Not the question itself: it would hold itself for ever.
      inner->wake = [weak = std::weak_ptr(inner), testimony, reply]() mutable {
        const auto there = weak.lock();
        if (!there || !there->value) return;
        testimony.failure = there->value->failure;
        if (there->value->value) testimony.role = *there->value->value;
        reply(testimony);
      };
      env_.scheduler.after(micros(deadline), [inner, testimony, reply]() mutable {
        if (inner->value) return;
        testimony.failure = Failure::no_answer;
        reply(testimony);
      });
    });
  }
  await_all(env_.scheduler, asked, env_.scheduler.now() + micros(deadline) + kSecond);
  for (std::size_t i = 0; i < asked.size(); ++i)
    if (asked[i]->value) testimonies[i] = *asked[i]->value;
  return testimonies;
}

bool ModelWorld::refuses(const std::string& name, int tries, Millis apart, Millis deadline) {
  auto* node = env_.cluster.find(name);
  for (int i = 0; i < tries; ++i) {
    if (i > 0) pause_for(apart);
    auto pending = contact<bool>(place_, *node, [](ModelNode&) { return true; });
    await_all<Answer<bool>>(env_.scheduler, {pending}, env_.scheduler.now() + micros(deadline));
    if (!pending->value || pending->value->failure != Failure::refused) return false;
  }
  return true;
}

Result<pg::CurrentUpstream> ModelWorld::current_upstream(const std::string& name, Deadline d) {
  return ask<pg::CurrentUpstream>(name, "current_upstream", d, [](ModelNode& node) {
    return pg::CurrentUpstream{node.conninfo, node.slot, false};
  });
}

Result<pg::Frozen> ModelWorld::freeze(const std::string& name, Deadline d) {
  ++effects_;
  say("freeze " + name);
  auto frozen =
      ask<Result<pg::Frozen>>(name, "freeze", d, [this](ModelNode& node) -> Result<pg::Frozen> {
        if (!env_.plants.skip_freeze) env_.cluster.set_upstream(node, "", node.slot);
        if (node.primary) return fail(Code::refused, node.name + " is not a standby any more");
        say(fmt::format("{} is frozen at {}", node.name, to_string(node.end())));
        return pg::Frozen{node.end(), 0};
      });
  if (!frozen) return fail(frozen.error());
  return *frozen;
}

Status ModelWorld::set_upstream(const std::string& name, const std::string& conninfo,
                                const std::string& slot, bool, Deadline d) {
  return change(name, "set_upstream", d, [this, conninfo, slot](ModelNode& node) {
    env_.cluster.set_upstream(node, conninfo, slot);
  });
}

Result<pg::Receiver> ModelWorld::wait_streaming(const std::string& name, const std::string& from,
                                                Deadline d) {
  const auto source = observe({from}, cluster().policy.probe_deadline).nodes.front();
  while (true) {
    const auto facts = observe({name}, std::max(d.at_most(Millis(1000)).left(), Millis(100)));
    const auto& node = facts.nodes.front();
    if (node.answered() && node.role != pg::Role::standby)
      return fail(Code::refused, name + " is not a standby");
    const auto timeline = source.lineage.timeline;
    if (node.receiver && node.receiver->sender_host == source.address &&
        (timeline == 0 || node.receiver->timeline == timeline))
      return *node.receiver;
    if (const auto way = os::giving_way()) return fail(*way);
    if (d.passed())
      return fail(Code::timeout, fmt::format("{} does not stream from {}", name, from));
    pause_for(4 * kPoll);
  }
}

Result<pg::Promoted> ModelWorld::promote(const std::string& name,
                                         const std::function<Status()>& before, Deadline d) {
  const auto recovers = [](ModelNode& node) { return !node.primary; };
  ZX_ASSIGN(const bool in_recovery, ask<bool>(name, "promote", d, recovers));
  if (in_recovery) {
    if (!env_.plants.skip_no_return) ZX_TRY(before());
    // The server refuses a request that comes late, see pg::promote().
    const auto in_time = Deadline::after(std::min(d.left(), Millis(2000)));
    ZX_TRY(change(name, "promote", d, [this, in_time](ModelNode& node) {
      if (!in_time.passed()) env_.cluster.promote(node);
    }));
  }
  while (true) {
    ZX_ASSIGN(const auto timeline, ask<std::uint32_t>(name, "promote", d, [](ModelNode& node) {
                return node.primary ? node.timeline : 0;
              }));
    if (timeline > 0) return pg::Promoted{timeline, false};
    if (d.passed())
      return fail(Code::timeout, name + " has been asked to promote and is still in recovery");
    pause_for(kPoll);
  }
}

Status ModelWorld::write_canary(const std::string& name, const std::string&, Deadline d) {
  ZX_ASSIGN(const bool written,
            ask<bool>(name, "canary", d, [](ModelNode& node) { return node.primary; }));
  if (!written) return fail(Code::server, name + ": cannot execute in a read-only transaction");
  return {};
}

Result<std::vector<std::string>> ModelWorld::make_slots(const std::string& name,
                                                        const std::vector<std::string>& slots,
                                                        Deadline d) {
  ++effects_;
  return ask<std::vector<std::string>>(name, "make_slots", d, [slots](ModelNode& node) {
    std::vector<std::string> made;
    for (const auto& slot : slots)
      if (node.slots.insert(slot).second) made.push_back(slot);
    return made;
  });
}

Result<std::vector<std::string>> ModelWorld::drop_slots(const std::string& name,
                                                        const std::vector<std::string>& slots,
                                                        Deadline d) {
  ++effects_;
  return ask<std::vector<std::string>>(name, "drop_slots", d, [this, slots](ModelNode& node) {
    std::set<std::string> active;
    for (const int number : node.senders)
      active.insert(
          env_.cluster.nodes[static_cast<std::size_t>(env_.cluster.connection(number).down)].slot);
    std::vector<std::string> dropped;
    for (const auto& slot : slots)
      if (!active.contains(slot) && node.slots.erase(slot) > 0) dropped.push_back(slot);
    return dropped;
  });
}

Status ModelWorld::set_sync_names(const std::string& name, const std::string& names, Deadline d) {
  return change(name, "set_sync_names", d, [this, names](ModelNode& node) {
    say(fmt::format("{} has synchronous_standby_names = '{}'", node.name, names));
    env_.cluster.set_sync(node, names);
  });
}

Status ModelWorld::checkpoint(const std::string& name, Deadline d) {
  return change(name, "checkpoint", d, [this](ModelNode& node) { env_.cluster.checkpoint(node); });
}

}  // namespace zx::sim
