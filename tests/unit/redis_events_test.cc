// What has happened between two looks at a server.
#include "lib/redis/events.h"

#include <doctest/doctest.h>

#include "lib/base/text.h"

namespace zx::redis {
namespace {

NodeFacts server(Role role) {
  NodeFacts facts;
  facts.name = "redis-a";
  facts.failure = Failure::none;
  facts.role = role;
  facts.run_id = "run1";
  facts.lineage = {"r1", "", -1, 100};
  facts.keys = 10;
  if (role == Role::replica) facts.link = Link{"10.0.0.1", 6379, true, 1, {}, false, {}};
  return facts;
}

std::string kinds_of(const History& history, const NodeFacts& after) {
  std::vector<std::string> kinds;
  for (const auto& event : events_since(history, after))
    kinds.push_back((event.is_bad ? "!" : "") + event.kind);
  return join(kinds, " ");
}

// It answered as `before` first, and was then seen with `failure`, if that is one.
History known(const NodeFacts& before, Failure failure = Failure::none) {
  History history;
  history.add(before);
  if (failure == Failure::none) return history;
  NodeFacts lost;
  lost.name = before.name;
  lost.failure = failure;
  history.add(lost);
  return history;
}

TEST_CASE("nothing happens between two looks that are alike but for what always moves") {
  auto after = server(Role::master);
  after.lineage.offset = 5000;
  after.memory_used = 77;
  after.clients = 9;
  after.keys = 11;
  CHECK(kinds_of(known(server(Role::master)), after).empty());
  CHECK(kinds_of(known(server(Role::replica)), server(Role::replica)).empty());
}

TEST_CASE("each thing that happens is an event of its own kind") {
  struct Case {
    const char* kinds;
    Role role;
    void (*change)(NodeFacts& before, NodeFacts& after);
    Failure between = Failure::none;  // what the look between them found
  };
  const auto nothing = [](NodeFacts&, NodeFacts&) {};
  const std::vector<Case> cases{
      {"!down", Role::master,
       [](NodeFacts&, NodeFacts& after) { after.failure = Failure::refused; }},
      {"", Role::master, [](NodeFacts&, NodeFacts& after) { after.failure = Failure::refused; },
       Failure::refused},
      {"!loading", Role::master,
       [](NodeFacts&, NodeFacts& after) { after.failure = Failure::loading; }, Failure::refused},
      {"up", Role::replica, nothing, Failure::silent},
      {"up !restarted", Role::replica, [](NodeFacts&, NodeFacts& after) { after.run_id = "run2"; },
       Failure::refused},
      {"!restarted", Role::replica, [](NodeFacts&, NodeFacts& after) { after.run_id = "run2"; }},
      {"up !restarted !empty !history", Role::master,
       [](NodeFacts&, NodeFacts& after) {
         after.run_id = "run2";
         after.keys = 0;
         after.lineage = {"r2", "", -1, 0};
       },
       Failure::refused},
      {"role", Role::replica,
       [](NodeFacts&, NodeFacts& after) {
         after.role = Role::master;
         after.link.reset();
         after.lineage = {"r2", "r1", 101, 100};
       }},
      {"up role", Role::replica,
       [](NodeFacts&, NodeFacts& after) {
         after.role = Role::master;
         after.link.reset();
       },
       Failure::broken},
      {"follows", Role::replica,
       [](NodeFacts&, NodeFacts& after) { after.link->master_host = "10.0.0.2"; }},
      {"!link_down", Role::replica,
       [](NodeFacts&, NodeFacts& after) { after.link->is_up = false; }},
      {"link_up", Role::replica, [](NodeFacts& before, NodeFacts&) { before.link->is_up = false; }},
      {"!resync !link_down", Role::replica,
       [](NodeFacts&, NodeFacts& after) {
         after.link->is_up = false;
         after.link->is_syncing = true;
       }},
      {"replica_attached", Role::master,
       [](NodeFacts&, NodeFacts& after) {
         after.attached.push_back({"10.0.0.2", 6379, "online", 1, 0});
       }},
      {"!replica_lost", Role::master,
       [](NodeFacts& before, NodeFacts&) {
         before.attached.push_back({"10.0.0.2", 6379, "online", 1, 0});
       }},
      {"replica_lost", Role::master,
       [](NodeFacts& before, NodeFacts&) {
         before.attached.push_back({"10.0.0.2", 0, "online", 1, 0});
       }},
      {"!save_failed", Role::master,
       [](NodeFacts&, NodeFacts& after) { after.persistence.last_save_ok = false; }},
      {"saved", Role::master,
       [](NodeFacts& before, NodeFacts& after) {
         before.persistence.last_save = 100;
         after.persistence.last_save = 200;
       }},
      {"!aof_failed", Role::master,
       [](NodeFacts&, NodeFacts& after) { after.persistence.aof_last_write_ok = false; }},
      {"aof_ok", Role::master,
       [](NodeFacts& before, NodeFacts&) { before.persistence.aof_last_write_ok = false; }},
  };
  for (const auto& one : cases) {
    CAPTURE(one.kinds);
    auto before = server(one.role), after = server(one.role);
    one.change(before, after);
    CHECK(kinds_of(known(before, one.between), after) == one.kinds);
  }
}

TEST_CASE("the first look says how it is") {
  CHECK(kinds_of({}, server(Role::master)) == "up");
  auto lost = server(Role::replica);
  lost.link->is_up = false;
  CHECK(kinds_of({}, lost) == "!up");
  CHECK(events_since({}, lost).front().text ==
        "redis-a answers as a replica of 10.0.0.1:6379, without a link");
  lost.failure = Failure::auth;
  CHECK(kinds_of({}, lost) == "!down");
}

TEST_CASE("Sentinel's announcements are events of their master only") {
  const auto heard = [](const char* channel, const char* text) {
    const auto event = sentinel_event("10.0.0.9:26379", {}, channel, text, "cache");
    return event ? (event->is_bad ? "! " : "") + event->text : std::string("none");
  };
  CHECK(heard("+switch-master", "cache 10.0.0.1 6379 10.0.0.2 6379") ==
        "! Sentinel 10.0.0.9:26379: +switch-master cache 10.0.0.1 6379 10.0.0.2 6379");
  CHECK(heard("+sdown", "master cache 10.0.0.1 6379").starts_with("! "));
  CHECK(heard("-sdown", "master cache 10.0.0.1 6379").starts_with("Sentinel"));
  CHECK(heard("+slave", "slave 10.0.0.3:6379 10.0.0.3 6379 @ cache 10.0.0.1 6379")
            .starts_with("Sentinel"));
  CHECK(heard("+sdown", "master other 10.0.0.1 6379") == "none");
  CHECK(heard("__sentinel__:hello", "cache") == "none");
  CHECK(heard("", "cache") == "none");
  CHECK(heard("+sdown", "master cache \x1b[2J").find('\x1b') == std::string::npos);
}

}  // namespace
}  // namespace zx::redis
