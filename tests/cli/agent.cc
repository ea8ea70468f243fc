// zx agent's commands that need no agent.
#include "tests/support.h"

namespace zx::test {
namespace {

std::string config_with(const std::string& state_dir) {
  return "[platform]\nname = \"shop\"\nstate_dir = \"" + state_dir + "\"\n";
}

}  // namespace

TEST_CASE("a unit is not made for files that it would not see") {
  const Directory hidden("/tmp"), also_hidden("/var/tmp"), seen("/dev/shm");
  write(seen / "zx.toml", config_with("/var/lib/zx"));
  // Built in /tmp, zx would not be seen either.
  auto zx = std::string(ZX_BINARY);
  if (zx.starts_with("/tmp/") || zx.starts_with("/var/tmp/")) {
    std::filesystem::copy_file(zx, seen / "zx");
    zx = seen / "zx";
  }
  const auto unit_of = [&](const std::string& config) {
    return run_program({zx, "-c", config, "agent", "unit"});
  };
  const auto made = unit_of(seen / "zx.toml");
  REQUIRE_MESSAGE(made.exit == 0, made.err);
  CHECK(made.out.find("PrivateTmp=yes") != std::string::npos);
  CHECK(made.out.find(seen / "zx.toml") != std::string::npos);
  for (const auto* directory : {&hidden, &also_hidden}) {
    const auto path = *directory / "zx.toml";
    write(path, config_with("/var/lib/zx"));
    const auto refused = unit_of(path);
    CHECK(refused.exit == 3);
    CHECK(refused.out.empty());
    CHECK_MESSAGE(refused.err.find("the configuration is " + path) != std::string::npos,
                  refused.err);
    CHECK(refused.err.find("hint: move it") != std::string::npos);
  }
  write(seen / "zx.toml", config_with("/tmp/state"));
  const auto state = unit_of(seen / "zx.toml");
  CHECK(state.exit == 3);
  CHECK_MESSAGE(state.err.find("platform.state_dir is /tmp/state") != std::string::npos, state.err);
}

TEST_CASE("an address that nobody can listen on is an error of the configuration") {
  const Directory files;
  const auto path = files / "zx.toml";
  write(path, config_with("/var/lib/zx") + "[agent]\nlisten = \"foo\"\n");
  const auto checked = run_zx({"-c", path, "config", "check"});
  CHECK(checked.exit == 6);
  const auto says = path + ":5:10: agent.listen must be ADDRESS:PORT";
  CHECK_MESSAGE(checked.err.find(says) != std::string::npos, checked.err);
}

TEST_CASE("a line that the journal reads has its priority in front") {
  const Directory files;
  write(files / "zx.toml", config_with(files / "state"));
  const auto log = files / "log";
  write(log, "");
  os::ProcessOptions options;
  options.environment = {{"ZX", ZX_BINARY}, {"CONFIG", files / "zx.toml"}, {"LOG", log}};
  const std::string command = "\"$ZX\" -v -c \"$CONFIG\" runs list > /dev/null 2> \"$LOG\"";
  const auto shell = [&](const std::string& script) {
    CHECK(run_program({"bash", "-c", script}, options).exit == 0);
    const auto lines = lines_of(read(log));
    REQUIRE_FALSE(lines.empty());
    return lines.front();
  };
  const auto plain = shell(command);
  const auto marked = shell("JOURNAL_STREAM=$(stat -c %d:%i \"$LOG\") " + command);
  CHECK_MESSAGE(plain.find(" info configuration: ") == 12, plain);
  CHECK_MESSAGE(marked.starts_with("<6>"), marked);
  CHECK(marked.find(" info configuration: ") == 15);
  // It is another file that the journal reads.
  CHECK(shell("JOURNAL_STREAM=1:1 " + command).find(" info configuration: ") == 12);
}

}  // namespace zx::test
