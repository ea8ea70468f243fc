// The screen itself, in front of a file and of a pseudoterminal.
#include "cli/screen.h"

#include <fcntl.h>
#include <pty.h>
#include <unistd.h>

#include <array>

#include "lib/os/files.h"
#include "tests/support.h"

namespace zx::test {
namespace {

using commands::Table;
using commands::Tone;

// Puts other descriptors in the place of stdin, stdout and stderr for a while.
class Redirected {
 public:
  Redirected(int in, int out, int err) {
    const std::array<int, 3> wanted{in, out, err};
    for (int fd = 0; fd < 3; ++fd) {
      saved_[fd] = ::dup(fd);
      ::dup2(wanted[fd], fd);
    }
  }
  ~Redirected() {
    for (int fd = 0; fd < 3; ++fd) {
      ::dup2(saved_[fd], fd);
      ::close(saved_[fd]);
    }
  }
  Redirected(const Redirected&) = delete;
  Redirected& operator=(const Redirected&) = delete;

 private:
  std::array<int, 3> saved_{};
};

struct Printed {
  std::string out;
  std::string err;
};

Printed to_files(const commands::Shared& shared,
                 const std::function<void(cli::TerminalScreen&)>& act) {
  const Directory files;
  {
    const os::Descriptor in(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const os::Descriptor out(::open((files / "out").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    const os::Descriptor err(::open((files / "err").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    const Redirected redirected(in.get(), out.get(), err.get());
    cli::TerminalScreen screen(shared);
    act(screen);
  }
  return {read(files / "out"), read(files / "err")};
}

// What a terminal showed; `typed` is in its input before anything asks.
std::string to_terminal(const commands::Shared& shared, const std::string& typed,
                        const std::function<void(cli::TerminalScreen&)>& act) {
  int master = -1;
  int slave = -1;
  REQUIRE(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0);
  const os::Descriptor keep_master(master);
  os::Descriptor keep_slave(slave);
  REQUIRE(::write(master, typed.data(), typed.size()) == static_cast<ssize_t>(typed.size()));
  {
    const Redirected redirected(slave, slave, slave);
    cli::TerminalScreen screen(shared);
    act(screen);
  }
  keep_slave.close();
  std::string shown;
  std::array<char, 4096> buffer{};
  while (true) {  // ends with EIO, as nobody holds the other side any more
    const auto count = ::read(master, buffer.data(), buffer.size());
    if (count <= 0) return shown;
    shown.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

commands::Shared with_json() {
  commands::Shared shared;
  shared.format = commands::Format::json;
  return shared;
}

Table nodes() {
  Table table;
  table.head = {"NODE", "REGION", "LAG"};
  table.rows = {{{"pg-shanghai", Tone::good}, "上海", "0 B"},
                {"pg-b", "beijing", ""},
                {"torn\nin\tparts", "x  ", "", ""}};
  return table;
}

}  // namespace

TEST_CASE("a table's columns align by their width on a terminal, without spaces at the end") {
  const auto printed = to_files({}, [](auto& screen) { screen.table(nodes()); });
  CHECK(printed.out ==
        "  NODE           REGION   LAG\n"
        "  pg-shanghai    上海     0 B\n"
        "  pg-b           beijing\n"
        "  torn in parts  x\n");
  CHECK(printed.err.empty());
}

TEST_CASE("text is for tables, JSON for programs, never both") {
  const auto act = [](cli::TerminalScreen& screen) {
    screen.line("a line", Tone::good);
    screen.table(nodes());
    screen.json(Json{{"answer", 42}});
  };
  const auto text = to_files({}, act);
  CHECK(text.out.starts_with("a line\n  NODE"));
  CHECK(text.out.find("42") == std::string::npos);
  CHECK(to_files(with_json(), act).out == "{\n  \"schema\": 1,\n  \"answer\": 42\n}\n");
}

TEST_CASE("an error after a JSON result stays on stderr") {
  const Error error{Code::refused, "it is alive\nand well", "look", {"while judging"}, false};
  const auto after = to_files(with_json(), [&](auto& screen) {
    screen.json(Json{{"answer", 42}});
    screen.error(error);
  });
  CHECK(after.out.find("error") == std::string::npos);
  CHECK(after.err == "zx: refused: it is alive\n  and well\n  while judging\nhint: look\n");
  const auto alone = to_files(with_json(), [&](auto& screen) { screen.error(error); });
  CHECK(alone.out.find("\"code\": \"refused\"") != std::string::npos);
  const Error plain{Code::failed, "could not", {}, {}, false};
  CHECK(to_files({}, [&](auto& screen) { screen.error(plain); }).err == "zx: could not\n");
}

TEST_CASE("notes go to stderr and not with -q; foreign text cannot move the cursor") {
  const auto act = [](cli::TerminalScreen& screen) { screen.note("a\033[2Jnote"); };
  CHECK(to_files({}, act).err == "a [2Jnote\n");
  commands::Shared quiet;
  quiet.quiet = true;
  CHECK(to_files(quiet, act).err.empty());
}

TEST_CASE("progress and clearing are for terminals only") {
  const auto act = [](cli::TerminalScreen& screen) {
    screen.progress(std::string(300, 'x'));
    screen.clear();
    screen.line("done", Tone::plain);
  };
  const auto printed = to_files({}, act);
  CHECK(printed.out == "done\n");
  CHECK(printed.err.empty());

  const auto shown = to_terminal({}, "", act);
  CHECK(shown.find("xxx") != std::string::npos);
  CHECK(shown.find(std::string(80, 'x')) == std::string::npos);  // one line, never two
  CHECK(shown.ends_with("\r\033[K\033[2J\033[Hdone\r\n"));
}

TEST_CASE("a question is asked on a terminal, and only yes is yes") {
  const auto answer = [](const std::string& typed) {
    Status status;
    const auto shown = to_terminal({}, typed, [&](cli::TerminalScreen& screen) {
      status = screen.confirm("Promote pg-b?", "--yes");
    });
    CHECK(shown.find("Promote pg-b? [y/N] ") != std::string::npos);
    return status;
  };
  CHECK(answer("y\n").has_value());
  CHECK(answer("YES\n").has_value());
  for (const std::string typed : {"n\n", "\n", "yesterday\n", "\x04"}) {
    const auto status = answer(typed);
    REQUIRE(!status.has_value());
    CHECK(status.error().code == Code::declined);
  }
}

TEST_CASE("without a terminal a question is declined and names the flag") {
  Status status;
  const auto printed = to_files(
      {}, [&](cli::TerminalScreen& screen) { status = screen.confirm("Promote pg-b?", "--yes"); });
  REQUIRE(!status.has_value());
  CHECK(status.error().code == Code::declined);
  CHECK(status.error().hint.find("--yes") != std::string::npos);
  CHECK(printed.out.empty());
}

}  // namespace zx::test
