#include "lib/redis/place_rdb.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <vector>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/files.h"
#include "lib/os/sha256.h"
#include "lib/os/signals.h"
#include "lib/redis/rdb_check.h"

namespace zx::redis {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostConfig = 4u << 20;
constexpr std::size_t kBuffer = 1u << 18;
constexpr Millis kLook{100};  // how often a wait asks whether zx was interrupted

std::string kept_name(const std::string& path, const std::string& run) {
  return path + ".zx-before-" + run;
}

std::string unquoted(std::string_view text) {
  text = trim(text);
  const bool is_quoted = text.size() >= 2 && (text.front() == '"' || text.front() == '\'') &&
                         text.back() == text.front();
  return std::string(is_quoted ? text.substr(1, text.size() - 2) : text);
}

// A name as a manifest has it, whose words end at spaces (aof.c).
std::string quoted(const std::string& name) {
  const auto is_usual = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' || c == '_';
  };
  if (std::all_of(name.begin(), name.end(), is_usual)) return name;
  std::string out = "\"";
  for (const char c : name)
    out +=
        is_usual(c) ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return out + "\"";
}

// A name inside the data directory, and not a way out of it.
bool is_plain(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

Status is_down(const ServerDir& dir) {
  ZX_ASSIGN(const auto processes, server_processes(dir));
  if (processes.empty()) return {};
  return fail(Code::refused, fmt::format("{} runs, as process {}", dir.node, processes.front().pid),
              "stop it, or restore it while it serves");
}

Result<DataFiles> files_of(const ServerDir& dir) {
  if (dir.config_file.empty())
    return fail(Code::config, fmt::format("the configuration file of {} is not known", dir.node),
                "set config_file of the node in zx.toml: it says whether the server reads an "
                "append-only file");
  ZX_ASSIGN(const auto text, os::read_file(dir.config_file, kMostConfig));
  const auto files = data_files_in(text);
  for (const auto* name : {&files.dbfilename, &files.appenddirname, &files.appendfilename})
    if (!is_plain(*name))
      return fail(Code::config, fmt::format("{} names a data file with a path: {}", dir.config_file,
                                            clean_utf8(*name)));
  return files;
}

// Stands for what was kept when there was nothing.
std::string none_name(const std::string& path, const std::string& run) {
  return kept_name(path, run) + ".none";
}

Status remove_all(const std::string& path) {
  std::error_code code;
  fs::remove_all(path, code);
  if (code) return fail(Code::io, fmt::format("cannot remove {}: {}", path, code.message()));
  return {};
}

Status move_aside(const std::string& path, const std::string& run) {
  const auto kept = kept_name(path, run);
  // Of an earlier attempt: what is at `path` now is that attempt's own.
  if (os::exists(kept) || os::exists(none_name(path, run))) return remove_all(path);
  if (!os::exists(path)) return os::write_file(none_name(path, run), "");
  if (::rename(path.c_str(), kept.c_str()) != 0)
    return fail(errno_error(Code::io, "cannot move " + path, errno));
  return os::sync_directory(os::parent_of(path));
}

std::string part_path(const ServerDir& dir, const std::string& run) {
  return dir.path + "/zx-restore-" + run + ".rdb";
}

// Whole, durable and the owner's, under a name that no server looks at. Nothing stays of another.
Status write_part(const std::string& part, const RdbSource& source, const std::string& sha256,
                  const os::Owner& owner) {
  const auto write_all = [&]() -> Status {
    ZX_TRY(os::remove_file(part));  // of an earlier attempt
    const os::Descriptor out(
        open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!out) return fail(errno_error(Code::io, "cannot write " + part, errno));
    os::Sha256 hash;
    RdbCheck check;
    const auto has_room = [&](std::uint64_t length) -> Status {
      const auto free = os::free_space(os::parent_of(part));
      if (!free || *free >= length) return {};
      return fail(Code::disk_full,
                  fmt::format("the copy has {}, and {} has {} free", format_bytes(length),
                              os::parent_of(part), format_bytes(*free)),
                  "what is there now is kept beside it: make room for both");
    };
    const auto take = [&](std::string_view bytes) -> Status {
      hash.feed(bytes);
      ZX_TRY(check.feed(bytes));
      while (!bytes.empty()) {
        const auto put = ::write(out.get(), bytes.data(), bytes.size());
        if (put < 0 && errno == EINTR) continue;
        if (put < 0)
          return fail(errno_error(errno == ENOSPC ? Code::disk_full : Code::io,
                                  "cannot write " + part, errno));
        bytes.remove_prefix(static_cast<std::size_t>(put));
      }
      return {};
    };
    ZX_TRY(source(has_room, take));
    ZX_TRY(check.finish());
    if (hash.hex() != sha256)
      return fail(Code::failed, "it is not the file that was looked at: another SHA-256",
                  "it was changed meanwhile; run it again with a copy that nobody changes");
    if (geteuid() == 0 && fchown(out.get(), owner.uid, owner.gid) != 0)
      return fail(errno_error(Code::io, "cannot give " + part + " to the server's user", errno));
    if (fsync(out.get()) != 0) return fail(errno_error(Code::io, "cannot write " + part, errno));
    return {};
  };
  auto status = write_all();
  if (!status) ::unlink(part.c_str());
  return status;
}

Status publish(const std::string& part, const std::string& to) {
  if (::rename(part.c_str(), to.c_str()) != 0)
    return fail(errno_error(Code::io, "cannot publish " + to, errno));
  return os::sync_directory(os::parent_of(to));
}

Status put_back(const std::string& path, const std::string& run) {
  const auto kept = kept_name(path, run);
  if (os::exists(none_name(path, run))) {
    ZX_TRY(remove_all(path));
    return os::remove_file(none_name(path, run));
  }
  if (!os::exists(kept)) return {};  // nothing was begun
  ZX_TRY(remove_all(path));
  if (::rename(kept.c_str(), path.c_str()) != 0)
    return fail(errno_error(Code::io, "cannot put back " + path, errno));
  return os::sync_directory(os::parent_of(path));
}

}  // namespace

DataFiles data_files_in(std::string_view config) {
  DataFiles files;
  for (const auto& raw : split(config, '\n')) {
    const auto line = trim(raw);
    const auto space = line.find_first_of(" \t");
    if (line.empty() || line.front() == '#' || space == std::string_view::npos) continue;
    const auto name = lower(line.substr(0, space));
    const auto value = unquoted(line.substr(space));
    if (name == "appendonly") files.aof = lower(value) == "yes";
    if (name == "dbfilename") files.dbfilename = value;
    if (name == "appenddirname") files.appenddirname = value;
    if (name == "appendfilename") files.appendfilename = value;
  }
  return files;
}

RdbSource carried_file(int descriptor, std::uint64_t bytes, Deadline deadline) {
  return [=](const std::function<Status(std::uint64_t)>& on_length,
             const RdbSink& sink) -> Result<Pulled> {
    const auto began = monotonic_now();
    Pulled pulled;
    pulled.was_announced = true;
    if (on_length) ZX_TRY(on_length(bytes));
    std::vector<char> buffer(kBuffer);
    while (pulled.bytes < bytes) {
      if (const auto signal = os::interruption()) return fail(*signal);
      if (deadline.passed())
        return fail(Code::timeout, fmt::format("of the {} bytes of the copy {} came in time", bytes,
                                               pulled.bytes));
      pollfd watched{descriptor, POLLIN, 0};
      const auto wait = std::min(deadline.left(), kLook);
      if (::poll(&watched, 1, static_cast<int>(wait.count())) <= 0) continue;
      const auto got = ::read(descriptor, buffer.data(),
                              std::min<std::uint64_t>(buffer.size(), bytes - pulled.bytes));
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got < 0) return fail(errno_error(Code::io, "cannot read the copy from stdin", errno));
      if (got == 0)
        return fail(Code::failed,
                    fmt::format("of the {} bytes of the copy {} came", bytes, pulled.bytes));
      pulled.bytes += static_cast<std::uint64_t>(got);
      ZX_TRY(sink({buffer.data(), static_cast<std::size_t>(got)}));
    }
    pulled.took = since(began);
    return pulled;
  };
}

Result<Placed> place_rdb(const ServerDir& dir, const RdbSource& source, const std::string& sha256,
                         const std::string& run) {
  ZX_TRY(is_down(dir));
  ZX_ASSIGN(const auto files, files_of(dir));
  ZX_ASSIGN(const auto owner, os::owner_of(dir.path));
  Placed placed;
  placed.aof = files.aof;
  const auto top = dir.path + "/" + (files.aof ? files.appenddirname : files.dbfilename);
  const auto part = part_path(dir, run);
  ZX_TRY(write_part(part, source, sha256, owner));
  ZX_TRY(move_aside(top, run));
  if (os::exists(kept_name(top, run))) placed.kept.push_back(kept_name(top, run));
  if (!files.aof) {
    placed.path = top;
    ZX_TRY(publish(part, top));
    return placed;
  }
  if (mkdir(top.c_str(), 0755) != 0 && errno != EEXIST)
    return fail(errno_error(Code::io, "cannot make " + top, errno));
  if (geteuid() == 0 && chown(top.c_str(), owner.uid, owner.gid) != 0)
    return fail(errno_error(Code::io, "cannot give " + top + " to the server's user", errno));
  const auto base = files.appendfilename + ".1.base.rdb";
  placed.path = top + "/" + base;
  ZX_TRY(publish(part, placed.path));
  os::WriteOptions options;
  options.mode = 0644;
  options.owner = owner;
  // The manifest last: without it there is no append-only file.
  ZX_TRY(os::write_file(top + "/" + files.appendfilename + ".manifest",
                        fmt::format("file {} seq 1 type b\n", quoted(base)), options));
  ZX_TRY(os::sync_directory(dir.path));
  return placed;
}

Status unplace_rdb(const ServerDir& dir, const std::string& run) {
  ZX_TRY(is_down(dir));
  ZX_ASSIGN(const auto files, files_of(dir));
  ZX_TRY(os::remove_file(part_path(dir, run)));
  return put_back(dir.path + "/" + (files.aof ? files.appenddirname : files.dbfilename), run);
}

Result<std::vector<std::string>> forget_placed(const ServerDir& dir, const std::string& run) {
  ZX_ASSIGN(const auto files, files_of(dir));
  std::vector<std::string> removed;
  for (const auto* name : {&files.dbfilename, &files.appenddirname}) {
    const auto path = dir.path + "/" + *name;
    ZX_TRY(os::remove_file(none_name(path, run)));
    if (!os::exists(kept_name(path, run))) continue;
    ZX_TRY(remove_all(kept_name(path, run)));
    removed.push_back(kept_name(path, run));
  }
  ZX_TRY(os::sync_directory(dir.path));
  return removed;
}

}  // namespace zx::redis
