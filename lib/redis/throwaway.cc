#include "lib/redis/throwaway.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/os/sha256.h"
#include "lib/os/signals.h"
#include "lib/redis/info.h"

namespace zx::redis {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "redis-throwaway-";
constexpr std::size_t kLongestBase = 70;  // a Unix socket's path has 107 bytes
constexpr Millis kLook{5};
constexpr int kPortTries = 20;

std::string sha256_of(std::string_view text) {
  os::Sha256 hash;
  hash.feed(text);
  return hash.hex();
}

// As redis.conf reads it back, whatever is in it.
std::string escaped(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return out + "\"";
}

std::string place_for(const std::string& base) {
  return base.size() > kLongestBase ? "/tmp" : base;
}

std::string config_of(const ThrowawayOptions& options, const std::string& directory,
                      const std::string& password, bool is_stream) {
  auto text = fmt::format(
      "port 0\n"
      "unixsocket {}\n"
      "unixsocketperm 700\n"
      "dir {}\n"
      "dbfilename dump.rdb\n"
      "logfile \"\"\n"
      "daemonize no\n"
      "databases {}\n"
      "save \"\"\n"
      "appendonly no\n"
      "enable-debug-command local\n"
      "protected-mode no\n"
      "repl-diskless-sync yes\n"
      "repl-diskless-sync-delay 0\n"
      // When memory runs out, this one goes first.
      "oom-score-adj absolute\n"
      "oom-score-adj-values 1000 1000 1000\n",
      escaped(directory + "/s"), escaped(directory), options.databases);
  if (is_stream) text += "rdbchecksum no\n";
  const auto hash = sha256_of(password);
  text += fmt::format("user default on #{} ~* &* +@all\n", hash);
  if (!options.listen) return text;
  text += "bind " + options.listen->address + "\n";
  if (!options.listen->user.empty() && options.listen->user != "default")
    text += fmt::format("user {} on #{} ~* &* +@all\n", escaped(options.listen->user), hash);
  return text;
}

// The server's own words on why it ended: its lines of the level "#", without those of every start.
std::string last_words(const std::string& log) {
  const auto text = os::read_file(log);
  if (!text) return {};
  std::vector<std::string> words;
  for (const auto& line : split(*text, '\n')) {
    const auto at = line.find(" # ");
    if (at == std::string::npos) continue;
    words.push_back(first_line(line.substr(at + 3)));
    for (const char* usual : {"WARNING", "Warning:", "oO0", "Redis version", "Configuration loaded",
                              "Server initialized", "Bio thread"})
      if (words.back().starts_with(usual)) {
        words.pop_back();
        break;
      }
  }
  if (words.size() > 2) words.erase(words.begin(), words.end() - 2);
  return join(words, "; ");
}

}  // namespace

// The server itself was killed with its zx.
void sweep_throwaways(const std::string& base) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(place_for(base), ignored)) {
    const auto path = entry.path().string();
    if (!entry.path().filename().string().starts_with(kPrefix)) continue;
    if (!os::exists(path + "/lock")) continue;  // another is just making it
    if (const auto lock = os::FileLock::take(path + "/lock", "sweep"))
      fs::remove_all(path, ignored);
  }
}

RdbContent content_from(const std::string& info) {
  RdbContent content;
  const auto fields = Info::parse(info);
  for (const auto& [name, value] : fields.all()) {
    if (!name.starts_with("db") || name.size() < 3 || name.size() > 11 ||
        name.find_first_not_of("0123456789", 2) != std::string::npos)
      continue;
    const auto parts = Info::pairs(value);
    const auto number = [&](const char* key) -> std::int64_t {
      const auto found = parts.find(key);
      return found == parts.end() ? 0 : std::max(0LL, std::atoll(found->second.c_str()));
    };
    const auto keys = number("keys");
    if (keys == 0) continue;
    content.databases[std::atoi(name.c_str() + 2)] = keys;
    content.keys += keys;
    content.expires += number("expires");
  }
  return content;
}

std::optional<std::uint64_t> memory_available() {
  const auto text = os::read_file("/proc/meminfo", 1 << 16);
  if (!text) return std::nullopt;
  for (const auto& line : split(*text, '\n'))
    if (line.starts_with("MemAvailable:"))
      return std::strtoull(line.c_str() + line.find(':') + 1, nullptr, 10) * 1024;
  return std::nullopt;
}

struct Throwaway::Impl {
  ThrowawayOptions options;
  std::string directory, password;
  std::optional<os::FileLock> lock;
  std::optional<os::Child> child;
  ~Impl() {
    child.reset();
    std::error_code ignored;
    if (!directory.empty()) fs::remove_all(directory, ignored);
  }
  [[nodiscard]] std::string log() const { return directory + "/log"; }
};

Throwaway::Throwaway(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Throwaway::Throwaway(Throwaway&&) noexcept = default;
Throwaway::~Throwaway() = default;

Result<Throwaway> Throwaway::start(const ThrowawayOptions& options, const std::string& rdb) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->password = options.listen ? options.listen->password : random_hex(16);
  const auto base = place_for(options.base);
  ZX_TRY(os::make_directories(base));
  sweep_throwaways(base);
  std::string pattern = base + "/" + kPrefix + "XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr)  // mode 0700
    return fail(errno_error(Code::io, "cannot make a directory in " + base, errno));
  impl->directory = pattern;
  ZX_ASSIGN(impl->lock, os::FileLock::take(impl->directory + "/lock", "a throwaway redis-server"));
  const auto dump = impl->directory + "/dump.rdb";
  const bool is_stream = rdb.empty();
  const int made =
      is_stream ? mkfifo(dump.c_str(), 0600) : symlink(fs::absolute(rdb).c_str(), dump.c_str());
  if (made != 0) return fail(errno_error(Code::io, "cannot make " + dump, errno));
  const auto config = impl->directory + "/redis.conf";
  os::WriteOptions writing;
  writing.durable = false;
  ZX_TRY(os::write_file(config, config_of(options, impl->directory, impl->password, is_stream),
                        writing));
  auto child = os::Child::start({options.bin_dir + "/redis-server", config}, {}, impl->log());
  if (!child) {
    auto error = child.error();
    error.hint = "loading a copy needs a redis-server on this host; bin_dir says where it is";
    return fail(std::move(error));
  }
  impl->child = *std::move(child);
  return Throwaway(std::move(impl));
}

Result<Throwaway> Throwaway::load_file(const ThrowawayOptions& options, const std::string& rdb) {
  return start(options, rdb);
}

Result<Throwaway> Throwaway::load_stream(const ThrowawayOptions& options) {
  return start(options, {});
}

std::string Throwaway::stream() const { return impl_->directory + "/dump.rdb"; }
pid_t Throwaway::pid() const { return impl_->child->pid(); }

Target Throwaway::target() const {
  Target target;
  target.name = "the throwaway server";
  target.address = impl_->directory + "/s";
  target.password = impl_->password;
  return target;
}

Status Throwaway::alive() {
  const auto ended = impl_->child->ended();
  if (!ended) return {};
  const auto words = last_words(impl_->log());
  const auto how = ended->signal != 0 ? fmt::format("it was killed by signal {}", ended->signal)
                                      : fmt::format("it ended with status {}", ended->exit);
  return fail(Code::failed, "a server could not load it: " + (words.empty() ? how : words),
              ended->signal == 9 ? "this host has too little memory for a second copy, perhaps"
                                 : "this copy cannot be used");
}

Status Throwaway::wait_loaded(Deadline deadline) {
  while (true) {
    ZX_TRY(alive());
    if (const auto signal = os::interruption()) return fail(*signal);
    if (auto client = Client::open(target(), deadline.at_most(Millis(1000)))) {
      const auto pong = client->command({"PING"}, deadline.at_most(Millis(1000)));
      if (pong) return {};
    }
    if (deadline.passed())
      return fail(Code::timeout, "the throwaway server did not load the copy in time");
    pause_for(kLook);
  }
}

Result<RdbContent> Throwaway::content(Deadline deadline, bool with_digest) {
  const auto at = target();
  auto client = Client::open(at, deadline);
  if (!client) return fail(error_of(at, client.error()));
  const auto info = client->command({"INFO", "keyspace"}, deadline);
  if (!info) return fail(error_of(at, info.error()));
  auto content = content_from(info->text);
  if (!with_digest) return content;
  const auto digest = client->command({"DEBUG", "DIGEST"}, deadline);
  if (!digest) return fail(error_of(at, digest.error()));
  content.digest = first_line(digest->text);
  return content;
}

Result<int> Throwaway::listen(Deadline deadline) {
  const auto at = target();
  auto client = Client::open(at, deadline);
  if (!client) return fail(error_of(at, client.error()));
  // A copy says of which line it is, and its server would have one who is on that line go on from
  // where it is, with what it has, instead of giving it the copy.
  const auto changed = client->command({"DEBUG", "CHANGE-REPL-ID"}, deadline);
  if (!changed) return fail(error_of(at, changed.error()));
  std::string said;
  for (int i = 0; i < kPortTries; ++i) {
    // Of those that the kernel gives to nobody by itself.
    const int port = 20'000 + static_cast<int>(std::stoul(random_hex(2), nullptr, 16) % 12'000);
    const auto set = client->command({"CONFIG", "SET", "port", std::to_string(port)}, deadline);
    if (set) return port;
    if (set.error().reply.empty()) return fail(error_of(at, set.error()));
    said = first_line(set.error().reply);  // taken by another
  }
  return fail(Code::failed, "the throwaway server found no port to listen on: " + said);
}

}  // namespace zx::redis
