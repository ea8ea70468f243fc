// A client of the platform: commits one row after the other through a multi-host DSN, reconnects
// when it must, and tells at the end what became of its writes. Tests, the demonstration and the
// benchmarks all use it.
//
//   pg_writer DSN [EVERY_MS]
//
// Prints "writing" after the first acknowledged commit. Writes until SIGTERM, SIGINT or the end of
// stdin; then counts the rows and prints one line of JSON:
//   {"acknowledged": n, "lost": n, "longest_gap_ms": x, "errors": n, "outages": n, "outage_ms": x}
// longest_gap_ms: between two acknowledged commits, one after the other. Gaps of 200 ms or more are
// outages; outage_ms is the sum of them.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/tools/pg_client.h"

namespace {

using namespace zx::test;

// What a client notices.
constexpr std::chrono::milliseconds kOutage{200};

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

struct Report {
  std::vector<long> acknowledged;
  std::chrono::duration<double, std::milli> longest_gap{0}, outage{0};
  long errors = 0, outages = 0;
};

Report write_until_told(const std::string& dsn, std::chrono::milliseconds every) {
  Report report;
  Connection connection(nullptr, PQfinish);
  Clock::time_point last_commit{}, next{};
  for (long id = 1; !must_stop(next); ++id) {
    if (!connection || PQstatus(connection.get()) != CONNECTION_OK) connection = connect(dsn);
    const auto answer =
        ask(connection.get(), "INSERT INTO zx_writer (id) VALUES (" + std::to_string(id) + ")");
    const auto now = Clock::now();
    if (is_fine(answer)) {
      if (report.acknowledged.empty()) {
        std::puts("writing");
        std::fflush(stdout);
      } else if (now - last_commit >= kOutage) {
        ++report.outages;
        report.outage += now - last_commit;
      }
      if (!report.acknowledged.empty() && now - last_commit > report.longest_gap)
        report.longest_gap = now - last_commit;
      last_commit = now;
      report.acknowledged.push_back(id);
    } else {
      ++report.errors;
      connection.reset();
    }
    next = now + every;
  }
  return report;
}

long count_lost(const std::string& dsn, const std::vector<long>& acknowledged) {
  const auto until = Clock::now() + std::chrono::seconds(30);
  while (Clock::now() < until) {
    const auto connection = connect(dsn);
    const auto answer = ask(connection.get(), "SELECT id FROM zx_writer ORDER BY id");
    if (!is_fine(answer)) {
      (void)::poll(nullptr, 0, 20);
      continue;
    }
    long lost = 0;
    int row = 0;
    const int rows = PQntuples(answer.get());
    for (const long id : acknowledged) {
      while (row < rows && std::atol(PQgetvalue(answer.get(), row, 0)) < id) ++row;
      if (row == rows || std::atol(PQgetvalue(answer.get(), row, 0)) != id) ++lost;
    }
    return lost;
  }
  return -1;
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    std::fputs("usage: pg_writer DSN [EVERY_MS]\n", stderr);
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  struct sigaction note {};
  note.sa_handler = [](int) { stop_asked = 1; };
  sigaction(SIGTERM, &note, nullptr);
  sigaction(SIGINT, &note, nullptr);

  const std::string dsn = words[1];
  {
    const auto connection = connect(dsn);
    const auto made = ask(connection.get(),
                          "DROP TABLE IF EXISTS zx_writer; CREATE TABLE zx_writer (id bigint "
                          "PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())");
    if (!is_fine(made)) {
      std::fprintf(stderr, "pg_writer: %s\n",
                   connection ? PQerrorMessage(connection.get()) : "no server takes writes");
      return 1;
    }
  }
  const auto every = std::chrono::milliseconds(count > 2 ? std::atol(words[2]) : 2);
  const auto report = write_until_told(dsn, every);
  const auto lost = count_lost(dsn, report.acknowledged);
  std::printf(
      "{\"acknowledged\": %zu, \"lost\": %ld, \"longest_gap_ms\": %.1f, \"errors\": %ld, "
      "\"outages\": %ld, \"outage_ms\": %.1f}\n",
      report.acknowledged.size(), lost, report.longest_gap.count(), report.errors, report.outages,
      report.outage.count());
  return lost < 0 ? 1 : 0;
}
