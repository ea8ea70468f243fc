// What killed runs left in a repository, and what no set needs any more, goes.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include <fmt/format.h>

#include "lib/backup/removal.h"
#include "lib/backup/repository.h"
#include "lib/backup/repository_owner.h"
#include "lib/base/ids.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

Result<os::Descriptor> open_in(const os::Descriptor& above, const std::string& name,
                               const std::string& path) {
  os::Descriptor directory(
      openat(above.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (directory) return directory;
  if (errno == ELOOP || errno == ENOTDIR)
    return fail(Code::refused, path + " is a symbolic link, or no directory",
                "in a repository nothing is followed that somebody may have put there");
  return fail(repository_error("open", path, errno));
}

Error cannot_remove(const std::string& path, int number) {
  return repository_error("remove", path, number);
}

Status unlink_in(const os::Descriptor& folder, const std::string& name, const std::string& path) {
  if (unlinkat(folder.get(), name.c_str(), 0) == 0 || errno == ENOENT) return {};
  return fail(cannot_remove(path + "/" + name, errno));
}

// One name that does not go (a file that a client of NFS holds, a directory that somebody made)
// stops no backup. A disk on which nothing can be removed does. False: it stays.
Result<bool> is_removed(const Status& removed, std::vector<std::string>& warnings) {
  if (removed) return true;
  const auto& error = removed.error();
  if (error.code == Code::disk_full || error.code == Code::auth) return fail(error);
  warnings.push_back(error.message);
  return false;
}

}  // namespace

Result<os::Descriptor> Repository::open_folder(const std::string& name) const {
  const os::Descriptor root(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) return fail(repository_error("open", path_, errno));
  return open_in(root, name, path_ + "/" + name);
}

Result<Repository::Swept> Repository::sweep(const RepositoryLock& writing) const {
  ZX_TRY(writing.is_held());
  Swept swept;
  for (const std::string name : {"incoming", "trash"}) {
    const auto path = path_ + "/" + name;
    ZX_ASSIGN(const auto folder, open_folder(name));
    ZX_ASSIGN(const auto names, names_of(folder, path));
    for (const auto& one : names) {
      const auto removed = remove_in(folder, one, path + "/" + one, cannot_remove);
      ZX_ASSIGN(const bool is_gone, is_removed(removed, swept.warnings));
      swept.runs += is_gone && name == "incoming" ? 1 : 0;
    }
  }
  const auto path = path_ + "/sets";
  ZX_ASSIGN(const auto folder, open_folder("sets"));
  ZX_ASSIGN(const auto names, names_of(folder, path));
  std::vector<std::string> ids, others;
  for (const auto& name : names) (is_run_id(name) ? ids : others).push_back(name);
  ZX_TRY(sweep_checks(ids, swept));
  if (!others.empty()) {
    swept.archives_stay =
        fmt::format("sets/{} is no name of a set, and may need some", first_line(others.front()));
    return swept;
  }
  ZX_TRY(writing.is_held());
  ZX_TRY(sweep_archives(ids, swept));
  return swept;
}

// What a verification left that was killed while it wrote.
Status Repository::sweep_checks(const std::vector<std::string>& ids, Swept& swept) const {
  const auto checking = lock(RepositoryLock::Byte::checks);
  if (!checking && checking.error().code == Code::locked) return {};  // one writes just now
  if (!checking) return fail(checking.error());
  ZX_ASSIGN(const auto sets_folder, open_folder("sets"));
  for (const auto& id : ids) {
    const auto folder = open_in(sets_folder, id, set_path(id));
    const auto names = folder ? names_of(*folder, set_path(id)) : fail(folder.error());
    if (!names) continue;  // whoever reads the set says why
    for (const auto& name : *names)
      if (name.starts_with("trust.json.tmp-"))
        ZX_TRY(is_removed(unlink_in(*folder, name, set_path(id)), swept.warnings));
  }
  return {};
}

// Those that no set refers to. `ids`: all the sets that are there.
Status Repository::sweep_archives(const std::vector<std::string>& ids, Swept& swept) const {
  ZX_ASSIGN(const auto entries, sets());
  const auto stop = [&](const std::string& id, const std::string& why) {
    swept.archives_stay = fmt::format("what {} needs is not known, {}", id, why);
    return Status();
  };
  std::set<std::string> known, needed;
  for (const auto& entry : entries) {
    if (!entry.set) return stop(entry.id, entry.set.error().message);
    known.insert(entry.id);
    for (const auto& object : entry.set->objects()) needed.insert(object.path);
  }
  for (const auto& id : ids)
    if (!known.contains(id)) return stop(id, "it was there a moment ago");
  ZX_ASSIGN(const auto folder, open_folder("archives"));
  ZX_ASSIGN(const auto names, names_of(folder, archives_path()));
  for (const auto& name : names) {
    if (needed.contains("archives/" + name)) continue;
    ZX_ASSIGN(const bool is_gone,
              is_removed(unlink_in(folder, name, archives_path()), swept.warnings));
    swept.archives += is_gone ? 1 : 0;
  }
  if (swept.archives > 0 && fsync(folder.get()) != 0)
    return fail(repository_error("sync", archives_path(), errno));
  return {};
}

void Repository::discard(const std::string& id) const {
  if (const auto folder = open_folder("incoming"))
    (void)remove_in(*folder, id, incoming_path(id), cannot_remove);
  const auto folder = open_folder("archives");
  const auto names = folder ? names_of(*folder, archives_path()) : fail(folder.error());
  if (!names) return;
  for (const auto& name : *names)
    if (name.starts_with(id + "-")) (void)unlink_in(*folder, name, archives_path());
}

}  // namespace zx::backup
