#include "lib/redis/events.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::redis {
namespace {

std::string name_at(const Snapshot& others, const std::string& host, int port) {
  const auto* node = node_at(others, host, port);
  return node != nullptr ? node->name : fmt::format("{}:{}", first_line(host), port);
}

std::string master_in(const Snapshot& others, const NodeFacts& facts) {
  return facts.link ? name_at(others, facts.link->master_host, facts.link->master_port)
                    : std::string();
}

// As many digits of a replication id as tell two apart.
std::string short_of(const Lineage& lineage) { return lineage.replid.substr(0, 8); }

// Two answers of one server.
class Comparing {
 public:
  Comparing(const NodeFacts& before, const NodeFacts& after, const Snapshot& others,
            std::vector<Event>& events)
      : before_(before), after_(after), others_(others), events_(events) {}

  void run() {
    if (before_.run_id != after_.run_id) add("restarted", "has restarted", true);
    if (before_.keys > 0 && after_.keys == 0)
      add("empty", fmt::format("had {} keys and has none", before_.keys), true);
    if (!is_same_line(before_.lineage, after_.lineage))
      add("history",
          fmt::format("is of another line: {} instead of {}", short_of(after_.lineage),
                      short_of(before_.lineage)),
          true);
    if (before_.role != after_.role)
      add("role", fmt::format("is a {} now", name_of(after_.role)), false);
    else if (after_.role == Role::replica)
      replication();
    attached();
    persistence();
  }

 private:
  void add(std::string kind, const std::string& text, bool is_bad) {
    events_.push_back({after_.at, after_.name, std::move(kind), after_.name + " " + text, is_bad});
  }

  void replication() {
    const auto was = master_in(others_, before_), is = master_in(others_, after_);
    if (was != is) add("follows", fmt::format("follows {} instead of {}", is, was), false);
    if (!before_.link || !after_.link) return;
    const auto& old = *before_.link;
    const auto& now = *after_.link;
    if (!old.is_syncing && now.is_syncing)
      add("resync", "copies the whole data set of " + is, true);
    if (old.is_up && !now.is_up) add("link_down", "has lost its link to " + is, true);
    if (!old.is_up && now.is_up) add("link_up", "is linked to " + is, false);
  }

  void attached() {
    const auto is_in = [](const std::vector<AttachedReplica>& list, const AttachedReplica& one) {
      return std::any_of(list.begin(), list.end(), [&](const auto& other) {
        return other.address == one.address && other.port == one.port;
      });
    };
    for (const auto& one : after_.attached)
      if (!is_in(before_.attached, one))
        add("replica_attached",
            one.port == 0 ? fmt::format("is read by {}, which is no server", one.address)
                          : "has the replica " + name_at(others_, one.address, one.port),
            false);
    for (const auto& one : before_.attached)
      if (!is_in(after_.attached, one))
        add("replica_lost", "has lost the replica " + name_at(others_, one.address, one.port),
            one.port != 0);
  }

  void persistence() {
    const auto& old = before_.persistence;
    const auto& now = after_.persistence;
    if (old.last_save_ok && !now.last_save_ok) add("save_failed", "could not save", true);
    if (now.last_save_ok && now.last_save > old.last_save && old.last_save > 0)
      add("saved", "has saved", false);
    if (old.aof_last_write_ok && !now.aof_last_write_ok)
      add("aof_failed", "cannot write to its AOF", true);
    if (!old.aof_last_write_ok && now.aof_last_write_ok)
      add("aof_ok", "writes to its AOF again", false);
  }

  const NodeFacts& before_;
  const NodeFacts& after_;
  const Snapshot& others_;
  std::vector<Event>& events_;
};

Event first_words(const NodeFacts& after, const Snapshot& others) {
  auto text = fmt::format("{} answers as a {}", after.name, name_of(after.role));
  const bool is_lost = after.role == Role::replica && !after.is_linked();
  if (const auto master = master_in(others, after); !master.empty())
    text += fmt::format(" of {}{}", master, is_lost ? ", without a link" : "");
  return {after.at, after.name, "up", text, is_lost};
}

}  // namespace

void History::add(const NodeFacts& facts) {
  last = facts;
  if (facts.answered()) answered = facts;
}

std::vector<Event> events_since(const History& history, const NodeFacts& after,
                                const Snapshot& others) {
  std::vector<Event> events;
  if (!after.answered()) {
    // The message has the name in front already.
    if (!history.last || history.last->failure != after.failure)
      events.push_back({after.at, after.name, after.is_loading() ? "loading" : "down",
                        after.error.message, true});
    return events;
  }
  if (!history.last || !history.last->answered()) events.push_back(first_words(after, others));
  if (history.answered) Comparing(*history.answered, after, others, events).run();
  return events;
}

std::optional<Event> sentinel_event(const std::string& sentinel, Wall at, std::string_view channel,
                                    std::string_view text, std::string_view master_name) {
  const auto kind = first_line(channel.substr(0, 64));
  if (kind.size() < 2 || (kind.front() != '+' && kind.front() != '-')) return std::nullopt;
  constexpr std::size_t kLongest = 300;
  const auto words = first_line(text.substr(0, kLongest));
  const auto parts = split(words, ' ');
  // "+switch-master cache …", "+sdown master cache …", "+slave slave ID IP PORT @ cache IP PORT".
  const bool is_ours = std::find(parts.begin(), parts.end(), master_name) != parts.end();
  if (!is_ours) return std::nullopt;
  const auto name = kind.substr(1);
  static constexpr std::string_view kGood[] = {
      "slave", "sentinel", "reboot", "convert-to-slave", "fix-slave-config", "set", "monitor"};
  const bool is_good =
      kind.front() == '-' || std::find(std::begin(kGood), std::end(kGood), name) != std::end(kGood);
  return Event{at, sentinel, "sentinel", fmt::format("Sentinel {}: {} {}", sentinel, kind, words),
               !is_good};
}

Json to_json(const Event& event) {
  return Json{{"at", format_utc(event.at)},
              {"node", event.node},
              {"event", event.kind},
              {"text", event.text},
              {"bad", event.is_bad}};
}

}  // namespace zx::redis
