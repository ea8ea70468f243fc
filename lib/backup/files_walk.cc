#include "lib/backup/files_walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "lib/os/sha256.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
// The kernel's clock of files goes in ticks of up to 10 ms; that of some file systems in seconds.
constexpr std::int64_t kRacy = 100'000'000;
constexpr std::int64_t kRacySeconds = 2 * kSecond;
constexpr int kDeepest = 400;  // each level has a descriptor
constexpr std::size_t kBatch = 128;
constexpr std::size_t kBatchBytes = 512 << 10;
constexpr std::size_t kQueueBytes = 8 << 20;
constexpr std::size_t kEntryBytes = 512;  // of an entry without its content, about
constexpr std::size_t kLargeWeight = kQueueBytes / 4;
constexpr int kOpen = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

std::int64_t ns_of(const timespec& time) {
  return static_cast<std::int64_t>(time.tv_sec) * kSecond + time.tv_nsec;
}

std::int64_t kernel_now() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return ns_of(now);
}

Error cannot(const std::string& what, const std::string& path, int number) {
  const bool is_denied = number == EACCES || number == EPERM;
  auto error = errno_error(is_denied ? Code::auth : Code::io,
                           "cannot " + what + " " + shown(path), number);
  error.hint = is_denied ? "let the user that runs zx read it, or exclude it in backup.files"
                         : "see what is wrong with it, or exclude it in backup.files";
  return error;
}

// Names one after the other: a directory may have millions.
class Names {
 public:
  Status read(int directory, const std::string& path);
  [[nodiscard]] std::size_t size() const { return begins_.size(); }
  [[nodiscard]] const char* operator[](std::size_t at) const { return text_.data() + begins_[at]; }

 private:
  std::string text_;
  std::vector<std::size_t> begins_;
};

Status Names::read(int directory, const std::string& path) {
  alignas(dirent64) std::array<char, 64 << 10> buffer;
  while (true) {
    const auto got = getdents64(directory, buffer.data(), buffer.size());
    if (got < 0) return fail(cannot("list", path, errno));
    if (got == 0) break;
    for (ssize_t at = 0; at < got;) {
      const auto* const entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
      at += entry->d_reclen;
      const std::string_view name(entry->d_name);
      if (name == "." || name == "..") continue;
      begins_.push_back(text_.size());
      text_.append(name).push_back('\0');
    }
  }
  std::sort(begins_.begin(), begins_.end(), [this](std::size_t a, std::size_t b) {
    return std::strcmp(text_.data() + a, text_.data() + b) < 0;
  });
  return {};
}

Result<std::vector<Attribute>> attributes_of(int file, const std::string& path) {
  std::vector<Attribute> found;
  std::string names(512, '\0');
  ssize_t size = 0;
  while ((size = flistxattr(file, names.data(), names.size())) < 0 && errno == ERANGE)
    names.resize(names.size() * 8);
  if (size < 0 && (errno == ENOTSUP || errno == ENOSYS)) return found;
  if (size < 0) return fail(cannot("read the attributes of", path, errno));
  for (const char* name = names.data(); name < names.data() + size; name += std::strlen(name) + 1) {
    std::string value(256, '\0');
    ssize_t got = 0;
    while ((got = fgetxattr(file, name, value.data(), value.size())) < 0 && errno == ERANGE)
      value.resize(value.size() * 16);
    if (got < 0 && errno == ENODATA) continue;  // gone meanwhile
    if (got < 0) return fail(cannot("read the attributes of", path, errno));
    value.resize(static_cast<std::size_t>(got));
    found.push_back({name, std::move(value)});
  }
  return found;
}

}  // namespace

IndexEntry entry_of(const struct stat& found) {
  IndexEntry entry;
  entry.type = S_ISDIR(found.st_mode) ? 'd' : S_ISLNK(found.st_mode) ? 'l' : 'f';
  entry.mode = found.st_mode & 07777;
  entry.uid = found.st_uid;
  entry.gid = found.st_gid;
  entry.size = S_ISREG(found.st_mode) ? static_cast<std::uint64_t>(found.st_size) : 0;
  entry.mtime = ns_of(found.st_mtim);
  entry.ctime = ns_of(found.st_ctim);
  entry.inode = found.st_ino;
  return entry;
}

bool is_same(const struct stat& before, const struct stat& after) {
  return before.st_size == after.st_size && ns_of(before.st_mtim) == ns_of(after.st_mtim) &&
         ns_of(before.st_ctim) == ns_of(after.st_ctim);
}

bool is_unchanged(const IndexEntry& earlier, const IndexEntry& now, std::int64_t begun_ns) {
  const bool is_equal = earlier.type == now.type && earlier.mode == now.mode &&
                        earlier.uid == now.uid && earlier.gid == now.gid &&
                        earlier.size == now.size && earlier.mtime == now.mtime &&
                        earlier.ctime == now.ctime && earlier.inode == now.inode &&
                        earlier.target == now.target;
  const auto margin = earlier.ctime % kSecond == 0 ? kRacySeconds : kRacy;
  return is_equal && earlier.ctime < begun_ns - margin;
}

struct FilesWalk::Impl {
  explicit Impl(WalkJob given)
      : job(std::move(given)), include(job.what.include), exclude(job.what.exclude) {
    if (job.earlier) earlier.emplace(job.earlier);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    {
      const std::lock_guard guard(lock);
      is_stopped = true;
    }
    changed.notify_all();
    if (thread.joinable()) thread.join();
  }

  // On the thread.
  void work();
  Status walk(int directory, const std::string& path, dev_t device, bool is_included, int depth);
  Status child(int directory, const std::string& path, const char* name, dev_t device,
               bool is_included, int depth);
  Status enter(int directory, const std::string& path, const char* name, dev_t device,
               bool is_included, int depth);
  Status take_directory(int directory, const std::string& path, const struct stat& found);
  Status take_link(int directory, const std::string& path, const char* name,
                   const struct stat& found);
  Status take_file(int directory, const std::string& path, const char* name,
                   const struct stat& found);
  Status read_file(int directory, const std::string& path, const char* name);
  bool take_earlier(IndexEntry& entry);
  [[nodiscard]] std::string full(const std::string& path) const {
    return path == "." ? job.what.path : job.what.path + "/" + path;
  }
  void put(Found found);
  void warn(const std::string& path, const std::string& what);
  void flush();

  WalkJob job;
  Patterns include, exclude;
  os::Descriptor root;
  std::int64_t begun = kernel_now();
  std::optional<IndexReader> earlier;
  IndexEntry earlier_entry;
  bool has_earlier_entry = false;
  std::string buffer = std::string(kReadAhead + 1, '\0');
  std::vector<Found> batch;
  std::size_t batch_bytes = 0;

  // Of both threads.
  struct Ready {
    std::vector<Found> found;
    std::size_t bytes = 0;
  };
  std::mutex lock;
  std::condition_variable changed;
  std::deque<Ready> ready;
  std::size_t ready_bytes = 0;
  bool is_done = false;
  std::atomic<bool> is_stopped{false};
  Status outcome;
  std::thread thread;
};

void FilesWalk::Impl::work() {
  struct stat found {};
  Status walked;
  if (fstat(root.get(), &found) != 0)
    walked = fail(cannot("look at", job.what.path, errno));
  else
    walked = walk(root.get(), ".", found.st_dev, include.empty(), 0);
  flush();
  const std::lock_guard guard(lock);
  outcome = std::move(walked);
  is_done = true;
  changed.notify_all();
}

void FilesWalk::Impl::put(Found found) {
  batch_bytes += kEntryBytes + found.content.size() + (found.file ? kLargeWeight : 0);
  batch.push_back(std::move(found));
  if (batch.size() >= kBatch || batch_bytes >= kBatchBytes) flush();
}

void FilesWalk::Impl::warn(const std::string& path, const std::string& what) {
  Found found;
  found.entry.type = 0;
  found.warning = shown(path) + " " + what;
  put(std::move(found));
}

void FilesWalk::Impl::flush() {
  if (batch.empty()) return;
  std::unique_lock guard(lock);
  changed.wait(guard, [this] { return is_stopped || ready_bytes < kQueueBytes; });
  ready_bytes += batch_bytes;
  ready.push_back({std::move(batch), batch_bytes});
  changed.notify_all();
  batch.clear();
  batch_bytes = 0;
}

// Takes what the set before has, when it is still so: its sum and where it lies.
bool FilesWalk::Impl::take_earlier(IndexEntry& entry) {
  while (earlier && (!has_earlier_entry || comes_before(earlier_entry.path, entry.path))) {
    const auto next = earlier->next(earlier_entry);
    has_earlier_entry = next && *next;
    if (next && *next) continue;
    if (!next) {
      Found found;
      found.entry.type = 0;
      found.warning = "the rest is stored anew: " + next.error().message;
      put(std::move(found));
    }
    earlier.reset();
  }
  if (!earlier || earlier_entry.path != entry.path ||
      !is_unchanged(earlier_entry, entry, earlier->begun_ns()) ||
      !job.has_archive(earlier_entry.set))
    return false;
  entry.set = earlier_entry.set;
  entry.sha256 = earlier_entry.sha256;
  return true;
}

Status FilesWalk::Impl::walk(int directory, const std::string& path, dev_t device,
                             bool is_included, int depth) {
  struct stat found {};
  if (fstat(directory, &found) != 0) return fail(cannot("look at", full(path), errno));
  if (found.st_dev != device) warn(path, "is another file system, and is held too");
  ZX_TRY(take_directory(directory, path, found));
  Names names;
  ZX_TRY(names.read(directory, full(path)));
  for (std::size_t i = 0; i < names.size() && !is_stopped; ++i)
    ZX_TRY(child(directory, path == "." ? names[i] : path + "/" + names[i], names[i],
                 found.st_dev, is_included, depth));
  return {};
}

Status FilesWalk::Impl::child(int directory, const std::string& path, const char* name,
                              dev_t device, bool is_included, int depth) {
  if (exclude.match(path)) return {};
  struct stat found {};
  if (fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno != ENOENT) return fail(cannot("look at", full(path), errno));
    warn(path, "vanished");
    return {};
  }
  if (!is_included) is_included = include.match(path);
  if (S_ISDIR(found.st_mode)) return enter(directory, path, name, device, is_included, depth + 1);
  if (!is_included) return {};
  if (S_ISREG(found.st_mode)) return take_file(directory, path, name, found);
  if (S_ISLNK(found.st_mode)) return take_link(directory, path, name, found);
  warn(path, S_ISSOCK(found.st_mode)   ? "is a socket, and is left out"
             : S_ISFIFO(found.st_mode) ? "is a FIFO, and is left out"
                                       : "is a device, and is left out");
  return {};
}

Status FilesWalk::Impl::enter(int directory, const std::string& path, const char* name,
                              dev_t device, bool is_included, int depth) {
  if (depth > kDeepest)
    return fail(Code::failed,
                fmt::format("{} lies more than {} directories deep", shown(full(path)), kDeepest),
                "exclude it in backup.files");
  const os::Descriptor file(openat(directory, name, kOpen | O_DIRECTORY));
  if (!file && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) {
    warn(path, "vanished");
    return {};
  }
  if (!file) return fail(cannot("list", full(path), errno));
  return walk(file.get(), path, device, is_included, depth);
}

Status FilesWalk::Impl::take_directory(int directory, const std::string& path,
                                       const struct stat& found) {
  Found taken;
  taken.entry = entry_of(found);
  taken.entry.path = path;
  if (!take_earlier(taken.entry)) {
    ZX_ASSIGN(taken.attributes, attributes_of(directory, full(path)));
  }
  put(std::move(taken));
  return {};
}

Status FilesWalk::Impl::take_link(int directory, const std::string& path, const char* name,
                                  const struct stat& found) {
  Found taken;
  taken.entry = entry_of(found);
  taken.entry.path = path;
  std::array<char, PATH_MAX> target;
  const auto size = readlinkat(directory, name, target.data(), target.size());
  if (size < 0 && errno != ENOENT && errno != EINVAL) return fail(cannot("read", full(path), errno));
  if (size <= 0) {
    warn(path, "vanished");
    return {};
  }
  taken.entry.target.assign(target.data(), static_cast<std::size_t>(size));
  take_earlier(taken.entry);
  put(std::move(taken));
  return {};
}

Status FilesWalk::Impl::take_file(int directory, const std::string& path, const char* name,
                                  const struct stat& found) {
  Found taken;
  taken.entry = entry_of(found);
  taken.entry.path = path;
  if (!take_earlier(taken.entry)) return read_file(directory, path, name);
  put(std::move(taken));
  return {};
}

Status FilesWalk::Impl::read_file(int directory, const std::string& path, const char* name) {
  for (int reads = 1;; ++reads) {
    Found taken;
    taken.file = os::Descriptor(openat(directory, name, kOpen | O_NOCTTY));
    struct stat before {
    }, after{};
    if (!taken.file && errno != ENOENT && errno != ELOOP && errno != ENXIO)
      return fail(cannot("read", full(path), errno));
    if (taken.file && fstat(taken.file.get(), &before) != 0)
      return fail(cannot("look at", full(path), errno));
    if (!taken.file || !S_ISREG(before.st_mode)) {
      warn(path, "vanished");
      return {};
    }
    taken.entry = entry_of(before);
    taken.entry.path = path;
    ZX_ASSIGN(taken.attributes, attributes_of(taken.file.get(), full(path)));
    std::size_t size = 0;
    // One byte more than it is said to have: a short read is its end.
    while (before.st_size <= static_cast<off_t>(kReadAhead) && size < buffer.size()) {
      const auto room = std::min(buffer.size(), static_cast<std::size_t>(before.st_size) + 1);
      const auto wanted = size < room ? room - size : buffer.size() - size;
      const auto got = read(taken.file.get(), buffer.data() + size, wanted);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(cannot("read", full(path), errno));
      size += static_cast<std::size_t>(got);
      if (static_cast<std::size_t>(got) < wanted) break;
    }
    if (before.st_size > static_cast<off_t>(kReadAhead) || size > kReadAhead) {
      if (lseek(taken.file.get(), 0, SEEK_SET) != 0) return fail(cannot("read", full(path), errno));
      put(std::move(taken));
      return {};
    }
    if (fstat(taken.file.get(), &after) != 0) return fail(cannot("look at", full(path), errno));
    const bool is_whole =
        is_same(before, after) && size == static_cast<std::size_t>(before.st_size);
    if (!is_whole && reads < kReads) continue;
    if (!is_whole) taken.warning = shown(path) + " changed while it was read";
    taken.file.close();
    taken.content.assign(buffer.data(), size);
    taken.entry.size = size;
    os::Sha256 hash;
    hash.feed(taken.content);
    taken.entry.sha256 = hash.hex();
    put(std::move(taken));
    return {};
  }
}

FilesWalk::FilesWalk(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FilesWalk::FilesWalk(FilesWalk&&) noexcept = default;
FilesWalk::~FilesWalk() = default;

Result<FilesWalk> FilesWalk::start(WalkJob job) {
  auto impl = std::make_unique<Impl>(std::move(job));
  const auto& path = impl->job.what.path;
  // A link at the very top is the operator's own.
  impl->root = os::Descriptor(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!impl->root && (errno == ENOENT || errno == ENOTDIR))
    return fail(Code::not_found, "no directory " + shown(path),
                fmt::format("backup.files.{}.path in zx.toml names it", impl->job.what.name));
  if (!impl->root) return fail(cannot("list", path, errno));
  impl->thread = std::thread([walk = impl.get()] { walk->work(); });
  return FilesWalk(std::move(impl));
}

std::int64_t FilesWalk::begun_ns() const { return impl_->begun; }

Result<std::vector<Found>> FilesWalk::next(Deadline until) {
  constexpr Millis kLook{50};
  std::unique_lock guard(impl_->lock);
  while (impl_->ready.empty() && !impl_->is_done) {
    impl_->changed.wait_for(guard, kLook);
    if (const auto signal = os::interruption()) return fail(*signal);
    if (until.passed())
      return fail(Code::timeout, "the files were not read by the deadline");
  }
  if (const auto signal = os::interruption()) return fail(*signal);
  if (impl_->ready.empty()) {
    if (!impl_->outcome) return fail(impl_->outcome.error());
    return std::vector<Found>();
  }
  auto first = std::move(impl_->ready.front());
  impl_->ready.pop_front();
  impl_->ready_bytes -= first.bytes;
  impl_->changed.notify_all();
  return std::move(first.found);
}

}  // namespace zx::backup
