#include "lib/backup/repository.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include <fmt/format.h>

#include "lib/backup/damage.h"
#include "lib/backup/object.h"
#include "lib/backup/repository_owner.h"
#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/os/host_name.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKind = "zx-repository";
constexpr const char* kRecord = "/zx-repository.json";
constexpr const char* kManifest = "/manifest.json";
constexpr const char* kSums = "/SHA256SUMS";
constexpr const char* kTrust = "/trust.json";
constexpr std::size_t kLargestManifest = 256u << 20;
constexpr std::size_t kLargestTrust = 32u << 20;
constexpr std::size_t kMostChecks = 100;
constexpr Millis kShortly{10'000};  // for what another writes in a moment

Error not_opened(const Object& object, int number) {
  return says_damage(number) ? unreadable(object, number)
                             : repository_error("open", object.path, number);
}

// Has anything this name? Only ENOENT says that nothing has.
Result<bool> is_named(const std::string& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) == 0) return true;
  if (errno == ENOENT) return false;
  return fail(repository_error("look at", path, errno));
}

// A real directory, no link to one.
Status is_real_directory(const std::string& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) return fail(repository_error("look at", path, errno));
  if (S_ISDIR(found.st_mode)) return {};
  return fail(Code::refused,
              path + (S_ISLNK(found.st_mode) ? " is a symbolic link" : " is no directory"),
              "in a repository nothing is followed that somebody may have put there");
}

Status make_directory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return fail(repository_error("make", path, errno));
  return is_real_directory(path);
}

Result<std::vector<std::string>> names_in(const std::string& path) {
  ZX_TRY(is_real_directory(path));
  const os::Descriptor directory(
      ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!directory) return fail(repository_error("list", path, errno));
  return names_of(directory, path);
}

// Opened without following a link, and read whole.
Result<std::string> read_plain(const std::string& path, std::size_t limit) {
  const os::Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat found {};
  if (!file && errno == ELOOP) return fail(Code::failed, path + " is no regular file");
  if (!file || fstat(file.get(), &found) != 0) return fail(repository_error("read", path, errno));
  if (!S_ISREG(found.st_mode)) return fail(Code::failed, path + " is no regular file");
  return os::read_file(file, path, limit);
}

Status sync_tree(const std::string& path) {
  std::error_code wrong;
  std::vector<std::string> directories{path};
  for (auto walk = fs::recursive_directory_iterator(path, wrong);
       !wrong && walk != fs::recursive_directory_iterator(); walk.increment(wrong))
    if (walk->is_directory(wrong)) directories.push_back(walk->path().string());
  if (wrong) return fail(Code::io, fmt::format("cannot list {}: {}", path, wrong.message()));
  std::reverse(directories.begin(), directories.end());
  for (const auto& directory : directories) ZX_TRY(os::sync_directory(directory));
  return {};
}

Error not_there(const std::string& path) {
  return Error{Code::not_found,
               "there is no repository in " + path,
               "zx backup run makes it; backup.repository in zx.toml names it",
               {},
               false};
}

// Not over what others found and this zx cannot read.
Status may_be_written(const Entry& entry) {
  if (!entry.set && entry.set.error().code == Code::refused) return fail(entry.set.error());
  if (entry.trust_file == Entry::TrustFile::newer)
    return fail(Code::refused, "a newer zx has looked at the set: " + entry.trust_problem,
                "use that zx");
  if (entry.trust_file == Entry::TrustFile::unreadable)
    return fail(Code::io, "what was found of the set before: " + entry.trust_problem,
                "nothing is written over it; verify the set again once it can be read");
  return {};
}

// Under both names first, so that at no moment there is none of them.
Result<std::string> keep_aside(const std::string& path) {
  const auto aside = path + ".bad-" + make_run_id(wall_now());
  if (link(path.c_str(), aside.c_str()) != 0) ZX_TRY(os::rename_new(path, aside));
  return aside;
}

// Its id.
Result<std::string> read_record(const std::string& path) {
  const auto text = read_plain(path + kRecord, 1u << 16);
  if (!text && text.error().code == Code::not_found) return fail(not_there(path));
  if (!text) return fail(text.error());
  const auto json = parse_json(*text, path + kRecord);
  if (!json || get_string(*json, "kind") != kKind || get_int(*json, "format") < 1)
    return fail(Code::refused, path + kRecord + " is none that zx wrote",
                "name another directory in backup.repository");
  if (get_int(*json, "format") > kFormat)
    return fail(Code::refused,
                fmt::format("the repository {} has format {}, this zx knows up to {}", path,
                            get_int(*json, "format"), kFormat),
                "use a newer zx");
  return get_string(*json, "id");
}

}  // namespace

Result<Repository> Repository::open(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0)
    return fail(errno == ENOENT ? not_there(path) : repository_error("look at", path, errno));
  if (!S_ISDIR(found.st_mode))
    return fail(Code::refused, path + " is no directory", "backup.repository names it");
  ZX_ASSIGN(auto id, read_record(path));
  for (const char* folder : {"/sets", "/archives", "/incoming", "/trash"})
    ZX_TRY(is_real_directory(path + folder));
  ZX_ASSIGN(const auto heir, heir_of(path));
  return Repository(path, std::move(id), heir);
}

Result<Repository> Repository::open_or_make(const std::string& path) {
  ZX_ASSIGN(const bool is_made, is_named(path + kRecord));
  if (is_made) return open(path);
  ZX_ASSIGN(const bool is_there, is_named(path));
  if (is_there) {
    ZX_ASSIGN(auto names, names_in(path));
    // What a run that was killed while it made the repository left.
    std::erase_if(names, [](const std::string& name) {
      return name == "sets" || name == "archives" || name == "incoming" || name == "trash" ||
             name == "lock" || name.starts_with("zx-repository.json");
    });
    if (!names.empty())
      return fail(Code::refused,
                  fmt::format("{} is no repository and holds other things, such as {}", path,
                              first_line(names.front())),
                  "name an empty directory, or one that does not exist, in backup.repository");
  }
  ZX_TRY(os::make_directories(path));
  ZX_ASSIGN(const auto heir, heir_of(path));
  const Repository made(path, random_hex(8), heir);
  // Two that begin at once make one.
  ZX_ASSIGN(const auto making, take_patiently({.until = Deadline::after(kShortly)}, [&] {
              return made.lock(RepositoryLock::Byte::checks);
            }));
  ZX_ASSIGN(const bool is_made_by_another, is_named(path + kRecord));
  if (is_made_by_another) return open(path);
  for (const char* folder : {"/sets", "/archives", "/incoming", "/trash"}) {
    ZX_TRY(make_directory(path + folder));
    ZX_TRY(made.give_away(folder + 1));
  }
  const Json record{{"kind", kKind},
                    {"format", kFormat},
                    {"id", made.id()},
                    {"made", format_utc(wall_now())},
                    {"about", "Backups of zx; zx-repository(7) says how to read them without it."}};
  ZX_TRY(os::write_file(path + kRecord, dump_pretty(record) + "\n", {.owner = heir}));
  return open(path);
}

Result<RepositoryLock> Repository::lock(RepositoryLock::Byte byte, bool is_shared,
                                        const std::string& about) const {
  return RepositoryLock::take({path_ + "/lock", byte, is_shared, about, heir_});
}

Status Repository::give_away(const std::string& path) const {
  return heir_ ? backup::give_away(path_, path, *heir_) : Status();
}

Result<RepositoryLock> Repository::lock_to_write(const std::string& command) const {
  return lock(RepositoryLock::Byte::writers, false,
              fmt::format("{} (pid {} on {}, since {})", command, getpid(), os::host_name(),
                          format_utc(wall_now())));
}

Result<std::optional<RepositoryLock>> Repository::lock_to_read() const {
  auto taken = lock(RepositoryLock::Byte::readers, true);
  if (taken) return std::optional<RepositoryLock>(*std::move(taken));
  const auto code = taken.error().code;
  // Nobody has written here yet; or this user may not even read the file, as he may write nothing.
  if (code == Code::not_found || (code == Code::auth && !is_writable()))
    return std::optional<RepositoryLock>();
  return fail(taken.error());
}

Result<RepositoryLock> Repository::lock_to_delete() const {
  return lock(RepositoryLock::Byte::readers);
}

Result<Entry> Repository::set(const std::string& id) const {
  if (is_run_id(id) && may_have(id)) {
    Entry entry;
    entry.id = id;
    const auto read = [&]() -> Result<Set> {
      ZX_TRY(is_real_directory(set_path(id)));
      ZX_ASSIGN(const auto text, read_plain(set_path(id) + kManifest, kLargestManifest));
      ZX_ASSIGN(const auto json, parse_json(text, "manifest.json"));
      ZX_ASSIGN(auto set, set_from_json(json));
      if (set.id != id) return fail(Code::failed, "it is the manifest of another set, " + set.id);
      const auto sums = read_plain(set_path(id) + kSums, kLargestManifest);
      if (!sums) return fail(sums.error());
      if (*sums != checksum_file_of(set, text))
        return fail(Code::failed, "it and SHA256SUMS, which lies beside it, do not agree");
      return set;
    };
    entry.set = read();
    if (!entry.set)
      entry.set = fail_while(entry.set.error(), "reading " + set_path(id) + kManifest);
    read_trust(entry);
    return entry;
  }
  ZX_ASSIGN(const auto names, names_in(path_ + "/sets"));
  const auto near = nearest(id, names);
  return fail(Code::not_found, fmt::format("no set {} in {}", first_line(id), path_),
              near.empty() ? "zx backup list names them" : "did you mean " + near + "?");
}

void Repository::read_trust(Entry& entry) const {
  using File = Entry::TrustFile;
  const auto text = read_plain(set_path(entry.id) + kTrust, kLargestTrust);
  if (!text) {
    const auto& error = text.error();
    if (error.code == Code::not_found) return;
    entry.trust_problem = error.message;
    entry.trust_file = error.code == Code::failed ? File::broken : File::unreadable;
    return;
  }
  const auto json = parse_json(*text, "trust.json");
  if (!json || !get_object(*json, "checks").is_array()) {
    entry.trust_problem = json ? "trust.json has no checks" : json.error().message;
    entry.trust_file = File::broken;
    return;
  }
  for (const auto& one : get_object(*json, "checks")) {
    auto check = check_from_json(one);
    if (check) {
      entry.checks.push_back(*std::move(check));
      continue;
    }
    entry.trust_problem = "trust.json: " + check.error().message;
    if (check.error().code == Code::refused)
      entry.trust_file = File::newer;
    else if (entry.trust_file == File::known)
      entry.trust_file = File::broken;
  }
}

Result<std::vector<Entry>> Repository::sets() const {
  ZX_ASSIGN(const auto names, names_in(path_ + "/sets"));
  std::vector<Entry> entries;
  for (const auto& name : names) {
    if (!is_run_id(name)) continue;
    auto entry = set(name);
    if (!entry && entry.error().code == Code::not_found) continue;  // a prune took it away just now
    if (!entry) return fail(entry.error());
    entries.push_back(*std::move(entry));
  }
  // One whose manifest cannot be read has only its name to go by.
  const auto when = [](const Entry& entry) {
    if (entry.set) return entry.set->begun;
    const auto& id = entry.id;
    return parse_utc(fmt::format("{}-{}-{}T{}:{}:{}.000Z", id.substr(0, 4), id.substr(4, 2),
                                 id.substr(6, 2), id.substr(9, 2), id.substr(11, 2),
                                 id.substr(13, 2)));
  };
  std::stable_sort(entries.begin(), entries.end(), [&](const Entry& a, const Entry& b) {
    return std::pair(when(a), a.id) > std::pair(when(b), b.id);
  });
  share_damage(entries);
  return entries;
}

Result<os::Descriptor> Repository::open_object(const Object& object) const {
  os::Descriptor at(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!at) return fail(repository_error("open", path_, errno));
  const auto parts = split(object.path, '/');
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool is_last = i + 1 == parts.size();
    if (parts[i].empty() || parts[i] == "." || parts[i] == "..")
      return fail(Code::failed,
                  "the path of an object leads elsewhere: " + first_line(object.path));
    const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (is_last ? 0 : O_DIRECTORY);
    os::Descriptor next(openat(at.get(), parts[i].c_str(), flags));
    if (!next && errno == ENOENT) return fail(Code::failed, shown(object) + " is missing");
    if (!next && (errno == ELOOP || errno == ENOTDIR))
      return fail(Code::failed, shown(object) + " is a symbolic link, or lies behind one");
    if (!next) return fail(not_opened(object, errno));
    at = std::move(next);
  }
  struct stat found {};
  if (fstat(at.get(), &found) != 0) return fail(not_opened(object, errno));
  if (!S_ISREG(found.st_mode)) return fail(Code::failed, shown(object) + " is no regular file");
  if (static_cast<std::uint64_t>(found.st_size) != object.bytes)
    return fail(Code::failed, fmt::format("{} has {} bytes instead of {}", shown(object),
                                          found.st_size, object.bytes));
  return at;
}

Result<bool> Repository::begin(const std::string& id) const {
  const auto path = incoming_path(id);
  ZX_ASSIGN(const bool is_taken, is_named(set_path(id)));
  if (is_taken) return false;
  if (mkdir(path.c_str(), 0700) != 0) {
    if (errno == EEXIST) return false;
    return fail(repository_error("make", path, errno));
  }
  for (const char* folder : {"/pg", "/redis", "/files"}) ZX_TRY(make_directory(path + folder));
  ZX_TRY(give_away("incoming/" + id));
  return true;
}

Result<std::string> Repository::publish(const Set& set) const {
  const auto path = incoming_path(set.id), goal = set_path(set.id);
  const auto manifest = dump_pretty(to_json(set)) + "\n";
  ZX_TRY(os::write_file(path + kManifest, manifest));
  ZX_TRY(os::write_file(path + kSums, checksum_file_of(set, manifest)));
  for (const char* folder : {"/pg", "/redis", "/files"})
    (void)rmdir((path + folder).c_str());  // those that stayed empty
  ZX_TRY(give_away("incoming/" + set.id));
  for (const auto& object : set.objects())
    if (object.path.starts_with("archives/" + set.id + "-")) ZX_TRY(give_away(object.path));
  ZX_TRY(sync_tree(path));
  ZX_TRY(os::sync_directory(archives_path()));
  if (const auto moved = os::rename_new(path, goal); !moved) {
    // A server of NFS may have done what its answer, which was lost, would have told.
    const auto is_left = is_named(path), is_there = is_named(goal);
    if (!is_left || *is_left || !is_there || !*is_there)
      return fail_while(moved.error(), "publishing the set");
  }
  for (const auto& folder : {path_ + "/sets", path_ + "/incoming"})
    if (const auto synced = os::sync_directory(folder); !synced)
      return fmt::format("set {} is there; a power cut could still take it: {}", set.id,
                         synced.error().message);
  return std::string();
}

bool Repository::may_have(const std::string& id) const {
  const auto is_there = is_named(set_path(id));
  return !is_there || *is_there;
}

Result<std::string> Repository::remember(const std::string& id, const Check& check) const {
  ZX_ASSIGN(const auto checking, take_patiently({.until = Deadline::after(kShortly)}, [&] {
              return lock(RepositoryLock::Byte::checks);
            }));
  ZX_ASSIGN(const auto entry, set(id));
  ZX_TRY(may_be_written(entry));
  const auto path = set_path(id) + kTrust;
  std::string aside;
  if (entry.trust_file == Entry::TrustFile::broken) {
    ZX_ASSIGN(aside, keep_aside(path));
  }
  auto checks = entry.checks;
  add_check(checks, check);
  thin_out(checks, kMostChecks);
  auto list = Json::array();
  for (const auto& one : checks) list.push_back(to_json(one));
  ZX_TRY(os::write_file(path, dump_pretty(Json{{"set", id}, {"checks", std::move(list)}}) + "\n",
                        {.owner = heir_}));
  if (aside.empty()) return std::string();
  return fmt::format("what was found of set {} before is kept as {}: {}", id, aside,
                     entry.trust_problem);
}

Result<std::uint64_t> Repository::free_space() const { return os::free_space(path_); }

bool Repository::is_writable() const { return access((path_ + "/sets").c_str(), W_OK) == 0; }

}  // namespace zx::backup
