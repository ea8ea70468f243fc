#include "lib/backup/prune.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Of the regular files below; nothing is followed. A file that cannot be looked at counts nothing:
// it is a figure for people.
std::uint64_t bytes_below(const std::string& path) {
  std::uint64_t sum = 0;
  std::error_code wrong;
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) return 0;
  for (fs::recursive_directory_iterator walk(path, wrong), end; !wrong && walk != end;
       walk.increment(wrong))
    if (lstat(walk->path().c_str(), &found) == 0 && S_ISREG(found.st_mode))
      sum += static_cast<std::uint64_t>(found.st_size);
  return sum;
}

// The archives stay, as sweep() has it, while the needs of one remaining set are not known.
std::uint64_t freed_by(const Repository& repository, const Pruned& pruned) {
  std::uint64_t freed = 0;
  bool is_known = true;
  std::set<std::string> needed;
  std::map<std::string, std::uint64_t> dropped;
  for (const auto& entry : pruned.entries) {
    const bool goes = contains(pruned.deleted, entry.id);
    if (goes) freed += bytes_below(repository.set_path(entry.id));
    if (!entry.set) {
      is_known = false;
      continue;
    }
    for (const auto& object : entry.set->objects()) {
      if (!object.path.starts_with("archives/")) continue;
      if (goes)
        dropped[object.path] = object.bytes;
      else
        needed.insert(object.path);
    }
  }
  if (!is_known) return freed;
  for (const auto& [path, bytes] : dropped)
    if (!needed.contains(path)) freed += bytes;
  return freed;
}

void warn(Pruned& pruned) {
  std::vector<std::string> unread;
  for (std::size_t i = 0; i < pruned.entries.size(); ++i) {
    const auto& entry = pruned.entries[i];
    if (pruned.decisions[i].is_odd)
      pruned.warnings.push_back(
          fmt::format("{}: {}", entry.id, pruned.decisions[i].reasons.front()));
    if (!entry.set) unread.push_back(entry.id);
  }
  if (!unread.empty())
    pruned.warnings.push_back(
        "no archive of files is deleted while it is not known what is needed by " +
        join(unread, ", "));
}

Result<Pruned> decide_all(const Repository& repository, const config::Backup& policy, Wall now) {
  Pruned pruned;
  ZX_ASSIGN(pruned.entries, repository.sets());
  std::vector<Candidate> candidates;
  for (const auto& entry : pruned.entries) candidates.push_back(candidate_of(entry));
  pruned.decisions = decide(candidates, policy, now);
  for (const auto& decision : pruned.decisions)
    if (!decision.is_kept) pruned.deleted.push_back(decision.id);
  warn(pruned);
  return pruned;
}

Result<os::Descriptor> open_directory(const std::string& path) {
  os::Descriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (directory) return directory;
  if (errno == ELOOP || errno == ENOTDIR)
    return fail(Code::refused, path + " is no directory, or a symbolic link",
                "in a repository nothing is followed that somebody may have put there");
  const auto code = errno == EACCES ? Code::auth : Code::io;
  return fail(errno_error(code, "cannot open " + path, errno));
}

Status sync(const os::Descriptor& directory, const std::string& path) {
  if (fsync(directory.get()) != 0)
    return fail(errno_error(Code::io, "cannot sync the directory " + path, errno));
  return {};
}

// The first phase, the oldest first: killed in the middle, the newer ones are left. What was moved
// when it fails stays moved, and the next prune removes it.
Status move_to_trash(const Repository& repository, const std::vector<std::string>& ids) {
  const auto sets = repository.path() + "/sets";
  ZX_ASSIGN(const auto from, open_directory(sets));
  ZX_ASSIGN(const auto to, open_directory(repository.trash_path()));
  for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
    if (!is_run_id(*id)) return fail(Code::internal, "no id of a set: " + *id);
    if (auto interruption = os::interruption()) {
      interruption->hint = "every set is there whole or not at all; run it again for the rest";
      return fail(*std::move(interruption));
    }
    if (renameat(from.get(), id->c_str(), to.get(), id->c_str()) != 0)
      return fail(errno_error(errno == EACCES || errno == EROFS ? Code::auth : Code::io,
                              fmt::format("cannot move {}/{} to the trash", sets, *id), errno));
  }
  ZX_TRY(sync(to, repository.trash_path()));
  return sync(from, sets);
}

struct Locks {
  RepositoryLock writing, deleting;
};

// Both or none: a backup need not wait for the readers that a prune waits for.
Result<Locks> take_both(const Repository& repository) {
  ZX_ASSIGN(auto writing, repository.lock_to_write("zx backup prune"));
  ZX_ASSIGN(auto deleting, repository.lock_to_delete());
  return Locks{std::move(writing), std::move(deleting)};
}

}  // namespace

Result<Pruned> plan_prune(const Repository& repository, const config::Backup& policy, Wall now,
                          const LockWait& wait) {
  ZX_ASSIGN(const auto reading, take_patiently(wait, [&] { return repository.lock_to_read(); }));
  ZX_ASSIGN(auto pruned, decide_all(repository, policy, now));
  pruned.freed = freed_by(repository, pruned);
  return pruned;
}

Result<Pruned> prune(const Repository& repository, const config::Backup& policy, Wall now,
                     const std::vector<std::string>& agreed, const LockWait& wait) {
  ZX_ASSIGN(const auto locks, take_patiently(wait, [&] { return take_both(repository); }));
  ZX_ASSIGN(const auto finished, repository.sweep(locks.writing));
  ZX_ASSIGN(auto pruned, decide_all(repository, policy, now));
  pruned.finished = finished;
  std::erase_if(pruned.deleted, [&](const std::string& id) { return !contains(agreed, id); });
  if (pruned.deleted.empty()) return pruned;
  pruned.freed = freed_by(repository, pruned);
  ZX_TRY(locks.writing.is_held());
  ZX_TRY(locks.deleting.is_held());
  ZX_TRY(move_to_trash(repository, pruned.deleted));
  ZX_TRY(repository.sweep(locks.writing));
  return pruned;
}

}  // namespace zx::backup
