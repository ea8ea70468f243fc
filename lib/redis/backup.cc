#include "lib/redis/backup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <vector>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/new_file.h"
#include "lib/os/sha256.h"
#include "lib/os/signals.h"
#include "lib/redis/rdb_feeder.h"

namespace zx::redis {
namespace {

constexpr Millis kTell{100};
constexpr Millis kLook{2};
constexpr std::size_t kBuffer = 1 << 20;
constexpr std::size_t kMostRecord = 1 << 20;

std::optional<std::int64_t> number_of(const std::string& text) {
  std::int64_t value = 0;
  const auto* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stopped != end) return std::nullopt;
  return value;
}

std::string note_of(const RdbSummary& summary, const char* name) {
  const auto found = summary.notes.find(name);
  return found == summary.notes.end() ? std::string() : found->second;
}

// The copy on its way through everything that looks at it.
class Pass {
 public:
  Pass(os::NewFile& file, RdbFeeder* feeder, Throwaway* throwaway, const BackupOptions& options)
      : file_(file), feeder_(feeder), throwaway_(throwaway), options_(options) {}

  Status on_length(std::uint64_t length) const {
    const auto free = os::free_space(os::parent_of(file_.path()));
    if (!free || *free >= length) return {};
    return fail(Code::disk_full,
                fmt::format("the copy has {}, and {} has {} free", format_bytes(length),
                            os::parent_of(file_.path()), format_bytes(*free)),
                "name a file elsewhere: --to FILE");
  }
  Status take(std::string_view bytes) {
    ZX_TRY(check_.feed(bytes));
    hash_.feed(bytes);
    ZX_TRY(file_.write(bytes));
    bytes_ += bytes.size();
    if (feeder_ != nullptr) {
      feeder_->written(bytes_);
      if (feeder_->has_ended()) ZX_TRY(why_not_loaded());
    }
    if (options_.progress && since(told_) >= kTell) {
      options_.progress(bytes_);
      told_ = monotonic_now();
    }
    return {};
  }
  Status finish() {
    ZX_TRY(check_.finish());
    if (feeder_ == nullptr) return {};
    feeder_->all_written();
    while (!feeder_->has_ended()) {
      if (const auto signal = os::interruption()) return fail(*signal);
      ZX_TRY(throwaway_->alive());
      if (options_.until.passed())
        return fail(Code::timeout, "the copy was not loaded by the deadline");
      pause_for(kLook);
    }
    return why_not_loaded();
  }
  [[nodiscard]] const RdbSummary& summary() const { return check_.summary(); }
  [[nodiscard]] std::string sha256() { return hash_.hex(); }

 private:
  // The server's own words say more than that it stopped reading.
  Status why_not_loaded() {
    const auto fed = feeder_->status();
    if (fed) return {};
    const auto soon = Deadline::after(Millis(2000));
    while (fed.error().code == Code::failed && !soon.passed()) {
      ZX_TRY(throwaway_->alive());
      pause_for(kLook);
    }
    return fed;
  }

  os::NewFile& file_;
  RdbFeeder* feeder_;
  Throwaway* throwaway_;
  const BackupOptions& options_;
  RdbCheck check_;
  os::Sha256 hash_;
  std::uint64_t bytes_ = 0;
  Monotonic told_ = monotonic_now();
};

Status compare(const RdbSummary& summary, const RdbContent& content) {
  // A server drops the keys whose time has passed.
  const auto keys = static_cast<std::uint64_t>(content.keys);
  if (keys <= summary.keys && keys + summary.expires >= summary.keys) return {};
  return fail(
      Code::failed,
      fmt::format("the copy has {} keys, and a server that loaded it has {}", summary.keys, keys),
      "this copy cannot be used; take another");
}

CopyRecord record_of(const BackupOptions& options, const RdbSummary& summary,
                     const std::optional<RdbContent>& content, const std::string& sha256) {
  CopyRecord record;
  record.sha256 = sha256;
  record.bytes = summary.bytes;
  record.keys = summary.keys;
  record.expires = summary.expires;
  record.deployment = options.deployment;
  record.node = options.node;
  if (content) record.digest = content->digest;
  record.replid = note_of(summary, "repl-id");
  record.offset = number_of(note_of(summary, "repl-offset"));
  record.server_version = note_of(summary, "redis-ver");
  record.taken = wall_now();
  return record;
}

}  // namespace

std::string record_path(const std::string& file) { return file + ".json"; }

Json to_json(const CopyRecord& record) {
  const auto text = [](const std::string& value) { return value.empty() ? Json() : Json(value); };
  return Json{{"schema", 1},
              {"sha256", record.sha256},
              {"bytes", record.bytes},
              {"keys", record.keys},
              {"expires", record.expires},
              {"digest", text(record.digest)},
              {"replid", text(record.replid)},
              {"offset", record.offset ? Json(*record.offset) : Json()},
              {"server_version", text(record.server_version)},
              {"deployment", text(record.deployment)},
              {"node", text(record.node)},
              {"taken", format_utc(record.taken)}};
}

Result<CopyRecord> record_from_json(const Json& json) {
  CopyRecord record;
  record.sha256 = get_string(json, "sha256");
  if (get_int(json, "schema") != 1)
    return fail(Code::failed, "it is of another form than this zx knows",
                "use the version of zx that took it");
  if (record.sha256.size() != 64 || get_int(json, "bytes", -1) < 0 || get_int(json, "keys", -1) < 0)
    return fail(Code::failed, "it lacks one of sha256, bytes and keys");
  record.bytes = static_cast<std::uint64_t>(get_int(json, "bytes"));
  record.keys = static_cast<std::uint64_t>(get_int(json, "keys"));
  record.expires = static_cast<std::uint64_t>(std::max<std::int64_t>(0, get_int(json, "expires")));
  record.digest = get_string(json, "digest");
  record.replid = get_string(json, "replid");
  if (get_object(json, "offset").is_number_integer()) record.offset = get_int(json, "offset");
  record.server_version = get_string(json, "server_version");
  record.deployment = get_string(json, "deployment");
  record.node = get_string(json, "node");
  record.taken = parse_utc(get_string(json, "taken"));
  return record;
}

namespace {

// A copy that is whole and was loaded, under a name of its own still.
struct Taken {
  os::NewFile file;
  Backup backup;
};
Result<Taken> take(const BackupOptions& options, const RdbSource& source) {
  const auto began = monotonic_now();
  ZX_ASSIGN(auto file, os::NewFile::create(options.file));
  std::optional<Throwaway> throwaway;
  std::optional<RdbFeeder> feeder;
  if (options.load) {
    ZX_ASSIGN(auto started, Throwaway::load_stream(options.throwaway));
    throwaway.emplace(std::move(started));
    feeder.emplace(file.get(), throwaway->stream());
  }
  Pass pass(file, feeder ? &*feeder : nullptr, throwaway ? &*throwaway : nullptr, options);
  ZX_ASSIGN(const auto pulled, source([&](std::uint64_t length) { return pass.on_length(length); },
                                      [&](std::string_view bytes) { return pass.take(bytes); }));
  Backup backup;
  backup.streamed = since(began);
  backup.waited = pulled.waited;
  ZX_TRY(pass.finish());
  backup.summary = pass.summary();
  if (throwaway) {
    ZX_TRY(throwaway->wait_loaded(options.until));
    ZX_ASSIGN(backup.content, throwaway->content(options.until, options.digest));
    ZX_TRY(compare(backup.summary, *backup.content));
  }
  backup.record = record_of(options, backup.summary, backup.content, pass.sha256());
  feeder.reset();
  return Taken{std::move(file), std::move(backup)};
}

}  // namespace

Result<Backup> take_backup(const BackupOptions& options, const RdbSource& source) {
  const auto began = monotonic_now();
  if (os::exists(options.file))
    return fail(Code::refused, options.file + " exists",
                "nothing is ever overwritten: name another file");
  if (os::exists(record_path(options.file)))
    return fail(Code::refused, record_path(options.file) + " exists",
                "it tells of another copy: name another file");
  ZX_ASSIGN(auto taken, take(options, source));
  auto& backup = taken.backup;
  ZX_TRY(taken.file.publish());
  backup.file = options.file;
  ZX_TRY(os::write_file(record_path(options.file), dump_pretty(to_json(backup.record)) + "\n"));
  backup.took = since(began);
  return std::move(backup);
}

Result<RdbContent> content_of(const ThrowawayOptions& throwaway, const std::string& directory,
                              const RdbSource& source, Deadline until) {
  BackupOptions options;
  options.file = directory + "/redis-content";
  options.throwaway = throwaway;
  options.digest = true;
  options.until = until;
  ZX_ASSIGN(const auto taken, take(options, source));
  return *taken.backup.content;
}

RdbSource saved_file(const std::string& path) {
  return [path](const std::function<Status(std::uint64_t)>& on_length,
                const RdbSink& sink) -> Result<Pulled> {
    const auto began = monotonic_now();
    // Not waiting for a writer, as of a FIFO.
    const os::Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat found {};
    if (!file || fstat(file.get(), &found) != 0)
      return fail(errno_error(errno == ENOENT   ? Code::not_found
                              : errno == EACCES ? Code::auth
                                                : Code::io,
                              "cannot read " + path, errno));
    if (!S_ISREG(found.st_mode))
      return fail(Code::io, path + " is not a regular file",
                  "a copy is read more than once: name the file itself");
    Pulled pulled;
    pulled.was_announced = true;
    if (on_length) ZX_TRY(on_length(static_cast<std::uint64_t>(found.st_size)));
    std::vector<char> buffer(kBuffer);
    while (true) {
      if (const auto signal = os::interruption()) return fail(*signal);
      const auto got = read(file.get(), buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(errno_error(Code::io, "cannot read " + path, errno));
      if (got == 0) break;
      pulled.bytes += static_cast<std::uint64_t>(got);
      ZX_TRY(sink({buffer.data(), static_cast<std::size_t>(got)}));
    }
    pulled.took = since(began);
    return pulled;
  };
}

namespace {

Result<CopyRecord> read_record(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored))
    return fail(Code::io, path + " is not a regular file");
  ZX_ASSIGN(const auto text, os::read_file(path, kMostRecord));
  ZX_ASSIGN(const auto json, parse_json(text, path));
  auto record = record_from_json(json);
  if (record) return record;
  auto error = record.error();
  error.message = path + ": " + error.message;
  return fail(std::move(error));
}

}  // namespace

Result<CheckedFile> check_file(const std::string& file) {
  RdbCheck check;
  os::Sha256 hash;
  const auto of_file = [&](Status status) -> Status {
    if (status) return status;
    auto error = status.error();
    error.message = file + " is " + error.message;
    return fail(std::move(error));
  };
  const auto read = saved_file(file)({}, [&](std::string_view bytes) {
    hash.feed(bytes);
    return of_file(check.feed(bytes));
  });
  if (!read) {
    auto error = read.error();
    if (error.code == Code::not_found && error.hint.empty())
      error.hint =
          "name a file that zx redis backup wrote: without --to it is in backups/redis below "
          "platform.state_dir";
    return fail(std::move(error));
  }
  ZX_TRY(of_file(check.finish()));
  CheckedFile checked{check.summary(), hash.hex(), std::nullopt};
  if (!os::exists(record_path(file))) return checked;
  const auto record = read_record(record_path(file));
  if (!record) {
    auto error = record.error();
    if (error.hint.empty())
      error.hint =
          "it is what zx redis backup wrote of the copy: put it back, or take it away, and "
          "the copy alone is checked";
    return fail(std::move(error));
  }
  checked.record = *record;
  if (checked.record->sha256 == checked.sha256) return checked;
  return fail(
      Code::failed,
      fmt::format("{} is not the file that {} tells of: another SHA-256", file, record_path(file)),
      "it was changed or mixed up since it was taken; use another copy");
}

}  // namespace zx::redis
