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

#include "lib/backup/repository_owner.h"
#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;

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

struct Freed {
  std::uint64_t sets = 0, archives = 0;
};

// By those that are to be deleted, while no archive is kept for what is not known.
Freed freed_by(const Repository& repository, const Pruned& pruned) {
  Freed freed;
  std::set<std::string> needed;
  std::map<std::string, std::uint64_t> dropped;
  for (const auto& entry : pruned.entries) {
    const bool goes = contains(pruned.deleted, entry.id);
    if (goes) freed.sets += bytes_below(repository.set_path(entry.id));
    if (!entry.set) continue;
    for (const auto& object : entry.set->objects()) {
      if (!object.path.starts_with("archives/")) continue;
      if (goes)
        dropped[object.path] = object.bytes;
      else
        needed.insert(object.path);
    }
  }
  for (const auto& [path, bytes] : dropped)
    if (!needed.contains(path)) freed.archives += bytes;
  return freed;
}

// Whoever may need archives that nobody knows of: as sweep() has it, all of them stay then.
Result<std::vector<std::string>> unread_sets(const Repository& repository,
                                             const std::vector<Entry>& entries) {
  ZX_ASSIGN(const auto folder, repository.open_folder("sets"));
  ZX_ASSIGN(const auto names, names_of(folder, repository.path() + "/sets"));
  std::vector<std::string> unread;
  for (const auto& entry : entries)
    if (!entry.set) unread.push_back(entry.id);
  for (const auto& name : names)
    if (!is_run_id(name)) unread.push_back("sets/" + clean_utf8(first_line(name)));
  return unread;
}

void warn(Pruned& pruned, const std::vector<std::string>& unread) {
  for (std::size_t i = 0; i < pruned.entries.size(); ++i) {
    const auto& entry = pruned.entries[i];
    if (pruned.decisions[i].is_odd)
      pruned.warnings.push_back(
          fmt::format("{}: {}", entry.id, pruned.decisions[i].reasons.front()));
  }
  if (!unread.empty())
    pruned.warnings.push_back(
        "no archive of files is deleted while it is not known what is needed by " +
        join(unread, ", "));
}

struct Decided {
  Pruned pruned;
  bool do_archives_stay = false;

  // What a sweep has to say, once.
  void take_over(const Repository::Swept& swept) {
    for (const auto& warning : swept.warnings)
      if (!contains(pruned.warnings, warning)) pruned.warnings.push_back(warning);
    if (!swept.archives_stay.empty() && !std::exchange(do_archives_stay, true))
      pruned.warnings.push_back("no archive is deleted: " + swept.archives_stay);
  }
};

Result<Decided> decide_all(const Repository& repository, const config::Backup& policy, Wall now) {
  Decided decided;
  auto& pruned = decided.pruned;
  ZX_ASSIGN(pruned.entries, repository.sets());
  std::vector<Candidate> candidates;
  for (const auto& entry : pruned.entries) candidates.push_back(candidate_of(entry));
  pruned.decisions = decide(candidates, policy, now);
  for (const auto& decision : pruned.decisions)
    if (!decision.is_kept) pruned.deleted.push_back(decision.id);
  ZX_ASSIGN(const auto unread, unread_sets(repository, pruned.entries));
  decided.do_archives_stay = !unread.empty();
  warn(pruned, unread);
  return decided;
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
  ZX_ASSIGN(const auto from, repository.open_folder("sets"));
  ZX_ASSIGN(const auto to, repository.open_folder("trash"));
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

// What was found in sets that go is remembered by those that stay and need the same archives. A set
// that is the only one to tell stays.
void hand_on_damage(const Repository& repository, Pruned& pruned) {
  const auto hand_on_to = [&](const Entry& entry) {
    bool is_kept = true;
    for (const auto& failure : believed(*entry.set, entry.checks).failures) {
      if (!contains(pruned.deleted, failure.found_in)) continue;
      const auto kept = repository.remember(entry.id, failure);
      if (kept && !kept->empty()) pruned.warnings.push_back(*kept);
      if (kept) continue;
      pruned.warnings.push_back(
          fmt::format("{} is not deleted: {} shares its damage and cannot "
                      "remember it: {}",
                      failure.found_in, entry.id, kept.error().message));
      std::erase(pruned.deleted, failure.found_in);
      is_kept = false;
    }
    return is_kept;
  };
  // One that stays after all may be told of by another that goes.
  for (bool is_done = false; !is_done;) {
    is_done = true;
    for (const auto& entry : pruned.entries)
      if (entry.set && !contains(pruned.deleted, entry.id) && !hand_on_to(entry)) is_done = false;
  }
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
  ZX_ASSIGN(auto decided, decide_all(repository, policy, now));
  auto& pruned = decided.pruned;
  const auto freed = freed_by(repository, pruned);
  pruned.freed = freed.sets + (decided.do_archives_stay ? 0 : freed.archives);
  return std::move(pruned);
}

Result<Pruned> prune(const Repository& repository, const config::Backup& policy, Wall now,
                     const std::vector<std::string>& agreed, const LockWait& wait) {
  ZX_ASSIGN(const auto locks, take_patiently(wait, [&] { return take_both(repository); }));
  ZX_ASSIGN(const auto finished, repository.sweep(locks.writing));
  ZX_ASSIGN(auto decided, decide_all(repository, policy, now));
  auto& pruned = decided.pruned;
  decided.take_over(finished);
  pruned.finished = finished;
  std::erase_if(pruned.deleted, [&](const std::string& id) { return !contains(agreed, id); });
  hand_on_damage(repository, pruned);
  if (pruned.deleted.empty()) return std::move(pruned);
  const auto freed = freed_by(repository, pruned);
  ZX_TRY(locks.writing.is_held());
  ZX_TRY(locks.deleting.is_held());
  ZX_TRY(move_to_trash(repository, pruned.deleted));
  ZX_ASSIGN(const auto swept, repository.sweep(locks.writing));
  decided.take_over(swept);
  pruned.freed = freed.sets + (decided.do_archives_stay ? 0 : freed.archives);
  return std::move(pruned);
}

}  // namespace zx::backup
