// systemd's protocol against a socket of the test's own.
#include "lib/os/notify.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

#include "lib/os/files.h"
#include "tests/support.h"

namespace zx::os {
namespace {

// A variable of the environment, as it was again at the end.
class Variable {
 public:
  Variable(const char* name, const std::optional<std::string>& value) : name_(name) {
    if (const char* found = std::getenv(name)) before_ = found;
    set(value);
  }
  ~Variable() { set(before_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  void set(const std::optional<std::string>& value) {
    if (value)
      setenv(name_, value->c_str(), 1);
    else
      unsetenv(name_);
  }
  const char* name_;
  std::optional<std::string> before_;
};

// "@name" is in the abstract namespace.
class Listener {
 public:
  explicit Listener(const std::string& name)
      : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(name.size() < sizeof address.sun_path);
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    REQUIRE(bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0);
  }
  // A datagram that is there already; empty: none.
  [[nodiscard]] std::string heard() const {
    std::string text(4096, '\0');
    const auto got = recv(socket_.get(), text.data(), text.size(), MSG_DONTWAIT);
    return text.substr(0, static_cast<std::size_t>(std::max<ssize_t>(0, got)));
  }

 private:
  Descriptor socket_;
};

TEST_CASE("what is notified arrives as one datagram, by path and in the abstract namespace") {
  const test::Directory directory;
  for (const auto& name :
       {directory / "notify", "@zx-test-" + std::to_string(getpid()) + "-notify"}) {
    CAPTURE(name);
    const Listener listener(name);
    const Variable variable("NOTIFY_SOCKET", name);
    CHECK(notify("READY=1").has_value());
    CHECK(notify("STOPPING=1\nSTATUS=再见").has_value());
    CHECK(listener.heard() == "READY=1");
    CHECK(listener.heard() == "STOPPING=1\nSTATUS=再见");
    CHECK(listener.heard().empty());
  }
}

TEST_CASE("without systemd nothing is notified and nothing is wrong") {
  for (const auto& value : {std::optional<std::string>(), std::optional<std::string>("")}) {
    const Variable variable("NOTIFY_SOCKET", value);
    CHECK(notify("READY=1").has_value());
  }
}

TEST_CASE("a variable that names no socket is an error of the configuration") {
  for (const auto& value : {std::string("relative/path"), "/" + std::string(200, 'x')}) {
    const Variable variable("NOTIFY_SOCKET", value);
    const auto sent = notify("READY=1");
    REQUIRE_FALSE(sent.has_value());
    CHECK(sent.error().code == Code::config);
  }
}

TEST_CASE("a socket that nobody listens on, or that is full, is an error and never a wait") {
  const test::Directory directory;
  {
    const Variable variable("NOTIFY_SOCKET", directory / "nobody");
    CHECK(notify("READY=1").error().code == Code::io);
  }
  const Listener listener(directory / "full");
  const Variable variable("NOTIFY_SOCKET", directory / "full");
  Status sent;
  for (int i = 0; sent && i < 100'000; ++i) sent = notify("WATCHDOG=1");
  REQUIRE_FALSE(sent.has_value());
  CHECK(sent.error().code == Code::io);
}

TEST_CASE("the watchdog's span is of this process and in whole milliseconds") {
  struct Row {
    std::optional<std::string> micros, pid;
    std::optional<Millis> span;
  };
  const auto mine = std::to_string(getpid());
  const std::vector<Row> rows = {
      {std::nullopt, std::nullopt, std::nullopt},
      {"30000000", std::nullopt, Millis(30'000)},
      {"30000000", mine, Millis(30'000)},
      {"30000000", "1", std::nullopt},
      {"30000000", "me", std::nullopt},
      {"1500", mine, Millis(1)},
      {"999", mine, std::nullopt},
      {"0", mine, std::nullopt},
      {"-5000000", mine, std::nullopt},
      {"soon", mine, std::nullopt},
      {"", mine, std::nullopt},
  };
  for (const auto& row : rows) {
    CAPTURE(row.micros.value_or("(unset)"));
    CAPTURE(row.pid.value_or("(unset)"));
    const Variable micros("WATCHDOG_USEC", row.micros);
    const Variable pid("WATCHDOG_PID", row.pid);
    CHECK((watchdog_span() == row.span));
  }
}

TEST_CASE("a reload tells when it began, by a clock that does not go back") {
  const auto first = reloading_state();
  const std::string head = "RELOADING=1\nMONOTONIC_USEC=";
  REQUIRE(first.starts_with(head));
  const auto second = reloading_state();
  CHECK(std::stoll(first.substr(head.size())) > 0);
  CHECK(std::stoll(second.substr(head.size())) >= std::stoll(first.substr(head.size())));
}

}  // namespace
}  // namespace zx::os
