#include "lib/redis/place_rdb.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/files.h"
#include "lib/redis/backup.h"
#include "lib/redis/rdb_check.h"
#include "lib/redis/sha256.h"

namespace zx::redis {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostConfig = 4u << 20;

std::string kept_name(const std::string& path, const std::string& run) {
  return path + ".zx-before-" + run;
}

std::string unquoted(std::string_view text) {
  text = trim(text);
  const bool is_quoted = text.size() >= 2 && (text.front() == '"' || text.front() == '\'') &&
                         text.back() == text.front();
  return std::string(is_quoted ? text.substr(1, text.size() - 2) : text);
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

// Written as the directory's owner; made known by its last name only when it is whole.
Status copy_checked(const std::string& from, const std::string& to, const std::string& sha256,
                    const os::Owner& owner) {
  const auto part = to + ".zx-part";
  const auto write_all = [&]() -> Status {
    const os::Descriptor out(
        open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!out) return fail(errno_error(Code::io, "cannot write " + part, errno));
    Sha256 hash;
    RdbCheck check;
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
    ZX_TRY(saved_file(from)({}, take));
    ZX_TRY(check.finish());
    if (hash.hex() != sha256)
      return fail(Code::failed, from + " is not the file that was looked at: another SHA-256",
                  "the same file must be at the same place on the server's host");
    if (geteuid() == 0 && fchown(out.get(), owner.uid, owner.gid) != 0)
      return fail(errno_error(Code::io, "cannot give " + part + " to the server's user", errno));
    if (fsync(out.get()) != 0) return fail(errno_error(Code::io, "cannot write " + part, errno));
    if (::rename(part.c_str(), to.c_str()) != 0)
      return fail(errno_error(Code::io, "cannot publish " + to, errno));
    return os::sync_directory(os::parent_of(to));
  };
  auto status = write_all();
  if (!status) ::unlink(part.c_str());
  return status;
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

Result<Placed> place_rdb(const ServerDir& dir, const std::string& file, const std::string& sha256,
                         const std::string& run) {
  ZX_TRY(is_down(dir));
  ZX_ASSIGN(const auto files, files_of(dir));
  ZX_ASSIGN(const auto owner, os::owner_of(dir.path));
  Placed placed;
  placed.aof = files.aof;
  const auto top = dir.path + "/" + (files.aof ? files.appenddirname : files.dbfilename);
  // What cannot be read must not cost what is there.
  if (!os::exists(file))
    return fail(Code::not_found, fmt::format("there is no {} on the host of {}", file, dir.node),
                "copy it there, to the same place");
  ZX_TRY(move_aside(top, run));
  if (os::exists(kept_name(top, run))) placed.kept.push_back(kept_name(top, run));
  if (!files.aof) {
    placed.path = top;
    ZX_TRY(copy_checked(file, top, sha256, owner));
    return placed;
  }
  if (mkdir(top.c_str(), 0755) != 0 && errno != EEXIST)
    return fail(errno_error(Code::io, "cannot make " + top, errno));
  if (geteuid() == 0 && chown(top.c_str(), owner.uid, owner.gid) != 0)
    return fail(errno_error(Code::io, "cannot give " + top + " to the server's user", errno));
  const auto base = files.appendfilename + ".1.base.rdb";
  placed.path = top + "/" + base;
  ZX_TRY(copy_checked(file, placed.path, sha256, owner));
  os::WriteOptions options;
  options.mode = 0644;
  options.owner = owner;
  // The manifest last: without it there is no append-only file.
  ZX_TRY(os::write_file(top + "/" + files.appendfilename + ".manifest",
                        fmt::format("file {} seq 1 type b\n", base), options));
  ZX_TRY(os::sync_directory(dir.path));
  return placed;
}

Status unplace_rdb(const ServerDir& dir, const std::string& run) {
  ZX_TRY(is_down(dir));
  ZX_ASSIGN(const auto files, files_of(dir));
  return put_back(dir.path + "/" + (files.aof ? files.appenddirname : files.dbfilename), run);
}

}  // namespace zx::redis
