// Sees to it that no two servers of a cluster accept writes at the same time.
//
//   pg_witness DSN...          one server each; table zx_witness (node int, n bigint) is there
//
// Writes to every server several times a second and asks in the same statement for the timeline
// that the write went to. A promotion begins a timeline with a higher number, so a cluster with one
// primary at a time acknowledges every timeline's writes from one server, and never again a lower
// timeline's. Two servers accept writes at the same time when
//  - two of them acknowledge a write on the same timeline: both were promoted from one point, or
//  - one acknowledges a write that was sent to it after another one had acknowledged a write on a
//    higher timeline: the old primary goes on beside the new one.
// A write that was sent before and is answered late does not count: the server may have had it in
// time. Nor does one that is refused, or waits for standbys in vain.
//
// Prints "watching", then at the first such write one line of JSON, and ends with status 1. On
// SIGTERM it ends with status 0 and one line:
//   {"writes": n, "looks": n, "timelines": n, "open_twice": n}
// open_twice: writable answers of two servers whose time of asking and answering overlaps. That
// alone loses nothing while an old primary's commits wait for standbys that have left it.
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/tools/pg_client.h"

namespace {

using namespace zx::test;

constexpr std::chrono::milliseconds kEvery{100};

struct Seen {
  std::mutex mutex;
  std::map<long, std::size_t> owner;  // of a timeline: who acknowledged a write on it
  struct Span {
    Clock::time_point sent, answered;
  };
  std::vector<Span> open;  // the last writable answer of each server
  long writes = 0, looks = 0, open_twice = 0;
  std::string violation;

  long highest() const { return owner.empty() ? 0 : owner.rbegin()->first; }

  void acknowledged(std::size_t node, long timeline, long highest_when_sent) {
    ++writes;
    const auto [found, is_new] = owner.try_emplace(timeline, node);
    const bool is_shared = !is_new && found->second != node;
    if (!violation.empty() || (!is_shared && timeline >= highest_when_sent)) return;
    const auto other = is_shared ? found->second : owner.at(highest_when_sent);
    violation =
        "{\"violation\": \"" +
        std::string(is_shared ? "two servers acknowledge writes on one timeline"
                              : "a write is acknowledged beside a later primary") +
        "\", \"server\": " + std::to_string(node) + ", \"timeline\": " + std::to_string(timeline) +
        ", \"other_server\": " + std::to_string(other) +
        ", \"other_timeline\": " + std::to_string(is_shared ? timeline : highest_when_sent) + "}";
  }
  void answered_writable(std::size_t node, Span span) {
    for (std::size_t i = 0; i < open.size(); ++i)
      if (i != node && open[i].answered > span.sent && open[i].sent < span.answered) ++open_twice;
    open[node] = span;
  }
};

void watch(Seen& seen, std::size_t node, const std::string& dsn,
           const std::atomic<bool>& must_end) {
  Connection connection(nullptr, PQfinish);
  const std::string insert = "INSERT INTO zx_witness VALUES (" + std::to_string(node) +
                             ", 0) RETURNING pg_walfile_name(pg_current_wal_insert_lsn())";
  while (!must_end) {
    const auto next = Clock::now() + kEvery;
    if (!connection || PQstatus(connection.get()) != CONNECTION_OK)
      connection.reset(PQconnectdb((dsn + " connect_timeout=2").c_str()));
    const auto sent = Clock::now();
    const auto answer = ask(connection.get(), "SELECT pg_is_in_recovery()");
    const bool is_writable = is_fine(answer) && *PQgetvalue(answer.get(), 0, 0) == 'f';
    long highest = 0;
    {
      const std::lock_guard lock(seen.mutex);
      ++seen.looks;
      if (is_writable) seen.answered_writable(node, {sent, Clock::now()});
      highest = seen.highest();
    }
    if (is_writable) {
      const auto written = ask(connection.get(), insert);
      if (is_fine(written)) {
        const std::string file = PQgetvalue(written.get(), 0, 0);
        const std::lock_guard lock(seen.mutex);
        seen.acknowledged(node, std::strtol(file.substr(0, 8).c_str(), nullptr, 16), highest);
      } else {
        connection.reset();
      }
    } else if (!is_fine(answer)) {
      connection.reset();
    }
    std::this_thread::sleep_until(next);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    std::fputs("usage: pg_witness DSN...\n", stderr);
    return 2;
  }
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  sigdelset(&ends, SIGPIPE);

  Seen seen;
  seen.open.resize(static_cast<std::size_t>(count) - 1);
  std::atomic<bool> must_end = false;
  std::vector<std::thread> threads;
  for (int i = 1; i < count; ++i)
    threads.emplace_back(watch, std::ref(seen), static_cast<std::size_t>(i - 1),
                         std::string(words[i]), std::cref(must_end));
  std::puts("watching");
  std::fflush(stdout);

  const timespec turn{0, 20'000'000};
  while (!must_end) {
    must_end = sigtimedwait(&ends, nullptr, &turn) > 0;
    const std::lock_guard lock(seen.mutex);
    if (!seen.violation.empty()) must_end = true;
  }
  for (auto& thread : threads) thread.join();
  if (!seen.violation.empty())
    std::printf("%s\n", seen.violation.c_str());
  else
    std::printf("{\"writes\": %ld, \"looks\": %ld, \"timelines\": %zu, \"open_twice\": %ld}\n",
                seen.writes, seen.looks, seen.owner.size(), seen.open_twice);
  return seen.violation.empty() ? 0 : 1;
}
