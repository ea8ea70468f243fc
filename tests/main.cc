// The main of every test program.
#include <signal.h>
#include <stdlib.h>

#include <cstdio>

#define DOCTEST_CONFIG_IMPLEMENT
// Tests of signals want their own handlers.
#define DOCTEST_CONFIG_NO_POSIX_SIGNALS
#include <doctest/doctest.h>

namespace {

unsigned matched = 0;

// Counts what the filters let through: a CTest entry that runs nothing must not pass.
struct Counter : doctest::IReporter {
  explicit Counter(const doctest::ContextOptions&) {}
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& stats) override {
    matched = stats.numTestCasesPassingFilters;
  }
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};
REGISTER_LISTENER("counter", 1, Counter);

}  // namespace

int main(int count, char** words) {
  signal(SIGPIPE, SIG_IGN);
  // What the person who runs the tests has set must not change them.
  for (const auto* name : {"ZX_CONFIG", "NO_COLOR", "CREDENTIALS_DIRECTORY", "PGHOST", "PGPORT",
                           "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGOPTIONS"})
    unsetenv(name);
  // The limit is for people at a prompt; a busy machine may take longer.
  setenv("ZX_COMPLETE_TIMEOUT", "20", 1);

  doctest::Context context(count, words);
  const int status = context.run();
  if (status == 0 && matched == 0 && !context.shouldExit()) {
    std::fputs("no test case matched\n", stderr);
    return 1;
  }
  return status;
}
