// Where text goes: stdout, stderr, terminals, and files that cannot take it.
#include "tests/support.h"

namespace zx::test {
namespace {

os::ProcessResult bash(const std::string& script, os::ProcessOptions options = {}) {
  options.environment.emplace_back("ZX", ZX_BINARY);
  options.directory = "/";
  return run_program({"bash", "-c", script}, options);
}

// Runs a shell command on a pseudoterminal of its own and returns what it showed.
std::string on_terminal(const std::string& command,
                        std::vector<std::pair<std::string, std::string>> environment = {}) {
  os::ProcessOptions options;
  options.environment = std::move(environment);
  options.environment.insert(options.environment.begin(), {"TERM", "xterm"});
  options.environment.emplace_back("SHELL", "/bin/sh");
  options.directory = "/";
  const auto result = run_program({"script", "-qec", command, "/dev/null"}, options);
  return result.out;
}

const std::string kWrong = std::string(ZX_BINARY) + " failovr";

}  // namespace

TEST_CASE("--version names the version, the commit and the libraries") {
  const auto text = run_zx({"--version"});
  CHECK(text.exit == 0);
  CHECK(text.err.empty());
  const auto json = json_of(run_zx({"--version", "-o", "json"}));
  CHECK(json["schema"] == 1);
  CHECK(text.out.starts_with("zx " + json["version"].get<std::string>() + " (commit " +
                             json["commit"].get<std::string>()));
  for (const std::string name :
       {"libpq", "Boost", "fmt", "spdlog", "CLI11", "toml++", "nlohmann_json"}) {
    INFO(name);
    REQUIRE(json["libraries"].contains(name));
    CHECK(json["libraries"][name].get<std::string>().find('.') != std::string::npos);
    CHECK(text.out.find(name) != std::string::npos);
  }
}

TEST_CASE("a result that cannot be written is an error") {
  const auto full = bash("\"$ZX\" --help > /dev/full");
  CHECK(full.exit == 1);
  CHECK(full.err.find("zx: io: cannot write the result") != std::string::npos);
  CHECK(full.err.find("No space left on device") != std::string::npos);
  const auto closed = bash("\"$ZX\" --help >&-");
  CHECK(closed.exit == 1);
  CHECK(closed.err.find("cannot write the result") != std::string::npos);
}

TEST_CASE("the status of a failed command is not hidden by a full disk") {
  const auto result = bash("\"$ZX\" failovr -o json > /dev/full");
  CHECK(result.exit == 2);
  CHECK(result.err.find("unknown command") != std::string::npos);
}

TEST_CASE("a reader that went away is no failure and no crash") {
  // The reader has ended before zx starts, so that the write always meets a closed pipe.
  const auto result = bash("exec 3> >(exec true); wait $!; \"$ZX\" --help >&3");
  CHECK(result.exit == 0);
  CHECK(result.err.empty());
}

TEST_CASE("a closed stdin or stderr does not matter") {
  CHECK(bash("\"$ZX\" --version <&-").exit == 0);
  CHECK(bash("\"$ZX\" failovr 2>&-").exit == 2);
}

TEST_CASE("colour is for terminals that want it") {
  const std::string red = "\033[31m";
  const auto plain = on_terminal(kWrong);
  CHECK(plain.find(red) != std::string::npos);
  CHECK(plain.find("unknown command") != std::string::npos);
  CHECK(on_terminal(kWrong, {{"NO_COLOR", ""}}).find(red) != std::string::npos);

  CHECK(run_zx({"failovr"}).err.find('\033') == std::string::npos);
  for (const auto& shown :
       {on_terminal(kWrong, {{"NO_COLOR", "1"}}), on_terminal(kWrong, {{"TERM", "dumb"}}),
        on_terminal(kWrong + " --no-color"), on_terminal(kWrong + " 2>&1 | cat")}) {
    CHECK(shown.find("unknown command") != std::string::npos);
    CHECK(shown.find('\033') == std::string::npos);
  }
}

}  // namespace zx::test
