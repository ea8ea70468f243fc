// zx_sim: runs seeds, and says how to repeat the one that breaks an invariant.
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

#include "tests/sim/simulation.h"

namespace zx::sim {
namespace {

struct Flag {
  const char* name;
  bool Plants::*flag;
};
constexpr Flag kPlants[] = {{"drop-fence", &Plants::drop_fence},
                            {"skip-freeze", &Plants::skip_freeze},
                            {"skip-lease-check", &Plants::skip_lease_check},
                            {"skip-turn", &Plants::skip_turn},
                            {"skip-no-return", &Plants::skip_no_return},
                            {"hide-primaries", &Plants::hide_primaries},
                            {"stale-positions", &Plants::stale_positions}};

struct Arguments {
  std::uint64_t from = 1, to = 1000;
  bool trace = false, repeat = false, keep_going = false, stats = false;
  std::string plant;
  Plants plants;
};

int usage() {
  std::fputs(
      "usage: zx_sim [--seeds FROM-TO | --seed N] [--trace] [--repeat] [--keep-going] [--stats]\n"
      "              [--plant BUG]\n"
      "  --repeat      runs every seed twice and compares the traces\n"
      "  --keep-going  runs on after a seed that failed, and counts\n"
      "  --plant BUG   plants it; the run succeeds when a seed finds it:\n"
      "               ",
      stderr);
  for (const auto& plant : kPlants) std::fprintf(stderr, " %s", plant.name);
  std::fputs("\n", stderr);
  return 2;
}

bool parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const std::string value = i + 1 < argc ? argv[i + 1] : "";
    if (flag == "--trace") {
      arguments.trace = true;
    } else if (flag == "--repeat") {
      arguments.repeat = true;
    } else if (flag == "--keep-going") {
      arguments.keep_going = true;
    } else if (flag == "--stats") {
      arguments.stats = true;
    } else if (flag == "--seed" && !value.empty()) {
      arguments.from = arguments.to = std::strtoull(value.c_str(), nullptr, 10);
      ++i;
    } else if (flag == "--seeds" && value.find('-') != std::string::npos) {
      arguments.from = std::strtoull(value.c_str(), nullptr, 10);
      arguments.to = std::strtoull(value.substr(value.find('-') + 1).c_str(), nullptr, 10);
      ++i;
    } else if (flag == "--plant") {
      bool known = false;
      for (const auto& plant : kPlants)
        if (value == plant.name) arguments.plants.*plant.flag = known = true;
      if (!known) return false;
      arguments.plant = value;
      ++i;
    } else {
      return false;
    }
  }
  return true;
}

std::string state_directory() {
  struct stat found {};
  const bool has_memory = stat("/dev/shm", &found) == 0 && access("/dev/shm", W_OK) == 0;
  return fmt::format("{}/zx-sim-{}", has_memory ? "/dev/shm" : "/tmp", getpid());
}

struct Sums {
  std::uint64_t seeds = 0, failed = 0, promotions = 0, runs = 0, beside = 0, acknowledged = 0;
  Micros took = 0;
};

void report(const Arguments& arguments, std::uint64_t seed, const Violation& violation,
            const std::string& directory) {
  std::printf("seed %llu breaks \"%s\": %s\n", static_cast<unsigned long long>(seed),
              violation.invariant.c_str(), violation.what.c_str());
  if (arguments.keep_going) return;
  if (!arguments.trace)
    for (const auto& line : simulate(seed, arguments.plants, directory, true).trace)
      std::puts(line.c_str());
  std::printf("repeat it: zx_sim --seed %llu --trace%s%s\n", static_cast<unsigned long long>(seed),
              arguments.plant.empty() ? "" : " --plant ", arguments.plant.c_str());
}

int run(const Arguments& arguments, const std::string& directory) {
  Sums sums;
  const auto began = std::chrono::steady_clock::now();
  for (auto seed = arguments.from; seed <= arguments.to; ++seed) {
    const auto outcome =
        simulate(seed, arguments.plants, directory, arguments.trace || arguments.repeat);
    if (arguments.trace)
      for (const auto& line : outcome.trace) std::puts(line.c_str());
    if (arguments.repeat &&
        simulate(seed, arguments.plants, directory, true).trace != outcome.trace) {
      std::printf("seed %llu does not repeat\n", static_cast<unsigned long long>(seed));
      return 1;
    }
    ++sums.seeds;
    sums.promotions += static_cast<std::uint64_t>(outcome.promotions);
    sums.runs += static_cast<std::uint64_t>(outcome.runs);
    sums.beside += static_cast<std::uint64_t>(outcome.beside);
    sums.acknowledged += outcome.acknowledged;
    sums.took += outcome.took;
    if (!outcome.violation) continue;
    ++sums.failed;
    if (!arguments.plant.empty()) {
      std::printf("%s is found by seed %llu: \"%s\": %s\n", arguments.plant.c_str(),
                  static_cast<unsigned long long>(seed), outcome.violation->invariant.c_str(),
                  outcome.violation->what.c_str());
      return 0;
    }
    report(arguments, seed, *outcome.violation, directory);
    if (!arguments.keep_going) return 1;
  }
  const auto real = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf(
      "%llu seeds: %llu promotions in %llu runs, %llu commits acknowledged, %llu of them beside a "
      "new primary as require_fence = false allows; %.1f h of virtual time in %.1f s, %.2f ms a "
      "seed\n",
      static_cast<unsigned long long>(sums.seeds), static_cast<unsigned long long>(sums.promotions),
      static_cast<unsigned long long>(sums.runs),
      static_cast<unsigned long long>(sums.acknowledged),
      static_cast<unsigned long long>(sums.beside), static_cast<double>(sums.took) / 3.6e9, real,
      1000 * real / static_cast<double>(sums.seeds));
  if (sums.failed > 0)
    std::printf("%llu seeds failed\n", static_cast<unsigned long long>(sums.failed));
  if (!arguments.plant.empty()) {
    std::printf("%s is not found\n", arguments.plant.c_str());
    return 1;
  }
  return sums.failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace zx::sim

int main(int argc, char** argv) {
  zx::sim::Arguments arguments;
  if (!zx::sim::parse(argc, argv, arguments)) return zx::sim::usage();
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto directory = zx::sim::state_directory();
  const int status = zx::sim::run(arguments, directory);
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return status;
}
