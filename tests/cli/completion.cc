// Completion: what the binary offers, and what three real shells make of it.
#include <fcntl.h>
#include <sys/stat.h>

#include "tests/support.h"

namespace zx::test {
namespace {

using Words = std::vector<std::string>;

// Candidates for the last word, without their descriptions.
Words offered(const Words& words, const std::string& directory = "/") {
  Words all{"__complete", "--"};
  all.insert(all.end(), words.begin(), words.end());
  os::ProcessOptions options;
  options.directory = directory;
  const auto result = run_zx(all, options);
  INFO("zx " << join(words, " "));
  CHECK(result.exit == 0);
  CHECK(result.err.empty());
  Words out;
  for (const auto& line : lines_of(result.out)) out.push_back(line.substr(0, line.find('\t')));
  return out;
}

bool has(const Words& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// A directory with zx.toml, two runs, and the completion scripts; zx is on the PATH.
class Shells {
 public:
  Shells() {
    write(files_ / "zx.toml", two_nodes(files_.path()));
    write(files_ / "runs/20261123T031243-a1f3.jsonl", "");
    write(files_ / "runs/20261124T031243-b2c4.jsonl", "");
    write(files_ / "other.txt", "");
    REQUIRE(run_zx({"__generate", "completions", files_ / "scripts"}).exit == 0);
    std::filesystem::create_directories(files_ / "bin");
    std::filesystem::create_symlink(ZX_BINARY, files_ / "bin/zx");
  }
  [[nodiscard]] const std::string& path() const { return files_.path(); }

  [[nodiscard]] os::ProcessResult run_in(const os::Argv& argv) const {
    os::ProcessOptions options;
    options.directory = files_.path();
    options.environment = {{"HOME", files_.path()},
                           {"XDG_CONFIG_HOME", files_.path()},
                           {"XDG_DATA_HOME", files_.path()},
                           {"TERM", "vt100"},
                           {"PATH", files_ / "bin" + ":" + std::getenv("PATH")}};
    return run_program(argv, options);
  }

  [[nodiscard]] Words in_bash(const std::string& line, const std::string& breaks = " =:") const {
    const auto result =
        run_in({"bash", "--norc", "-c",
                "source scripts/zx.bash; COMP_WORDBREAKS=$2; COMP_LINE=$1; COMP_POINT=${#1}; _zx; "
                "printf '%s\\n' \"${COMPREPLY[@]}\"; complete -p zx",
                "bash", line, breaks});
    INFO(result.err);
    auto lines = lines_of(result.out);
    REQUIRE(!lines.empty());
    CHECK(lines.back() == "complete -F _zx zx");  // the function is what a tab calls
    lines.pop_back();
    return lines;
  }

  [[nodiscard]] Words in_fish(const std::string& line) const {
    const auto result =
        run_in({"fish", "--no-config", "-c", "source scripts/zx.fish; complete -C $argv[1]", line});
    INFO(result.err);
    CHECK(result.exit == 0);
    return lines_of(result.out);
  }

  // The line after a tab in an interactive zsh, and what it listed below.
  [[nodiscard]] std::string in_zsh(const std::string& line) const {
    const auto result = run_in({"zsh", "-f", "-c", R"(
zmodload zsh/zpty
zpty child zsh -f -i
zpty -w child "PS1= RPS1= PS2=; unsetopt zle_bracketed_paste; fpath=($PWD/scripts \$fpath)
autoload -Uz compinit; compinit -u -D; bindkey '^I' complete-word
show() { print -r -- \"<\$BUFFER>\"; }; zle -N show; bindkey '^X' show; print RE''ADY"
zpty -r -m child out '*READY*'
zpty -n -w child "$1"$'\t\x18'
zpty -r -m child out '*<*>*'
print -r -- $out
zpty -d child)",
                                "zsh", line});
    INFO(result.err);
    CHECK(result.exit == 0);
    return result.out;
  }

 private:
  Directory files_;
};

}  // namespace

TEST_CASE("commands and their leaves are offered, hidden ones are not") {
  const auto first = offered({""});
  for (const std::string name : {"status", "failover", "switchover", "rejoin", "config", "help"}) {
    INFO(name);
    CHECK(has(first, name));
  }
  for (const auto& name : first) CHECK(!name.starts_with("__"));
  CHECK(offered({"__gen"}).empty());
  CHECK(offered({"failo"}) == Words{"failover"});
  CHECK(offered({"failover", ""}) == Words{"pg", "redis", "ack"});
  CHECK(offered({"-v", "failover", "p"}) == Words{"pg"});
  CHECK(offered({"help", "failover", ""}) == Words{"pg", "redis", "ack"});
  CHECK(!has(offered({"help", ""}), "help"));
  CHECK(offered({"nonsense", ""}).empty());
}

TEST_CASE("candidates carry what they are") {
  const auto result = run_zx({"__complete", "--", "failov"});
  const auto& line = result.out;
  REQUIRE(line.find('\t') != std::string::npos);
  CHECK(line.size() > line.find('\t') + 5);
}

TEST_CASE("flags are offered once, those that repeat again") {
  const auto all = offered({"failover", "pg", "-"});
  for (const std::string flag : {"--dry-run", "--yes", "--config", "--output", "--help"}) {
    INFO(flag);
    CHECK(has(all, flag));
  }
  CHECK(offered({"failover", "pg", "--dry"}) == Words{"--dry-run"});
  CHECK(!has(offered({"failover", "pg", "--dry-run", "-"}), "--dry-run"));
  CHECK(!has(offered({"-q", "failover", "pg", "-"}), "--quiet"));
  CHECK(has(offered({"failover", "pg", "-v", "-"}), "--verbose"));
  CHECK(has(offered({"-"}), "--version"));
  CHECK(!has(offered({"status", "-"}), "--version"));
}

TEST_CASE("values of -o are offered in each of its forms") {
  CHECK(offered({"status", "-o", ""}) == Words{"table", "json"});
  CHECK(offered({"-o", "j"}) == Words{"json"});
  CHECK(offered({"status", "--output=j"}) == Words{"--output=json"});
  CHECK(offered({"status", "--timeout", ""}).empty());
}

TEST_CASE("files and directories are left to the shell") {
  CHECK(offered({"status", "-c", ""}) == Words{":file"});
  CHECK(offered({"status", "--config=/et"}) == Words{":file"});
}

TEST_CASE("nodes and runs come from the configuration that the words name") {
  Directory files;
  write(files / "zx.toml", two_nodes(files.path()));
  const auto config = files / "zx.toml";
  CHECK(offered({"rejoin", "pg", ""}, files.path()) == Words{"pg-left", "pg-right"});
  CHECK(offered({"-c", config, "rejoin", "pg", "pg-l"}) == Words{"pg-left"});
  CHECK(offered({"rejoin", "pg", "--config=" + config, "pg-r"}) == Words{"pg-right"});
  CHECK(offered({"switchover", "pg", "-c", config, "--to", ""}) == Words{"pg-left", "pg-right"});
  CHECK(offered({"switchover", "pg", "-c", config, "--to=pg-l"}) == Words{"--to=pg-left"});

  for (int i = 10; i < 70; ++i)
    write(files / fmt::format("runs/202611{}T031243-a1f3.jsonl", i), "");
  write(files / "runs/other.txt", "");
  const auto runs = offered({"runs", "show", ""}, files.path());
  REQUIRE(runs.size() == 50);
  CHECK(runs.front() == "20261169T031243-a1f3");
  CHECK(runs.back() == "20261120T031243-a1f3");
}

TEST_CASE("resume and abort complete the runs that are unfinished") {
  Directory files;
  write(files / "zx.toml", two_nodes(files.path()));
  const std::string begin =
      R"({"event":"begin","plan":{"command":"rejoin pg","lock":"pg.main","steps":[]}})";
  write(files / "runs/20261123T031243-a1f3.jsonl", begin + "\n");
  write(files / "runs/20261124T031243-b2c4.jsonl",
        begin + "\n" + R"({"event":"end","outcome":"done"})" + "\n");
  for (const std::string verb : {"resume", "abort"})
    CHECK(offered({"runs", verb, ""}, files.path()) == Words{"20261123T031243-a1f3"});
  CHECK(offered({"runs", "show", ""}, files.path()).size() == 2);
}

TEST_CASE("a configuration that is missing or wrong offers nothing and says nothing") {
  Directory files;
  write(files / "zx.toml", "not [ toml");
  CHECK(offered({"rejoin", "pg", "p"}, files.path()).empty());
  CHECK(offered({"rejoin", "pg", "-c", "/nonexistent", "p"}).empty());
}

TEST_CASE("a configuration that blocks ends the completion, not the shell") {
  Directory files;
  REQUIRE(mkfifo((files / "pipe").c_str(), 0600) == 0);
  os::ProcessOptions options;
  options.environment = {{"ZX_COMPLETE_TIMEOUT", "0.1"}};
  options.deadline = Millis(20'000);
  const auto result =
      run_zx({"__complete", "--", "-c", files / "pipe", "rejoin", "pg", ""}, options);
  CHECK(result.exit == 0);
  CHECK(result.out.empty());
}

TEST_CASE("bash completes commands, nodes, values and files") {
  const Shells shells;
  CHECK(shells.in_bash("zx failo") == Words{"failover"});
  CHECK(shells.in_bash("zx rejoin pg ") == Words{"pg-left", "pg-right"});
  CHECK(shells.in_bash("zx rejoin pg -c zx.toml pg-r") == Words{"pg-right"});
  CHECK(shells.in_bash("zx -c \"zx.toml\" switchover pg --to=pg-l") == Words{"pg-left"});
  CHECK(shells.in_bash("zx switchover pg --to=pg-l", " ") == Words{"--to=pg-left"});
  CHECK(shells.in_bash("zx status -c zx.t") == Words{"zx.toml"});
  CHECK(shells.in_bash("zx status --config=zx.t") == Words{"zx.toml"});
  CHECK(shells.in_bash("zx runs show ") == Words{"20261124T031243-b2c4", "20261123T031243-a1f3"});
}

TEST_CASE("fish completes commands, nodes, values and files, with descriptions") {
  const Shells shells;
  const auto commands = shells.in_fish("zx failo");
  REQUIRE(commands.size() == 1);
  CHECK(commands.front().starts_with("failover\t"));
  const auto nodes = shells.in_fish("zx rejoin pg pg-");
  REQUIRE(nodes.size() == 2);
  CHECK(nodes.front().starts_with("pg-left\tmain on here"));
  const auto only = shells.in_fish("zx switchover pg --to=pg-r");
  REQUIRE(only.size() == 1);
  CHECK(only.front().starts_with("--to=pg-right\t"));
  CHECK(shells.in_fish("zx -o ") == Words{"table", "json"});
  const auto files = shells.in_fish("zx status -c zx.t");
  REQUIRE(files.size() == 1);
  CHECK(files.front().starts_with("zx.toml"));
  CHECK(shells.in_fish("zx runs show ") == Words{"20261124T031243-b2c4", "20261123T031243-a1f3"});
}

TEST_CASE("zsh completes commands and nodes, with descriptions") {
  const Shells shells;
  CHECK(shells.in_zsh("zx failo").find("<zx failover >") != std::string::npos);
  CHECK(shells.in_zsh("zx rejoin pg pg-r").find("<zx rejoin pg pg-right >") != std::string::npos);
  CHECK(shells.in_zsh("zx switchover pg --to=pg-l").find("<zx switchover pg --to=pg-left >") !=
        std::string::npos);
  CHECK(shells.in_zsh("zx status -c zx.t").find("<zx status -c zx.toml >") != std::string::npos);
  // Nothing can be added to what both begin with, so they are listed.
  const auto both = shells.in_zsh("zx rejoin pg pg-");
  CHECK(both.find("pg-left") != std::string::npos);
  CHECK(both.find("main on here, port 2") != std::string::npos);
}

}  // namespace zx::test
