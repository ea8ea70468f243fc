// A client of the platform's cache: adds one number after the other to a list, on whichever of the
// servers takes writes, reconnects when it must, and tells at the end what became of its writes.
// Tests and benchmarks use it.
//
//   redis_writer HOST:PORT[,HOST:PORT...] [EVERY_MS]
//
// The password, if any, is $REDISCLI_AUTH. Prints "writing" after the first acknowledged write.
// Writes until SIGTERM, SIGINT or the end of stdin; then reads the list back from the server that
// takes writes and prints one line of JSON:
//   {"acknowledged": n, "lost": n, "longest_gap_ms": x, "errors": n, "master": "HOST:PORT"}
// longest_gap_ms: between two acknowledged writes, one after the other.
#include <hiredis/hiredis.h>
#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Context = std::unique_ptr<redisContext, decltype(&redisFree)>;
using Reply = std::unique_ptr<redisReply, decltype(&freeReplyObject)>;

constexpr const char* kList = "zx_writer";
// How long a server may be silent before the next one is tried.
constexpr timeval kPatience{0, 500'000};

volatile sig_atomic_t stop_asked = 0;

// Waits until `at` for the end of stdin, which is also the pace of the writes.
bool must_stop(Clock::time_point at = {}) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(at - Clock::now());
  pollfd in{0, POLLIN, 0};
  if (stop_asked == 0 && ::poll(&in, 1, std::max(0, static_cast<int>(left.count()))) == 1) {
    char byte = 0;
    if (::read(0, &byte, 1) == 0) stop_asked = 1;
  }
  return stop_asked != 0;
}

struct Address {
  std::string host;
  int port = 0;
};

std::vector<Address> addresses_of(const std::string& text) {
  std::vector<Address> out;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find(',', begin), text.size());
    const auto one = text.substr(begin, end - begin);
    const auto colon = one.rfind(':');
    if (colon == std::string::npos) return {};
    out.push_back({one.substr(0, colon), std::atoi(one.c_str() + colon + 1)});
    begin = end + 1;
  }
  return out;
}

Reply ask(redisContext* context, const std::vector<std::string>& words) {
  std::vector<const char*> argv;
  std::vector<std::size_t> sizes;
  for (const auto& word : words) {
    argv.push_back(word.data());
    sizes.push_back(word.size());
  }
  return {static_cast<redisReply*>(
              redisCommandArgv(context, static_cast<int>(argv.size()), argv.data(), sizes.data())),
          freeReplyObject};
}

bool is_fine(const Reply& reply) { return reply && reply->type != REDIS_REPLY_ERROR; }

class Client {
 public:
  explicit Client(std::vector<Address> addresses) : addresses_(std::move(addresses)) {}

  // One attempt, at the server that took the last write or at the next one.
  Reply write(const std::vector<std::string>& words) {
    if (!context_ && !connect()) {
      next();
      return {nullptr, freeReplyObject};
    }
    auto reply = ask(context_.get(), words);
    if (!is_fine(reply)) next();
    return reply;
  }
  [[nodiscard]] std::string where() const {
    return addresses_[at_].host + ":" + std::to_string(addresses_[at_].port);
  }

 private:
  bool connect() {
    const auto& address = addresses_[at_];
    context_.reset(redisConnectWithTimeout(address.host.c_str(), address.port, kPatience));
    if (!context_ || context_->err != 0) return false;
    redisSetTimeout(context_.get(), kPatience);
    const char* password = std::getenv("REDISCLI_AUTH");
    return password == nullptr || is_fine(ask(context_.get(), {"AUTH", password}));
  }
  void next() {
    context_.reset();
    at_ = (at_ + 1) % addresses_.size();
  }

  std::vector<Address> addresses_;
  std::size_t at_ = 0;
  Context context_{nullptr, redisFree};
};

struct Report {
  std::vector<long long> acknowledged;
  std::chrono::duration<double, std::milli> longest_gap{0};
  long errors = 0;
};

Report write_until_told(Client& client, std::chrono::milliseconds every) {
  Report report;
  Clock::time_point last{}, next{};
  for (long long id = 1; !must_stop(next); ++id) {
    const auto reply = client.write({"RPUSH", kList, std::to_string(id)});
    const auto now = Clock::now();
    if (is_fine(reply)) {
      if (report.acknowledged.empty()) {
        std::puts("writing");
        std::fflush(stdout);
      } else {
        report.longest_gap =
            std::max(report.longest_gap, std::chrono::duration<double, std::milli>(now - last));
      }
      last = now;
      report.acknowledged.push_back(id);
    } else {
      ++report.errors;
    }
    next = now + every;
  }
  return report;
}

// -1: nobody takes writes.
long count_lost(Client& client, const std::vector<long long>& acknowledged) {
  for (const auto until = Clock::now() + std::chrono::seconds(30); Clock::now() < until;) {
    // A write, so that it is the master that is asked.
    if (is_fine(client.write({"RPUSH", kList, "0"}))) {
      const auto list = client.write({"LRANGE", kList, "0", "-1"});
      if (is_fine(list) && list->type == REDIS_REPLY_ARRAY) {
        std::unordered_set<long long> there;
        for (std::size_t i = 0; i < list->elements; ++i)
          there.insert(std::atoll(list->element[i]->str));
        return std::count_if(acknowledged.begin(), acknowledged.end(),
                             [&](long long id) { return !there.contains(id); });
      }
    }
    (void)::poll(nullptr, 0, 20);
  }
  return -1;
}

}  // namespace

int main(int count, char** words) {
  const auto addresses = addresses_of(count > 1 ? words[1] : "");
  if (addresses.empty()) {
    std::fputs("usage: redis_writer HOST:PORT[,HOST:PORT...] [EVERY_MS]\n", stderr);
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  struct sigaction note {};
  note.sa_handler = [](int) { stop_asked = 1; };
  sigaction(SIGTERM, &note, nullptr);
  sigaction(SIGINT, &note, nullptr);

  Client client(addresses);
  bool is_empty = false;
  for (std::size_t i = 0; i < 2 * addresses.size() && !is_empty; ++i)
    is_empty = is_fine(client.write({"DEL", kList}));
  if (!is_empty) {
    std::fputs("redis_writer: no server takes writes\n", stderr);
    return 1;
  }
  const auto every = std::chrono::milliseconds(count > 2 ? std::atol(words[2]) : 2);
  const auto report = write_until_told(client, every);
  const auto lost = count_lost(client, report.acknowledged);
  std::printf(
      "{\"acknowledged\": %zu, \"lost\": %ld, \"longest_gap_ms\": %.1f, \"errors\": %ld, "
      "\"master\": \"%s\"}\n",
      report.acknowledged.size(), lost, report.longest_gap.count(), report.errors,
      client.where().c_str());
  return lost < 0 ? 1 : 0;
}
