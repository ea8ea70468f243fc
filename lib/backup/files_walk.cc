#include "lib/backup/files_walk.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "lib/backup/files_lister.h"
#include "lib/os/sha256.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr int kDeepest = 400;      // each level has a descriptor
constexpr std::size_t kAhead = 8;  // directories that are listed ahead, of each
constexpr std::size_t kBatch = 128;
constexpr std::size_t kMostLines = 64 << 10;  // bytes of unchanged ones that go together
constexpr std::size_t kBatchBytes = 512 << 10;
constexpr std::size_t kQueueBytes = 8 << 20;
constexpr std::size_t kEntryBytes = 512;  // of an entry without its content, about
constexpr std::size_t kLargeWeight = kQueueBytes / 4;
constexpr int kOpen = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

std::int64_t kernel_now() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::int64_t>(now.tv_sec) * kSecond + now.tv_nsec;
}

constexpr const char* kStillThere = "see whether its file system is still there";

Error gone(const std::string& path) {
  auto error = errno_error(Code::io, "cannot go on reading " + shown(path), ESTALE);
  error.hint = kStillThere;
  return error;
}

}  // namespace

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
  Status walk(const Listing& listing, const std::string& path, dev_t device, bool is_included,
              int depth);
  // What was ordered of the directories in one.
  struct Ahead {
    const Listing& listing;
    std::string prefix;  // of a path: "" or "a/b/"
    std::map<std::size_t, Lister::Ticket> tickets;
    std::size_t next;  // the first that was not yet looked at for it
  };
  void order(Ahead& ahead, std::size_t from);
  [[nodiscard]] Status is_still_there() const;
  [[nodiscard]] bool is_own(const struct stat& found) const {
    const DirectoryId id{found.st_dev, found.st_ino};
    return std::find(job.own.begin(), job.own.end(), id) != job.own.end();
  }
  // Code::not_found: it vanished.
  Status child(Ahead& ahead, std::size_t at, bool is_included, int depth);
  Status enter(Lister::Ticket ticket, const std::string& path, dev_t device, bool is_included,
               int depth);
  Status take_directory(int directory, const std::string& path, const struct stat& found);
  Status take_link(int directory, const std::string& path, const char* name,
                   const struct stat& found);
  Status take_file(int directory, const std::string& path, const char* name,
                   const struct stat& found);
  Result<std::optional<std::size_t>> read_small(int file, const struct stat& before,
                                                const std::string& path);
  Status read_file(int directory, const std::string& path, const char* name);
  bool put_unchanged(const IndexEntry& entry);
  void put_new(IndexEntry entry, std::vector<Attribute> attributes);
  [[nodiscard]] std::string full(const std::string& path) const {
    return path == "." ? job.what.path : job.what.path + "/" + path;
  }
  void put(Found found);
  void warn(const std::string& path, const std::string& what);
  void flush();

  WalkJob job;
  Patterns include, exclude;
  os::Descriptor root;
  std::vector<int> tops;  // of the file systems on the way to where the walk is
  Lister lister;
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
  Status walked;
  const auto top = Lister::list_open(std::move(root), job.what.path);
  if (!top)
    walked = fail(top.error());
  else
    walked = walk(*top, ".", top->found.st_dev, include.empty(), 0);
  // The tree itself does not vanish.
  if (!walked && walked.error().code == Code::not_found) {
    walked.error().code = Code::io;
    walked.error().hint = kStillThere;
  }
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

void FilesWalk::Impl::put_new(IndexEntry entry, std::vector<Attribute> attributes) {
  Found found;
  found.entry = std::make_unique<IndexEntry>(std::move(entry));
  found.attributes = std::move(attributes);
  put(std::move(found));
}

// When the set before has it so.
bool FilesWalk::Impl::put_unchanged(const IndexEntry& entry) {
  while (earlier && (!has_earlier_entry || comes_before(earlier_entry.path, entry.path))) {
    const auto next = earlier->next(earlier_entry);
    has_earlier_entry = next && *next;
    if (has_earlier_entry) continue;
    if (!next) {
      Found found;
      found.warning = "the rest is stored anew: " + next.error().message;
      put(std::move(found));
    }
    earlier.reset();
  }
  if (!earlier || earlier_entry.path != entry.path ||
      !is_unchanged(earlier_entry, entry, earlier->begun_ns()) ||
      !job.has_archive(earlier_entry.set))
    return false;
  if (batch.empty() || !batch.back().unchanged ||
      batch.back().unchanged->lines.size() > kMostLines) {
    Found found;
    found.unchanged = std::make_unique<Unchanged>();
    put(std::move(found));
    // That may have been the last one of a batch.
    if (batch.empty()) batch.emplace_back().unchanged = std::make_unique<Unchanged>();
  }
  auto& same = *batch.back().unchanged;
  same.lines += earlier->line();
  batch_bytes += earlier->line().size() + entry.path.size();
  same.bytes += entry.size;
  ++same.files;
  auto names = std::find_if(same.names.begin(), same.names.end(),
                            [&](const auto& one) { return one.set == earlier_entry.set; });
  if (names == same.names.end()) names = same.names.insert(names, {earlier_entry.set, {}});
  names->names.append(entry.path).push_back('\0');
  return true;
}

Status FilesWalk::Impl::walk(const Listing& listing, const std::string& path, dev_t device,
                             bool is_included, int depth) {
  const auto& found = listing.found;
  const bool is_top = tops.empty() || found.st_dev != device;
  if (found.st_dev != device) warn(path, "is another file system, and is held too");
  ZX_TRY(take_directory(listing.directory.get(), path, found));
  if (is_top) tops.push_back(listing.directory.get());
  Ahead ahead{listing, path == "." ? std::string() : path + "/", {}, 0};
  Status done;
  for (std::size_t i = 0; i < listing.names.size() && !is_stopped && done; ++i) {
    order(ahead, i);
    done = child(ahead, i, is_included, depth);
    if (!done && done.error().code == Code::not_found) {
      done = is_still_there();
      if (done) warn(ahead.prefix + listing.names[i], "vanished");
    }
  }
  // What was ordered and is not wanted any more.
  for (auto& [at, ticket] : ahead.tickets) static_cast<void>(lister.take(std::move(ticket)));
  if (is_top) tops.pop_back();
  return done;
}

// A server that exports a file system anew gives ESTALE for all that is open: nothing of it has
// vanished. For one directory it says so, too, when another host has removed that: so its top is
// asked for, and of the server itself, whatever this host remembers.
Status FilesWalk::Impl::is_still_there() const {
  struct statx ignored {};
  if (statx(tops.back(), "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_TYPE, &ignored) == 0 ||
      errno != ESTALE)
    return {};
  return fail(gone(job.what.path));
}

// The next directories in this one, as many as there is room for.
void FilesWalk::Impl::order(Ahead& ahead, std::size_t from) {
  const auto& listing = ahead.listing;
  ahead.next = std::max(ahead.next, from);
  for (; ahead.next < listing.looks.size() && ahead.tickets.size() < kAhead; ++ahead.next) {
    const auto& found = listing.looks[ahead.next];
    if (listing.failures[ahead.next] != 0 || !S_ISDIR(found.st_mode) || is_own(found)) continue;
    const auto path = ahead.prefix + listing.names[ahead.next];
    if (exclude.match(path)) continue;
    if (!lister.has_room()) return;
    ahead.tickets[ahead.next] =
        lister.list(listing.directory.get(), listing.names[ahead.next], full(path));
  }
}

Status FilesWalk::Impl::child(Ahead& ahead, std::size_t at, bool is_included, int depth) {
  const auto& listing = ahead.listing;
  const int directory = listing.directory.get();
  const char* name = listing.names[at];
  const auto path = ahead.prefix + name;
  if (exclude.match(path)) return {};
  struct stat found {};
  int failure = 0;
  if (!listing.looks.empty()) {
    found = listing.looks[at];
    failure = listing.failures[at];
  } else if (fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) != 0) {
    failure = errno;
  }
  if (failure != 0) return fail(cannot_read("look at", full(path), failure));
  if (!is_included) is_included = include.match(path);
  if (S_ISDIR(found.st_mode) && is_own(found)) {
    warn(path, "is a directory of zx's own, and is left out");
    return {};
  }
  if (S_ISDIR(found.st_mode)) {
    const auto ordered = ahead.tickets.find(at);
    auto ticket = ordered == ahead.tickets.end() ? lister.list(directory, name, full(path))
                                                 : std::move(ordered->second);
    if (ordered != ahead.tickets.end()) ahead.tickets.erase(ordered);
    return enter(std::move(ticket), path, listing.found.st_dev, is_included, depth + 1);
  }
  if (!is_included) return {};
  if (S_ISREG(found.st_mode)) return take_file(directory, path, name, found);
  if (S_ISLNK(found.st_mode)) return take_link(directory, path, name, found);
  warn(path, S_ISSOCK(found.st_mode)   ? "is a socket, and is left out"
             : S_ISFIFO(found.st_mode) ? "is a FIFO, and is left out"
                                       : "is a device, and is left out");
  return {};
}

Status FilesWalk::Impl::enter(Lister::Ticket ticket, const std::string& path, dev_t device,
                              bool is_included, int depth) {
  const auto listing = lister.take(std::move(ticket));
  if (depth > kDeepest)
    return fail(Code::failed,
                fmt::format("{} lies more than {} directories deep", shown(full(path)), kDeepest),
                "exclude it in backup.files");
  if (!listing) return fail(listing.error());
  return walk(*listing, path, device, is_included, depth);
}

Status FilesWalk::Impl::take_directory(int directory, const std::string& path,
                                       const struct stat& found) {
  auto entry = entry_of(found);
  entry.path = path;
  if (put_unchanged(entry)) return {};
  ZX_ASSIGN(auto attributes, attributes_of(directory, full(path)));
  put_new(std::move(entry), std::move(attributes));
  return {};
}

Status FilesWalk::Impl::take_link(int directory, const std::string& path, const char* name,
                                  const struct stat& found) {
  std::array<char, PATH_MAX> target;
  const auto size = readlinkat(directory, name, target.data(), target.size());
  // EINVAL: it is no link any more.
  if (size <= 0)
    return fail(cannot_read("read", full(path), size == 0 || errno == EINVAL ? ENOENT : errno));
  auto entry = entry_of(found);
  entry.path = path;
  entry.target.assign(target.data(), static_cast<std::size_t>(size));
  if (!put_unchanged(entry)) put_new(std::move(entry), {});
  return {};
}

Status FilesWalk::Impl::take_file(int directory, const std::string& path, const char* name,
                                  const struct stat& found) {
  auto entry = entry_of(found);
  entry.path = path;
  return put_unchanged(entry) ? Status() : read_file(directory, path, name);
}

// Into `buffer`; nothing when it is large.
Result<std::optional<std::size_t>> FilesWalk::Impl::read_small(int file, const struct stat& before,
                                                               const std::string& path) {
  if (before.st_size > static_cast<off_t>(kReadAhead)) return std::nullopt;
  std::size_t size = 0;
  while (size < buffer.size()) {
    // One byte more than it is said to have: a short read is its end.
    const auto room = static_cast<std::size_t>(before.st_size) + 1;
    const auto wanted = (size < room ? room : buffer.size()) - size;
    const auto got = read(file, buffer.data() + size, wanted);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(cannot_read("read", path, errno));
    size += static_cast<std::size_t>(got);
    if (static_cast<std::size_t>(got) < wanted) break;
  }
  if (size > kReadAhead) return std::nullopt;
  return size;
}

Status FilesWalk::Impl::read_file(int directory, const std::string& path, const char* name) {
  for (int reads = 1;; ++reads) {
    Found taken;
    taken.file = os::Descriptor(openat(directory, name, kOpen | O_NOCTTY));
    struct stat before {
    }, after{};
    if (!taken.file) {
      const bool is_another = errno == ELOOP || errno == ENXIO;
      return fail(cannot_read("read", full(path), is_another ? ENOENT : errno));
    }
    if (fstat(taken.file.get(), &before) != 0)
      return fail(cannot_read("look at", full(path), errno));
    if (!S_ISREG(before.st_mode)) return fail(cannot_read("read", full(path), ENOENT));
    taken.entry = std::make_unique<IndexEntry>(entry_of(before));
    taken.entry->path = path;
    ZX_ASSIGN(taken.attributes, attributes_of(taken.file.get(), full(path)));
    ZX_ASSIGN(const auto size, read_small(taken.file.get(), before, full(path)));
    if (!size) {
      if (lseek(taken.file.get(), 0, SEEK_SET) != 0)
        return fail(cannot_read("read", full(path), errno));
      put(std::move(taken));
      return {};
    }
    if (fstat(taken.file.get(), &after) != 0)
      return fail(cannot_read("look at", full(path), errno));
    const bool is_whole =
        is_same(before, after) && *size == static_cast<std::size_t>(before.st_size);
    if (!is_whole && reads < kReads) continue;
    if (!is_whole) taken.warning = shown(path) + " changed while it was read";
    taken.file.close();
    taken.content.assign(buffer.data(), *size);
    taken.entry->size = *size;
    os::Sha256 hash;
    hash.feed(taken.content);
    taken.entry->sha256 = hash.hex();
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
  struct stat found {};
  if (!impl->root || fstat(impl->root.get(), &found) != 0)
    return fail(errno == ESTALE ? gone(path) : cannot_read("list", path, errno));
  if (impl->is_own(found))
    return fail(Code::config, shown(path) + " is a directory of zx's own",
                fmt::format("backup.files.{}.path in zx.toml names it", impl->job.what.name));
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
    if (until.passed()) return fail(Code::timeout, "the files were not read by the deadline");
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
