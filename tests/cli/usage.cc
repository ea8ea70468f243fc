// What is wrong with a command line, and how zx says so.
#include "tests/support.h"

namespace zx::test {
namespace {

// The line of stderr that begins with `start`, or nothing.
std::string line_with(const std::string& err, const std::string& start) {
  for (const auto& line : lines_of(err))
    if (line.starts_with(start)) return line;
  return {};
}

struct Wrong {
  std::vector<std::string> words;
  std::string message;
  std::string hint;
};

}  // namespace

TEST_CASE("no command shows what there is on stderr and exits with 2") {
  for (const auto& words :
       std::vector<std::vector<std::string>>{{}, {"failover"}, {"-v", "config"}}) {
    const auto result = run_zx(words);
    CHECK(result.exit == 2);
    CHECK(result.out.empty());
    CHECK(result.err.starts_with("Usage: zx"));
    CHECK(result.err.find("\nCommands:\n") != std::string::npos);
  }
  const auto json = run_zx({"failover", "-o", "json"});
  CHECK(json.exit == 2);
  CHECK(json_of(json)["error"]["code"] == "usage");
}

TEST_CASE("a wrong word or flag is named, with the nearest right one") {
  const std::vector<Wrong> all{
      {{"failovr"}, "unknown command \"failovr\"", "did you mean \"failover\"?"},
      {{"failover", "pgg"}, "unknown command \"failover pgg\"", "did you mean \"failover pg\"?"},
      {{"help", "statsu"}, "unknown command \"statsu\"", "did you mean \"status\"?"},
      {{"zzzzzzzz"}, "unknown command \"zzzzzzzz\"", "zx --help lists the commands"},
      {{"failover", "zzzzzz"},
       "unknown command \"failover zzzzzz\"",
       "zx failover --help lists the commands"},
      {{"failover", "pg", "--dry-rum"},
       "unknown flag \"--dry-rum\"",
       "did you mean \"--dry-run\"?"},
      {{"failover", "pg", "-dry-run"}, "unknown flag \"-dry-run\"", "did you mean \"--dry-run\"?"},
      {{"status", "--confg=x"}, "unknown flag \"--confg\"", "did you mean \"--config\"?"},
      {{"--confg", "x", "status"}, "unknown flag \"--confg\"", "did you mean \"--config\"?"},
      {{"status", "--zzzzzzzz"}, "unknown flag \"--zzzzzzzz\"", "zx status --help lists the flags"},
      {{"--dry-run", "failover", "pg"},
       "the flag \"--dry-run\" stands before the command",
       "put it after the command: zx failover pg --dry-run"},
      {{"status", "-o", "jsn"},
       "--output takes table or json, not \"jsn\"",
       "did you mean \"json\"?"},
      {{"-o", "jsn", "status"},
       "--output takes table or json, not \"jsn\"",
       "did you mean \"json\"?"},
      {{"status", "-o"}, "--output needs a value", ""},
      {{"-c"}, "--config needs a value", ""},
      {{"status", "--config="}, "--config needs a value", ""},
      {{"status", "--timeout", "soon"},
       "--timeout takes a duration such as 500ms, 30s or 2m, not \"soon\"",
       ""},
      {{"status", "--timeout", "0s"},
       "--timeout takes a duration such as 500ms, 30s or 2m, not \"0s\"",
       ""},
  };
  for (const auto& wrong : all) {
    INFO("zx " << join(wrong.words, " "));
    const auto result = run_zx(wrong.words);
    CHECK(result.exit == 2);
    CHECK(result.out.empty());
    CHECK(line_with(result.err, "zx: ") == "zx: usage: " + wrong.message);
    if (!wrong.hint.empty()) CHECK(line_with(result.err, "hint: ") == "hint: " + wrong.hint);
  }
}

TEST_CASE("a mistyped flag is reported before what is missing because of it") {
  const auto result = run_zx({"switchover", "pg", "--too", "pg-left"});
  CHECK(result.exit == 2);
  CHECK(line_with(result.err, "zx: ") == "zx: usage: unknown flag \"--too\"");
}

TEST_CASE("with -o json a usage error is JSON on stdout and text on stderr") {
  for (const auto& words : std::vector<std::vector<std::string>>{{"-o", "json", "failovr"},
                                                                 {"failovr", "--output=json"},
                                                                 {"status", "--confg", "-ojson"}}) {
    const auto result = run_zx(words);
    INFO("zx " << join(words, " "));
    CHECK(result.exit == 2);
    const auto json = json_of(result);
    CHECK(json.begin().key() == "schema");
    CHECK(json["schema"] == 1);
    CHECK(json["error"]["code"] == "usage");
    CHECK(json["error"]["message"].get<std::string>().starts_with("unknown "));
    CHECK(json["error"]["hint"].get<std::string>().starts_with("did you mean"));
    CHECK(result.err.starts_with("zx: usage: unknown "));
  }
}

TEST_CASE("global flags may stand before, between and after the words of the command") {
  // The name of the file in the error shows that the flag was read.
  const std::vector<std::vector<std::string>> all{
      {"-c", "/nonexistent/here.toml", "config", "check"},
      {"config", "-c/nonexistent/here.toml", "check"},
      {"config", "check", "-c", "/nonexistent/here.toml"},
      {"config", "check", "--config=/nonexistent/here.toml"},
      {"-c", "/first", "config", "check", "-c", "/nonexistent/here.toml"},
      {"-vvqc", "/nonexistent/here.toml", "config", "check", "--no-color", "--timeout", "3s"}};
  for (const auto& words : all) {
    INFO("zx " << join(words, " "));
    const auto result = run_zx(words);
    CHECK(result.exit == 6);
    CHECK(result.err.starts_with("zx: config: "));
    CHECK(result.err.find("/nonexistent/here.toml") != std::string::npos);
  }
  const auto json = run_zx({"-o", "json", "config", "check", "-c", "/nonexistent/here.toml"});
  CHECK(json.exit == 6);
  CHECK(json_of(json)["error"]["code"] == "config");
}

TEST_CASE("a defect of zx.toml exits with 6 and names the place and the nearest key") {
  Directory files;
  write(files / "zx.toml", "[platform]\nname = \"shop\"\nstate_dri = \"/tmp\"\n");
  const auto result = run_zx({"config", "check", "-c", files / "zx.toml"});
  CHECK(result.exit == 6);
  CHECK(result.err.find("zx.toml:3") != std::string::npos);
  CHECK(result.err.find("state_dir") != std::string::npos);
}

TEST_CASE("a name that is also a command is a name where a name belongs") {
  // A command line parser that falls through to the parent takes it for `zx status`.
  Directory files;
  write(files / "zx.toml", two_nodes(files.path()));
  const auto result = run_zx({"rejoin", "pg", "status", "--dry-run", "-c", files / "zx.toml"});
  CHECK(result.exit != 0);
  CHECK(result.err.find("status") != std::string::npos);
  CHECK(result.err.find("usage: ") == std::string::npos);
}

}  // namespace zx::test
