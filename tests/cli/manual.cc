// The pages of the manual: what the repository holds is what the binary makes.
#include "tests/support.h"

namespace zx::test {
namespace {

const std::string kSource = ZX_SOURCE_DIR;

std::vector<std::string> pages_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("zx") && (name.ends_with(".1") || name.ends_with(".5")))
      names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The literal text of a section, without the escapes of troff.
std::string literal_in(const std::string& page, const std::string& section) {
  const auto at = page.find(".SH \"" + section + "\"");
  REQUIRE(at != std::string::npos);
  const auto start = page.find(".EX\n", at) + 4;
  auto text = page.substr(start, page.find(".EE", start) - start);
  for (const auto& [escape, plain] :
       std::vector<std::pair<std::string, std::string>>{{"\\-", "-"}, {"\\(aq", "'"}, {"\\&", ""}})
    for (auto found = text.find(escape); found != std::string::npos; found = text.find(escape))
      text.replace(found, escape.size(), plain);
  return text;
}

}  // namespace

TEST_CASE("man/ is what the binary makes (else: scripts/dev man)") {
  Directory made;
  REQUIRE(run_zx({"__generate", "man", made.path()}).exit == 0);
  CHECK(pages_in(kSource + "/man") == pages_in(made.path()));
  for (const auto& name : pages_in(made.path())) {
    INFO(name);
    const auto committed = read(kSource + "/man/" + name);
    CHECK(read(made / name) == committed);
  }
}

TEST_CASE("completions/ is what the binary makes (else: scripts/dev man)") {
  Directory made;
  REQUIRE(run_zx({"__generate", "completions", made.path()}).exit == 0);
  for (const std::string name : {"zx.bash", "_zx", "zx.fish"}) {
    INFO(name);
    const auto committed = read(kSource + "/completions/" + name);
    CHECK(read(made / name) == committed);
  }
}

TEST_CASE(
    "scripts/systemd is what the binary makes (else: scripts/dev man), and systemd takes it") {
  Directory made;
  REQUIRE(run_zx({"__generate", "systemd", made.path()}).exit == 0);
  const auto unit = read(made / "zx-agent.service");
  CHECK(unit == read(kSource + "/scripts/systemd/zx-agent.service"));
  // It looks for the program, too.
  auto here = unit;
  for (auto at = here.find("/usr/bin/zx"); at != std::string::npos; at = here.find("/usr/bin/zx"))
    here.replace(at, 11, ZX_BINARY);
  write(made / "zx-agent.service", here);
  const auto analyze = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "systemd-analyze");
    words.push_back(made / "zx-agent.service");
    return run_program(words);
  };
  if (!os::run({"systemd-analyze", "--version"}, {})) {
    MESSAGE("systemd-analyze is not here: what systemd says of the unit was not asked");
    return;
  }
  const auto verified = analyze({"verify", "--man=no"});
  CHECK(verified.exit == 0);
  CHECK(verified.err == "");
  // Below "OK", of 0 to 10.
  const auto exposed = analyze({"security", "--offline=yes", "--threshold=40", "--no-pager"});
  CHECK(exposed.exit == 0);
}

TEST_CASE("the units and timers of backups are what systemd takes") {
  const Directory made;
  std::vector<std::string> paths;
  for (const std::string name : {"zx-backup", "zx-backup-prune", "zx-backup-verify"})
    for (const std::string kind : {".service", ".timer"}) {
      write(made / (name + kind), read(kSource + "/scripts/systemd/" + name + kind));
      paths.push_back(made / (name + kind));
    }
  for (const std::string name : {"zx-backup", "zx-backup-prune", "zx-backup-verify"}) {
    const auto path = made / (name + ".service");
    const auto unit = read(path);
    CHECK(unit.find("\nRequiresMountsFor=/") != std::string::npos);
    // What is tried again, and what no second try mends.
    const std::string finals = name == "zx-backup"          ? "2 4 6 8 9"
                               : name == "zx-backup-verify" ? "2 6 8 9 10"
                                                            : "2 6 8 9";
    CHECK(unit.find("\nRestart=on-failure\n") != std::string::npos);
    CHECK(unit.find("\nRestartPreventExitStatus=" + finals + "\n") != std::string::npos);
    edit(path, "/usr/bin/zx", ZX_BINARY);
  }
  if (!os::run({"systemd-analyze", "--version"}, {})) {
    MESSAGE("systemd-analyze is not here: what systemd says of the units was not asked");
    return;
  }
  std::vector<std::string> words{"systemd-analyze", "verify", "--man=no"};
  words.insert(words.end(), paths.begin(), paths.end());
  const auto verified = run_program(words);
  CHECK_MESSAGE(verified.exit == 0, verified.err);
  CHECK(verified.err == "");
}

TEST_CASE("a page of a command that is gone is removed, other files are kept") {
  Directory made;
  write(made / "zx-gone.1", "old");
  write(made / "design.md", "mine");
  REQUIRE(run_zx({"__generate", "man", made.path()}).exit == 0);
  CHECK(!std::filesystem::exists(made / "zx-gone.1"));
  CHECK(read(made / "design.md") == "mine");
}

TEST_CASE("a directory that cannot be written is an error") {
  Directory made;
  write(made / "file", "");
  const auto result = run_zx({"__generate", "man", made / "file" + "/below"});
  CHECK(result.exit == 1);
  CHECK(result.err.starts_with("zx: "));
}

TEST_CASE("troff has nothing to say against any page") {
  Directory made;
  REQUIRE(run_zx({"__generate", "man", made.path()}).exit == 0);
  for (const auto& name : pages_in(made.path())) {
    INFO(name);
    const auto checked = run_program({"groff", "-man", "-ww", "-z", "-Tutf8", made / name});
    CHECK(checked.exit == 0);
    CHECK(checked.err.empty());
    const auto page = read(made / name);
    CHECK(std::all_of(page.begin(), page.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
  }
}

TEST_CASE("each page has its sections, and shows flags as they are typed") {
  Directory made;
  REQUIRE(run_zx({"__generate", "man", made.path()}).exit == 0);
  for (const auto& name : pages_in(made.path())) {
    INFO(name);
    const auto page = read(made / name);
    std::vector<std::string> sections{"NAME", "DESCRIPTION", "SEE ALSO"};
    if (name.ends_with(".1"))
      sections.insert(sections.end(), {"SYNOPSIS", "OPTIONS", "EXIT STATUS", "FILES"});
    for (const auto& section : sections) {
      INFO(section);
      CHECK(page.find("\n.SH \"" + section + "\"\n") != std::string::npos);
    }
  }
  const auto shown =
      run_program({"groff", "-man", "-Tascii", "-P-cbou", made / "zx-failover-pg.1"});
  CHECK(shown.out.find("--dry-run") != std::string::npos);
  CHECK(shown.out.find("~/.config/zx/zx.toml") != std::string::npos);
}

TEST_CASE("a page says that a name that does not exist is 2 as well") {
  Directory made;
  REQUIRE(run_zx({"__generate", "man", made.path()}).exit == 0);
  const auto page = read(made / "zx-redis-restore.1");
  const auto at = page.find("\\fB2\\fR\n");
  REQUIRE(at != std::string::npos);
  const auto says = page.substr(at, page.find(".TP", at) - at);
  CHECK_MESSAGE(says.find("value of the wrong form; or a name that does not exist: a file") !=
                    std::string::npos,
                says);
}

TEST_CASE("every error code of the program is in zx(1)") {
  Directory made;
  REQUIRE(run_zx({"__generate", "man", made.path()}).exit == 0);
  const auto shown = run_program({"groff", "-man", "-Tascii", "-P-cbou", made / "zx.1"}).out;
  for (const auto& code : all_codes()) {
    INFO(std::string(code.name));
    CHECK(shown.find("[" + std::string(code.name) + "]") != std::string::npos);
  }
}

TEST_CASE("the example in zx.toml(5) is a configuration that zx accepts") {
  Directory made;
  REQUIRE(run_zx({"__generate", "man", made.path()}).exit == 0);
  const auto example = literal_in(read(made / "zx.toml.5"), "EXAMPLE");
  CHECK(example.find("[pg.main.nodes.pg-2]") != std::string::npos);
  write(made / "zx.toml", example);
  const auto shown = run_zx({"config", "show", "-c", made / "zx.toml"});
  INFO(shown.err);
  CHECK(shown.exit == 0);
}

}  // namespace zx::test
