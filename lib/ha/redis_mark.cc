#include "lib/ha/redis_mark.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <mutex>
#include <thread>
#include <tuple>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/ha/redis_world.h"
#include "lib/net/loop.h"
#include "lib/os/host_name.h"

namespace zx::ha {
namespace {

constexpr std::string_view kPrefix = "zx:";
constexpr const char* kAboutAReplica = "redis sync";
constexpr const char* kFailover = "failover redis";
constexpr std::size_t kMostWord = 64;

constexpr Millis kGlance{500};
constexpr Millis kTick{20};
constexpr Millis kPingEvery{1'000};
constexpr Millis kPingWithin{2'000};
constexpr Millis kFresh{3'500};  // a mark that was answered for since then is there
constexpr Millis kAgain{200};    // until a server that does not answer is tried once more
constexpr Millis kReach{1'000};
constexpr std::int64_t kStaleAfter_s = 10;
// One that finds the mark of another gives its own back at once: what stays longer is at work.
constexpr Millis kLasting{1'000};
constexpr Millis kPatience{500};

std::string word_of(std::string_view text) {
  std::string word;
  for (const char c : text.substr(0, kMostWord)) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
    word += is_plain ? c : c == ' ' ? '_' : '?';
  }
  return word;
}

std::int64_t number_of(std::string_view text) {
  std::int64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

Error at_work(const std::string& server, const RunMark& mark) {
  return Error{
      Code::locked,
      fmt::format("run {} ({}) is at work on {}, as {} says", mark.run, mark.command, mark.host,
                  server),
      fmt::format("wait for it: zx runs list on {}; it has the mark for as long as its connection "
                  "{} to {} stands",
                  mark.host, mark.client, server),
      {},
      false};
}

struct Server {
  redis::Target target;
  redis::Connection::Pointer connection;
  enum class State { away, opening, held, foreign, forbidden } state = State::away;
  bool was_ended = false;  // by the server, just now: it is being marked anew
  Monotonic answered{}, tried{}, ended{}, asked{};
  std::optional<Monotonic> foreign_since;
  RunMark foreign;
};

// What check() sees of a server: a copy, for the marks are kept by a thread of their own.
struct Standing {
  Server::State state = Server::State::away;
  bool was_ended = false;
  Monotonic answered{};
  std::optional<Monotonic> foreign_since;
  RunMark foreign;
  std::string name;
};

class Marks final : public coord::Lease {
 public:
  Marks(std::vector<redis::Target> targets, std::string run, std::string command)
      : run_(std::move(run)),
        command_(std::move(command)),
        name_(mark_name(run_, os::host_name(), command_)) {
    std::sort(targets.begin(), targets.end(), [](const auto& a, const auto& b) {
      return std::tie(a.address, a.port) < std::tie(b.address, b.port);
    });
    for (auto& target : targets) {
      servers_.push_back({});
      servers_.back().target = std::move(target);
    }
  }
  ~Marks() override {
    stops_ = true;
    if (thread_.joinable()) thread_.join();
  }
  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;

  Status begin(Deadline deadline) {
    for (auto& server : servers_) open(server, deadline, [] {});
    const auto is_settled = [&] {
      return std::none_of(servers_.begin(), servers_.end(), [](const Server& server) {
        return server.state == Server::State::opening;
      });
    };
    loop_.run_until(is_settled, deadline);
    for (auto& server : servers_) {
      if (!server.connection || server.state == Server::State::forbidden) continue;
      bool is_done = false;
      mark(server, Deadline::after(kReach), [&] { is_done = true; });
      loop_.run_until([&] { return is_done; }, Deadline::after(2 * kReach));
      if (server.state == Server::State::foreign)
        return fail(at_work(server.target.name, server.foreign));
    }
    publish();
    thread_ = std::thread([this] { keep(); });
    return {};
  }

  Status check() override {
    const auto begun = monotonic_now();
    while (true) {
      bool is_unsettled = false;
      for (const auto& one : standings()) {
        if (one.state == Server::State::foreign && one.foreign_since) {
          if (since(*one.foreign_since) >= kLasting) return fail(at_work(one.name, one.foreign));
          is_unsettled = true;
        }
        // This process may have stood still, or the server has just ended its clients.
        const bool is_old = one.state == Server::State::held && since(one.answered) > kFresh;
        if ((is_old || one.was_ended) && since(begun) < kPatience) is_unsettled = true;
      }
      if (!is_unsettled) return {};
      pause_for(Millis(5));
    }
  }

 private:
  void open(Server& server, Deadline deadline, const std::function<void()>& done) {
    server.state = Server::State::opening;
    server.tried = monotonic_now();
    redis::Connection::open(
        loop_, server.target, deadline,
        [&server, done](const redis::Outcome<redis::Connection::Pointer>& outcome) {
          server.state = Server::State::away;
          if (outcome)
            server.connection = *outcome;
          else
            server.was_ended = false;
          done();
        });
  }

  static void forbid(Server& server, const redis::Failed& failed) {
    if (server.state == Server::State::forbidden) return;
    server.state = Server::State::forbidden;
    log::warning(fmt::format("{} does not show who is at work on it: {}", server.target.name,
                             failed.error.message));
  }

  // In one transaction: the others that are there before this one is. Of two that come at once the
  // first has it.
  void mark(Server& server, Deadline deadline, const std::function<void()>& done) {
    const auto connection = server.connection;
    const auto denied = [&server](const redis::Outcome<redis::Reply>& reply) {
      if (!reply && reply.error().why == redis::Failure::permission) forbid(server, reply.error());
    };
    connection->command({"MULTI"}, deadline, denied);
    connection->command({"CLIENT", "LIST"}, deadline, denied);
    connection->command({"CLIENT", "SETNAME", name_}, deadline, denied);
    connection->command({"EXEC"}, deadline,
                        [this, &server, done](const redis::Outcome<redis::Reply>& reply) {
                          if (server.state == Server::State::forbidden)
                            server.connection.reset();
                          else
                            marked(server, reply);
                          server.was_ended = false;
                          done();
                        });
  }

  void marked(Server& server, const redis::Outcome<redis::Reply>& reply) {
    if (!reply || reply->items.empty()) {
      server.state = Server::State::away;
      server.connection.reset();
      return;
    }
    const auto marks = marks_in(reply->items.front().text);
    if (const auto other = keeps_out(marks, run_, command_)) {
      server.state = Server::State::foreign;
      if (!server.foreign_since) server.foreign_since = monotonic_now();
      server.foreign = *other;
      server.connection.reset();
      return;
    }
    // It must not wake up and find its mark in place.
    for (const auto& one : stale(marks))
      server.connection->command({"CLIENT", "KILL", "ID", std::to_string(one.client)},
                                 Deadline::after(kReach), [](const auto&) {});
    server.state = Server::State::held;
    server.foreign_since.reset();
    server.answered = server.asked = monotonic_now();
    server.connection->on_end([this, &server] { ended(server, true); });
  }

  void ended(Server& server, bool by_server) {
    server.connection.reset();
    server.state = Server::State::away;
    server.was_ended = by_server;
    server.tried = {};
  }

  void ping(Server& server) {
    server.asked = monotonic_now();
    server.connection->command({"PING"}, Deadline::after(kPingWithin),
                               [this, &server](const redis::Outcome<redis::Reply>& reply) {
                                 if (reply || !reply.error().reply.empty()) {
                                   server.answered = monotonic_now();
                                   return;
                                 }
                                 ended(server, reply.error().why == redis::Failure::broken);
                               });
  }

  void tend(Server& server) {
    using State = Server::State;
    if (server.state == State::held) {
      if (since(server.asked) >= kPingEvery) ping(server);
      return;
    }
    if (server.state == State::opening || server.state == State::forbidden) return;
    const auto pause = server.state == State::foreign ? kTick : kAgain;
    if (since(server.tried) < pause) return;
    open(server, Deadline::after(kReach), [this, &server] {
      if (!server.connection) {
        if (server.foreign_since) server.foreign_since.reset();
        return;
      }
      server.state = State::opening;
      mark(server, Deadline::after(kReach), [] {});
    });
  }

  void publish() {
    const std::lock_guard guard(mutex_);
    standings_.clear();
    for (const auto& one : servers_)
      // While it is tried again the other still has it.
      standings_.push_back({one.foreign_since ? Server::State::foreign : one.state, one.was_ended,
                            one.answered, one.foreign_since, one.foreign, one.target.name});
  }
  std::vector<Standing> standings() {
    const std::lock_guard guard(mutex_);
    return standings_;
  }

  void keep() {
    net::Timer timer(loop_);
    std::function<void()> tick = [&] {
      for (auto& server : servers_) tend(server);
      timer.at(Deadline::after(kTick), tick);
    };
    tick();
    loop_.run_until(
        [this] {
          publish();
          return stops_.load();
        },
        Deadline::after(Millis::max()));
    for (auto& server : servers_) server.connection.reset();
  }

  const std::string run_, command_, name_;
  net::Loop loop_;
  std::vector<Server> servers_;
  std::atomic<bool> stops_{false};
  std::mutex mutex_;
  std::vector<Standing> standings_;
  std::thread thread_;
};

}  // namespace

std::string mark_name(const std::string& run, const std::string& host, const std::string& command) {
  return fmt::format("{}{}:{}:{}", kPrefix, word_of(run), word_of(host), word_of(command));
}

std::vector<RunMark> marks_in(std::string_view client_list) {
  std::vector<RunMark> marks;
  for (const auto& line : split(client_list, '\n')) {
    RunMark mark;
    for (const auto& field : split(line, ' ')) {
      const auto at = field.find('=');
      if (at == std::string::npos) continue;
      const auto key = field.substr(0, at);
      const auto value = field.substr(at + 1);
      if (key == "id") mark.client = number_of(value);
      if (key == "idle") mark.idle_s = number_of(value);
      if (key != "name" || !value.starts_with(kPrefix)) continue;
      const auto words = split(std::string_view(value).substr(kPrefix.size()), ':');
      if (words.size() != 3 || words[0].empty()) continue;
      mark.run = word_of(words[0]);
      mark.host = word_of(words[1]);
      mark.command = word_of(words[2]);
      std::replace(mark.command.begin(), mark.command.end(), '_', ' ');
    }
    if (!mark.run.empty()) marks.push_back(std::move(mark));
  }
  std::sort(marks.begin(), marks.end(),
            [](const RunMark& a, const RunMark& b) { return a.client < b.client; });
  return marks;
}

std::optional<RunMark> keeps_out(const std::vector<RunMark>& marks, const std::string& run,
                                 const std::string& command) {
  for (const auto& mark : marks) {
    const bool gives_way = mark.command == kAboutAReplica && command == kFailover;
    if (mark.run != word_of(run) && mark.idle_s < kStaleAfter_s && !gives_way) return mark;
  }
  return std::nullopt;
}

std::vector<RunMark> stale(const std::vector<RunMark>& marks) {
  std::vector<RunMark> found;
  for (const auto& mark : marks)
    if (mark.idle_s >= kStaleAfter_s) found.push_back(mark);
  return found;
}

Result<std::unique_ptr<coord::Lease>> mark_servers(std::vector<redis::Target> servers,
                                                   const std::string& run,
                                                   const std::string& command, Deadline deadline) {
  auto marks = std::make_unique<Marks>(std::move(servers), run, command);
  ZX_TRY(marks->begin(deadline));
  return std::unique_ptr<coord::Lease>(std::move(marks));
}

Status nobody_at_work(RedisWorld& world, const std::string& command) {
  std::vector<std::string> names;
  for (const auto& node : world.deployment().nodes) names.push_back(node.name);
  struct Found {
    std::string node;
    std::optional<RunMark> mark;
  };
  const auto found = all_at_once<Found>(names, [&](const std::string& node) {
    const auto reply = world.command(node, {"CLIENT", "LIST"}, Deadline::after(kGlance));
    if (!reply) return Found{node, {}};
    return Found{node, keeps_out(marks_in(reply->text), {}, command)};
  });
  for (const auto& one : found)
    if (one.mark) return fail(at_work(one.node, *one.mark));
  return {};
}

}  // namespace zx::ha
