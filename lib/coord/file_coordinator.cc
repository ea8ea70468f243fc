#include <charconv>
#include <mutex>
#include <optional>

#include <fmt/format.h>

#include "lib/base/clock.h"
#include "lib/base/text.h"
#include "lib/coord/coordinator.h"
#include "lib/os/file_lock.h"
#include "lib/os/files.h"

namespace zx::coord {
namespace {

constexpr Millis kLongestWait{2'000};
constexpr Millis kPoll{5};
constexpr std::size_t kMostText = 4u << 20;

// A lease of one leadership: ended when the coordinator goes, for the lock goes with it.
struct Leadership {
  std::mutex mutex;
  bool ended = false;
};

class FileLease final : public Lease {
 public:
  explicit FileLease(std::shared_ptr<Leadership> leadership) : leadership_(std::move(leadership)) {}
  Status check() override {
    const std::scoped_lock guard(leadership_->mutex);
    if (leadership_->ended) return fail(Code::refused, "this agent has given up its lead");
    return {};
  }

 private:
  std::shared_ptr<Leadership> leadership_;
};

// Any key is a file name: what is not plain is written as %XX.
std::string file_name(const std::string& key) {
  std::string name;
  for (const char c : key) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || (c == '.' && !name.empty());
    name += plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return name;
}

// The version in a line of its own, then the text as it is.
Result<Value> read_value(const std::string& path) {
  auto content = os::read_file(path, kMostText + 64);
  if (!content) {
    if (content.error().code == Code::not_found) return Value{};
    return fail(content.error());
  }
  Value value;
  const auto end = content->find('\n');
  const auto line = std::string_view(*content).substr(0, end);
  const auto [stop, error] = std::from_chars(line.data(), line.data() + line.size(), value.version);
  if (end == std::string::npos || error != std::errc() || stop != line.data() + line.size() ||
      value.version < 1)
    return fail(Code::io, path + " is damaged: its first line is no version",
                "look at it, then remove it");
  value.text = content->substr(end + 1);
  return value;
}

// Shared facts as files of one host.
class FileFacts {
 public:
  FileFacts(std::string state_dir, std::string name)
      : directory_(std::move(state_dir) + "/shared"), name_(std::move(name)) {}

  [[nodiscard]] Result<Value> get(const std::string& key) const { return read_value(path_of(key)); }
  [[nodiscard]] Status put(const std::string& key, const std::string& text,
                           std::int64_t version) const {
    auto done = write(key, text, version);
    if (!done && done.error().code == Code::disk_full)
      done.error().hint = "free space there, or set platform.state_dir to another disk";
    return done;
  }

 private:
  [[nodiscard]] Status write(const std::string& key, const std::string& text,
                             std::int64_t version) const {
    if (key.empty()) return fail(Code::internal, "a shared fact without a name");
    if (text.size() > kMostText)
      return fail(Code::failed, "the shared fact " + key + " is too big");
    ZX_TRY(os::make_directories(directory_));
    ZX_ASSIGN(const auto lock, take_shared());
    ZX_ASSIGN(const auto now, get(key));
    if (now.version != version)
      return fail(Code::locked, fmt::format("somebody else changed {}: version {}, not {}", key,
                                            now.version, version));
    return os::write_file(path_of(key), fmt::format("{}\n{}", version + 1, text));
  }

  [[nodiscard]] std::string path_of(const std::string& key) const {
    return directory_ + "/" + file_name(key);
  }
  // Writers take turns, each for a moment only. The dot keeps it apart from every key.
  [[nodiscard]] Result<os::FileLock> take_shared() const {
    const auto deadline = Deadline::after(kLongestWait);
    while (true) {
      auto lock = os::FileLock::take(directory_ + "/.lock", name_);
      if (lock || lock.error().code != Code::locked) return lock;
      if (deadline.passed())
        return fail(Code::timeout,
                    "the shared facts are being written for too long: " + directory_);
      pause_for(kPoll);
    }
  }

  const std::string directory_, name_;
};

Status no_guard(const std::string& node) {
  return fail(Code::not_found, node + " has no guard", "guards need coordination by etcd");
}

// The lock of the host is the turn: nothing is added to it.
class NothingMore final : public Lease {
 public:
  Status check() override { return {}; }
};

class FileShared final : public Shared {
 public:
  explicit FileShared(std::string state_dir) : facts_(std::move(state_dir), "a command") {}
  Result<std::unique_ptr<Lease>> take_turn(const std::string&, const std::string&, bool) override {
    return std::make_unique<NothingMore>();
  }
  Status is_turn_free(const std::string&) override { return {}; }
  Result<Value> get(const std::string& key) override { return facts_.get(key); }
  Status put(const std::string& key, const std::string& text, std::int64_t version) override {
    return facts_.put(key, text, version);
  }
  Result<GuardState> guard(const std::string&) override { return GuardState{}; }
  Status bar(const std::string& node) override { return no_guard(node); }
  Status unbar(const std::string&) override { return {}; }

 private:
  FileFacts facts_;
};

class FileCoordinator final : public Coordinator {
 public:
  FileCoordinator(std::string state_dir, std::string name)
      : state_dir_(std::move(state_dir)), name_(std::move(name)), facts_(state_dir_, name_) {}
  ~FileCoordinator() override {
    if (!leadership_) return;
    const std::scoped_lock guard(leadership_->mutex);
    leadership_->ended = true;
  }

  Standing standing() override {
    const std::scoped_lock guard(mutex_);
    return stand();
  }

  Result<std::unique_ptr<Lease>> lead() override {
    const std::scoped_lock guard(mutex_);
    const auto standing = stand();
    if (standing.role == Standing::Role::cut_off)
      return fail(Code::unreachable, "it is not known who leads: " + standing.why);
    if (standing.role == Standing::Role::follower)
      return fail(Code::locked, standing.leader.empty()
                                    ? "another agent leads"
                                    : "the agent " + standing.leader + " leads");
    return std::make_unique<FileLease>(leadership_);
  }

  void vote(const Json&) override {}
  std::vector<Vote> votes() override { return {}; }

  Result<std::unique_ptr<Lease>> take_turn(const std::string&, const std::string&, bool) override {
    return lead();
  }
  Status is_turn_free(const std::string&) override { return {}; }

  Result<Value> get(const std::string& key) override { return facts_.get(key); }
  Status put(const std::string& key, const std::string& text, std::int64_t version) override {
    return facts_.put(key, text, version);
  }

  Result<GuardState> guard(const std::string&) override { return GuardState{}; }
  Status bar(const std::string& node) override { return no_guard(node); }
  Status unbar(const std::string&) override { return {}; }

 private:
  [[nodiscard]] std::string leader_path() const { return state_dir_ + "/locks/agent.lock"; }

  Standing stand() {
    using Role = Standing::Role;
    if (lock_) return {Role::leader, name_, token_, {}};
    auto lock = os::FileLock::take(leader_path(), name_);
    if (!lock && lock.error().code == Code::locked) {
      const auto holder = os::read_file(leader_path(), 4096);
      return {Role::follower, holder ? first_line(*holder) : std::string(), 0, {}};
    }
    if (!lock) return {Role::cut_off, {}, 0, lock.error().message};
    const auto token = next_token();
    if (!token) return {Role::cut_off, {}, 0, token.error().message};
    lock_ = *std::move(lock);
    leadership_ = std::make_shared<Leadership>();
    token_ = *token;
    return {Role::leader, name_, token_, {}};
  }

  // Written only by who holds the leader's lock.
  [[nodiscard]] Result<std::int64_t> next_token() const {
    const auto path = state_dir_ + "/shared/.token";
    ZX_ASSIGN(const auto last, read_value(path));
    ZX_TRY(os::write_file(path, fmt::format("{}\n", last.version + 1)));
    return last.version + 1;
  }

  const std::string state_dir_;
  const std::string name_;
  const FileFacts facts_;
  std::mutex mutex_;
  std::optional<os::FileLock> lock_;
  std::shared_ptr<Leadership> leadership_;
  std::int64_t token_ = 0;
};

}  // namespace

Result<std::unique_ptr<Coordinator>> file_coordinator(const std::string& state_dir,
                                                      const std::string& name) {
  ZX_TRY(os::make_directories(state_dir + "/locks"));
  ZX_TRY(os::make_directories(state_dir + "/shared"));
  return std::make_unique<FileCoordinator>(state_dir, name);
}

std::unique_ptr<Shared> file_shared(const std::string& state_dir) {
  return std::make_unique<FileShared>(state_dir);
}

}  // namespace zx::coord
