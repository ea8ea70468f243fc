#include "lib/backup/repository.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKind = "zx-repository";
constexpr const char* kRecord = "/zx-repository.json";
constexpr const char* kManifest = "/manifest.json";
constexpr const char* kSums = "/SHA256SUMS";
constexpr const char* kTrust = "/trust.json";
constexpr std::size_t kLargestManifest = 256u << 20;
constexpr std::size_t kMostChecks = 100;

// Bytes of the file `lock`.
constexpr int kWriters = 0;
constexpr int kReaders = 1;

Code code_of(int number) {
  if (number == ENOSPC || number == EDQUOT) return Code::disk_full;
  if (number == EACCES || number == EPERM || number == EROFS) return Code::auth;
  return number == ENOENT ? Code::not_found : Code::io;
}

Error cannot(const std::string& what, const std::string& path, int number) {
  auto error = errno_error(code_of(number), "cannot " + what + " " + path, number);
  if (error.code == Code::disk_full) error.hint = "make room in the repository: zx backup prune";
  if (error.code == Code::auth)
    error.hint = number == EROFS ? "mount the file system of the repository for writing"
                                 : "run zx as the user that owns the repository";
  return error;
}

// A real directory, no link to one.
Status is_real_directory(const std::string& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) return fail(cannot("look at", path, errno));
  if (S_ISDIR(found.st_mode)) return {};
  return fail(Code::refused,
              path + (S_ISLNK(found.st_mode) ? " is a symbolic link" : " is no directory"),
              "in a repository nothing is followed that somebody may have put there");
}

Status make_directory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail(cannot("make", path, errno));
  return is_real_directory(path);
}

Result<std::vector<std::string>> names_in(const std::string& path) {
  ZX_TRY(is_real_directory(path));
  DIR* listing = opendir(path.c_str());
  if (listing == nullptr) return fail(cannot("list", path, errno));
  std::vector<std::string> names;
  while (const dirent* entry = readdir(listing)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(listing);
  std::sort(names.begin(), names.end());
  return names;
}

// Opened without following a link, and read whole.
Result<std::string> read_plain(const std::string& path, std::size_t limit) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) return fail(cannot("read", path, errno));
  if (!S_ISREG(found.st_mode)) return fail(Code::failed, path + " is no regular file");
  return os::read_file(path, limit);
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

Status remove_tree(const std::string& path) {
  std::error_code wrong;
  fs::remove_all(path, wrong);
  if (!wrong) return {};
  const auto code = wrong == std::errc::permission_denied ? Code::auth : Code::io;
  return fail(code, fmt::format("cannot remove {}: {}", path, wrong.message()));
}

Error not_there(const std::string& path) {
  return Error{Code::not_found,
               "there is no repository in " + path,
               "zx backup run makes it; backup.repository in zx.toml names it",
               {},
               false};
}

Status check_record(const std::string& path) {
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
  return {};
}

}  // namespace

Result<Repository> Repository::open(const std::string& path) {
  if (!os::exists(path)) return fail(not_there(path));
  if (!os::is_directory(path))
    return fail(Code::refused, path + " is no directory", "backup.repository names it");
  ZX_TRY(check_record(path));
  for (const char* folder : {"/sets", "/archives", "/incoming", "/trash"})
    ZX_TRY(is_real_directory(path + folder));
  return Repository(path);
}

Result<Repository> Repository::open_or_make(const std::string& path) {
  if (os::exists(path + kRecord)) return open(path);
  if (os::exists(path)) {
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
  for (const char* folder : {"/sets", "/archives", "/incoming", "/trash"})
    ZX_TRY(make_directory(path + folder));
  const Json record{{"kind", kKind},
                    {"format", kFormat},
                    {"id", random_hex(8)},
                    {"made", format_utc(wall_now())},
                    {"about", "Backups of zx; zx-repository(7) says how to read them without it."}};
  ZX_TRY(os::write_file(path + kRecord, dump_pretty(record) + "\n"));
  return open(path);
}

Result<RepositoryLock> Repository::lock(int byte, bool is_shared, const std::string& about) const {
  const auto path = path_ + "/lock";
  os::Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail(cannot("open", path, errno));
  // Of the open file (F_OFD_*): the kernel, or the server of an NFS 4 file system, ends it with us.
  struct flock wanted {};
  wanted.l_type = static_cast<short>(is_shared ? F_RDLCK : F_WRLCK);
  wanted.l_whence = SEEK_SET;
  wanted.l_start = byte;
  wanted.l_len = 1;
  if (fcntl(file.get(), F_OFD_SETLK, &wanted) != 0) {
    if (errno != EAGAIN && errno != EACCES) return fail(cannot("lock", path, errno));
    const auto holder = os::read_file(path, 4096);
    const auto who = holder ? first_line(*holder) : std::string();
    if (byte == kReaders)
      return fail(Code::locked,
                  is_shared ? "sets are being deleted: " + who
                            : "a verification or a restore reads the repository",
                  "wait for it to end");
    return fail(Code::locked,
                "another backup or prune is at work in " + path_ + (who.empty() ? "" : ": " + who),
                "wait for it to end");
  }
  if (!about.empty()) {
    const auto text = about + "\n";
    if (ftruncate(file.get(), 0) != 0 ||
        pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
      return fail(cannot("write", path, errno));
  }
  return RepositoryLock(std::move(file));
}

Result<RepositoryLock> Repository::lock_to_write(const std::string& command) const {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  return lock(
      kWriters, false,
      fmt::format("{} (pid {} on {}, since {})", command, getpid(), host, format_utc(wall_now())));
}

Result<std::optional<RepositoryLock>> Repository::lock_to_read() const {
  auto taken = lock(kReaders, true, {});
  if (taken) return std::optional<RepositoryLock>(*std::move(taken));
  // Where nothing can be written nothing is deleted either.
  if (taken.error().code == Code::auth && !is_writable()) return std::optional<RepositoryLock>();
  return fail(taken.error());
}

Result<RepositoryLock> Repository::lock_to_delete() const { return lock(kReaders, false, {}); }

Result<Entry> Repository::set(const std::string& id) const {
  if (is_run_id(id) && os::exists(set_path(id))) {
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
    const auto text = read_plain(set_path(id) + kTrust, 1u << 20);
    if (!text && text.error().code == Code::not_found) return entry;
    const auto json = text ? parse_json(*text, "trust.json") : fail(text.error());
    if (!json || !get_object(*json, "checks").is_array()) {
      entry.trust_problem = json ? "trust.json has no checks" : json.error().message;
      return entry;
    }
    for (const auto& one : get_object(*json, "checks")) {
      auto check = check_from_json(one);
      if (check)
        entry.checks.push_back(*std::move(check));
      else
        entry.trust_problem = "trust.json: " + check.error().message;
    }
    return entry;
  }
  ZX_ASSIGN(const auto names, names_in(path_ + "/sets"));
  const auto near = nearest(id, names);
  return fail(Code::not_found, fmt::format("no set {} in {}", first_line(id), path_),
              near.empty() ? "zx backup list names them" : "did you mean " + near + "?");
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
  return entries;
}

Result<os::Descriptor> Repository::open_object(const Object& object) const {
  os::Descriptor at(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!at) return fail(cannot("open", path_, errno));
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
    if (!next) return fail(cannot("open", object.path, errno));
    at = std::move(next);
  }
  struct stat found {};
  if (fstat(at.get(), &found) != 0) return fail(cannot("look at", object.path, errno));
  if (!S_ISREG(found.st_mode)) return fail(Code::failed, shown(object) + " is no regular file");
  if (static_cast<std::uint64_t>(found.st_size) != object.bytes)
    return fail(Code::failed, fmt::format("{} has {} bytes instead of {}", shown(object),
                                          found.st_size, object.bytes));
  return at;
}

Status Repository::begin(const std::string& id) const {
  const auto path = incoming_path(id);
  if (mkdir(path.c_str(), 0700) != 0) return fail(cannot("make", path, errno));
  for (const char* folder : {"/pg", "/redis", "/files"}) ZX_TRY(make_directory(path + folder));
  return {};
}

Status Repository::publish(const Set& set) const {
  const auto path = incoming_path(set.id);
  const auto manifest = dump_pretty(to_json(set)) + "\n";
  ZX_TRY(os::write_file(path + kManifest, manifest));
  ZX_TRY(os::write_file(path + kSums, checksum_file_of(set, manifest)));
  for (const char* folder : {"/pg", "/redis", "/files"})
    (void)rmdir((path + folder).c_str());  // those that stayed empty
  ZX_TRY(sync_tree(path));
  ZX_TRY(os::sync_directory(archives_path()));
  if (renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, set_path(set.id).c_str(), RENAME_NOREPLACE) != 0)
    return fail(cannot("publish", set_path(set.id), errno));
  ZX_TRY(os::sync_directory(path_ + "/sets"));
  return os::sync_directory(path_ + "/incoming");
}

Result<Repository::Swept> Repository::sweep() const {
  Swept swept;
  for (const char* folder : {"/incoming", "/trash"}) {
    ZX_ASSIGN(const auto names, names_in(path_ + folder));
    for (const auto& name : names) {
      ZX_TRY(remove_tree(path_ + folder + "/" + name));
      swept.runs += std::string_view(folder) == "/incoming" ? 1 : 0;
    }
  }
  ZX_ASSIGN(const auto entries, sets());
  ZX_ASSIGN(const auto folders, names_in(path_ + "/sets"));
  for (const auto& name : folders)
    if (!is_run_id(name)) {
      swept.warnings.push_back(
          fmt::format("no archive is deleted: sets/{} is no name of a set, and may need some",
                      first_line(name)));
      return swept;
    }
  std::set<std::string> needed;
  for (const auto& entry : entries) {
    if (!entry.set) {
      swept.warnings.push_back(fmt::format("no archive is deleted: what {} needs is not known, {}",
                                           entry.id, entry.set.error().message));
      return swept;
    }
    for (const auto& object : entry.set->objects()) needed.insert(object.path);
  }
  ZX_ASSIGN(const auto names, names_in(archives_path()));
  for (const auto& name : names) {
    if (needed.count("archives/" + name) != 0) continue;
    const auto path = archives_path() + "/" + name;
    if (unlink(path.c_str()) != 0) return fail(cannot("remove", path, errno));
    ++swept.archives;
  }
  if (swept.archives > 0) ZX_TRY(os::sync_directory(archives_path()));
  return swept;
}

Status Repository::remember(const std::string& id, const Check& check) const {
  ZX_ASSIGN(const auto entry, set(id));
  auto checks = entry.checks;
  checks.push_back(check);
  if (checks.size() > kMostChecks)
    checks.erase(checks.begin(), checks.end() - static_cast<std::ptrdiff_t>(kMostChecks));
  auto list = Json::array();
  for (const auto& one : checks) list.push_back(to_json(one));
  return os::write_file(set_path(id) + kTrust,
                        dump_pretty(Json{{"set", id}, {"checks", std::move(list)}}) + "\n");
}

Result<std::uint64_t> Repository::free_space() const { return os::free_space(path_); }

bool Repository::is_writable() const { return access((path_ + "/sets").c_str(), W_OK) == 0; }

}  // namespace zx::backup
