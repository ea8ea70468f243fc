#include "lib/backup/files_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include <fmt/format.h>

#include "lib/backup/files_archive.h"
#include "lib/backup/files_index.h"
#include "lib/backup/files_names.h"
#include "lib/backup/files_rebase.h"
#include "lib/backup/files_walk.h"
#include "lib/os/sha256.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

constexpr std::size_t kMostWarnings = 20;
// An index is mostly sums, which no level makes smaller, and nobody waits for an archive meanwhile.
constexpr int kIndexLevel = 1;
constexpr std::size_t kFlush = 64 << 10;
constexpr std::size_t kPiece = 1 << 20;
// Of the free space of the repository, what is stored anew without having changed may take.
constexpr std::uint64_t kFreeParts = 4;

// Where a large file has content; nothing when it has no holes, or cannot say.
std::vector<Extent> extents_of(int file, const struct stat& found) {
  std::vector<Extent> extents;
  if (static_cast<off_t>(found.st_blocks) * 512 >= found.st_size) return extents;
  off_t at = 0;
  while (at < found.st_size) {
    const auto data = lseek(file, at, SEEK_DATA);
    if (data < 0 && errno != ENXIO) return {};
    if (data < 0 || data >= found.st_size) break;
    auto hole = lseek(file, data, SEEK_HOLE);
    if (hole < 0) return {};
    hole = std::min<off_t>(hole, found.st_size);
    if (data == 0 && hole == found.st_size) return {};
    extents.push_back({data, hole - data});
    at = hole;
  }
  if (extents.empty()) extents.push_back({found.st_size, 0});
  return extents;
}

// Of the set before, as far as it can still be used.
struct Earlier {
  const FilesPart* part = nullptr;
  std::unique_ptr<ObjectReader> index;
  std::set<std::string> sets;  // whose archives are there, and are not given up
};

class FilesBackup {
 public:
  FilesBackup(const Repository& repository, const FilesJob& job)
      : repository_(repository),
        job_(job),
        name_(file_name_of(job.what.name)),
        directory_(repository.incoming_path(job.set_id) + "/files"),
        path_("sets/" + job.set_id + "/files/" + name_),
        lists_(directory_ + "/" + name_) {}

  Result<FilesPart> run();

 private:
  void warn(std::string what);
  [[nodiscard]] const FilesPart* part_in(const Set& set) const;
  Status find_earlier();
  Status read_earlier();
  void give_up_archives(std::vector<ArchiveNeed> archives);
  [[nodiscard]] Result<std::map<std::string, std::uint64_t>> read_needed(const Object& index) const;
  [[nodiscard]] std::uint64_t total_of(const ArchiveNeed& archive) const;
  [[nodiscard]] Result<std::vector<DirectoryId>> own_directories() const;
  Status take(Found& found);
  Status keep(const Unchanged& unchanged);
  Status store(Found& found);
  Status store_large(Found& found);
  Status store_once(Found& found, const struct stat& before, bool& is_whole);
  Result<bool> pour(int file, std::uint64_t from, std::uint64_t to, os::Sha256& hash);
  Status pour_zeros(std::uint64_t count, os::Sha256& hash);
  [[nodiscard]] Status go_on() const;
  [[nodiscard]] Error cannot_look_at(const IndexEntry& entry, int number) const {
    return cannot_read("look at", part_.path + "/" + entry.path, number);
  }
  Result<ArchiveWriter*> archive();
  Status finish(ObjectWriter& index);
  Status write_recipe();

  const Repository& repository_;
  const FilesJob& job_;
  const std::string name_, directory_, path_;
  Earlier earlier_;
  FilesPart part_;
  std::size_t more_warnings_ = 0;
  std::optional<ArchiveWriter> archive_;
  NameLists lists_;
  std::string lines_;
  std::string piece_;
};

void FilesBackup::warn(std::string what) {
  if (part_.warnings.size() < kMostWarnings)
    part_.warnings.push_back(std::move(what));
  else
    ++more_warnings_;
}

const FilesPart* FilesBackup::part_in(const Set& set) const {
  for (const auto& part : set.files)
    if (part.name == job_.what.name && part.path == job_.what.path) return &part;
  return nullptr;
}

Status FilesBackup::find_earlier() {
  if (job_.previous == nullptr) return {};
  earlier_.part = part_in(*job_.previous);
  if (earlier_.part == nullptr) return {};
  if (const auto read = read_earlier(); !read) {
    ZX_TRY(go_on());
    warn("everything is stored anew: " + read.error().message);
  }
  return {};
}

Status FilesBackup::read_earlier() {
  const auto& index = earlier_.part->index;
  std::vector<ArchiveNeed> needs;
  std::vector<std::string> warnings;
  for (const auto& archive : earlier_.part->archives) {
    const auto set = set_of_archive(archive.path, job_.what.name);
    const auto file = repository_.open_object(archive);
    if (!file)
      warnings.push_back("what it held is stored anew: " + file.error().message);
    else if (!set.empty())
      needs.push_back({set, archive.raw, 0});
  }
  // All of it before any of it is believed.
  const bool may = may_give_up(needs, earlier_.part->files, earlier_.part->bytes);
  if (!may) {
    ZX_TRY(check_sum(repository_, index));
  } else {
    ZX_ASSIGN(const auto needed, read_needed(index));
    for (auto& need : needs)
      if (const auto found = needed.find(need.set); found != needed.end())
        need.needed = std::min(found->second, need.total);
  }
  ZX_ASSIGN(auto reader, ObjectReader::open(repository_, index));
  earlier_.index = std::make_unique<ObjectReader>(std::move(reader));
  for (auto& warning : warnings) warn(std::move(warning));
  for (const auto& need : needs) earlier_.sets.insert(need.set);
  if (may) give_up_archives(std::move(needs));
  return {};
}

void FilesBackup::give_up_archives(std::vector<ArchiveNeed> archives) {
  // What a member takes is an estimate: long attributes would make an archive look dead that is
  // not, again and again.
  for (auto& archive : archives)
    if (is_mostly_dead(archive)) archive.total = total_of(archive);
  // Without a word on the room there is none to waste.
  const auto free = repository_.free_space();
  for (const auto& set : archives_to_give_up(std::move(archives), free ? *free / kFreeParts : 0))
    earlier_.sets.erase(set);
}

// All of the index is read, and is what was written.
Result<std::map<std::string, std::uint64_t>> FilesBackup::read_needed(const Object& index) const {
  ZX_ASSIGN(auto object, ObjectReader::open(repository_, index));
  IndexReader reader([&]() -> Result<std::string_view> {
    ZX_TRY(go_on());  // some thousand lines each
    return object.next();
  });
  return needed_of(reader);
}

// By the same estimate, as far as the set that made it is still there.
std::uint64_t FilesBackup::total_of(const ArchiveNeed& archive) const {
  const auto entry = repository_.set(archive.set);
  const auto* const part = entry && entry->set ? part_in(*entry->set) : nullptr;
  if (part == nullptr) return archive.total;
  const auto needed = read_needed(part->index);
  if (!needed) return archive.total;
  const auto found = needed->find(archive.set);
  return found == needed->end() ? archive.total : std::min(archive.total, found->second);
}

Result<std::vector<DirectoryId>> FilesBackup::own_directories() const {
  std::vector<DirectoryId> ids;
  auto paths = job_.own;
  paths.push_back(repository_.path());
  for (const auto& path : paths) {
    struct stat found {};
    if (stat(path.c_str(), &found) == 0)
      ids.push_back({found.st_dev, found.st_ino});
    else if (errno != ENOENT)
      return fail(errno_error(Code::io, "cannot look at " + shown(path), errno));
  }
  return ids;
}

Result<FilesPart> FilesBackup::run() {
  const auto begun = monotonic_now();
  part_.name = job_.what.name;
  part_.path = job_.what.path;
  part_.at = wall_now();
  ZX_TRY(find_earlier());
  WalkJob walk_job{job_.what, {}, {}};
  ZX_ASSIGN(walk_job.own, own_directories());
  if (earlier_.index) {
    walk_job.earlier = [this] { return earlier_.index->next(); };
    walk_job.has_archive = [this](const std::string& set) { return earlier_.sets.count(set) != 0; };
  }
  ZX_ASSIGN(auto walk, FilesWalk::start(std::move(walk_job)));
  ZX_ASSIGN(auto index, ObjectWriter::create(directory_ + "/" + name_ + ".index.zst",
                                             path_ + ".index.zst", kIndexLevel));
  lines_ = index_head(walk.begun_ns());
  while (true) {
    ZX_ASSIGN(auto batch, walk.next(job_.until));
    if (batch.empty()) break;
    const auto bytes_before = part_.bytes, files_before = part_.files;
    for (auto& found : batch) ZX_TRY(take(found));
    if (lines_.size() >= kFlush) {
      ZX_TRY(index.write(lines_));
      lines_.clear();
    }
    if (job_.progress) job_.progress(part_.files - files_before, part_.bytes - bytes_before);
  }
  ZX_TRY(finish(index));
  part_.took_ms = since(begun).count();
  return std::move(part_);
}

Status FilesBackup::take(Found& found) {
  if (!found.warning.empty()) warn(std::move(found.warning));
  if (found.unchanged) return keep(*found.unchanged);
  if (!found.entry) return {};
  auto& entry = *found.entry;
  entry.set = job_.set_id;
  const auto stored = found.file ? store_large(found) : store(found);
  if (!stored && stored.error().code == Code::not_found) {
    warn(shown(entry.path) + " vanished");
    return {};
  }
  if (!stored) return stored;
  append_line(lines_, entry);
  ++part_.stored_files;
  ++part_.files;
  part_.bytes += entry.size;
  return lists_.add(entry.set, entry.path + '\0');
}

Status FilesBackup::keep(const Unchanged& unchanged) {
  lines_ += unchanged.lines;
  part_.files += unchanged.files;
  part_.bytes += unchanged.bytes;
  for (const auto& [set, names] : unchanged.names) ZX_TRY(lists_.add(set, names));
  return {};
}

Status FilesBackup::store(Found& found) {
  ZX_ASSIGN(auto* const tar, archive());
  ZX_TRY(tar->begin(*found.entry, found.attributes));
  return tar->write(found.content);
}

// It may change while it is read, and its header is written before: then it is stored again, and
// the later member counts. One that vanishes, Code::not_found, is a member that no index names.
Status FilesBackup::store_large(Found& found) {
  const int file = found.file.get();
  for (int reads = 1;; ++reads) {
    struct stat before {};
    if (fstat(file, &before) != 0) return fail(cannot_look_at(*found.entry, errno));
    auto now = entry_of(before);
    now.path = found.entry->path;
    now.set = found.entry->set;
    *found.entry = std::move(now);
    bool is_whole = false;
    ZX_TRY(store_once(found, before, is_whole));
    if (is_whole) return {};
    if (reads < kReads) continue;
    warn(shown(found.entry->path) + " changed while it was read");
    return {};
  }
}

Status FilesBackup::store_once(Found& found, const struct stat& before, bool& is_whole) {
  const int file = found.file.get();
  auto extents = extents_of(file, before);
  ZX_ASSIGN(auto* const tar, archive());
  ZX_TRY(tar->begin(*found.entry, found.attributes, extents));
  if (extents.empty()) extents.push_back({0, before.st_size});
  os::Sha256 hash;
  std::uint64_t at = 0;
  std::optional<Error> vanished;
  is_whole = true;
  for (const auto& extent : extents) {
    const auto from = static_cast<std::uint64_t>(extent.offset);
    const auto to = from + static_cast<std::uint64_t>(extent.size);
    ZX_TRY(pour_zeros(from - at, hash));
    const auto has_all = pour(file, from, to, hash);
    if (!has_all && has_all.error().code != Code::not_found) return fail(has_all.error());
    if (!has_all) vanished = has_all.error();
    is_whole = is_whole && has_all && *has_all;
    at = to;
  }
  ZX_TRY(pour_zeros(found.entry->size - at, hash));
  if (vanished) return fail(*vanished);
  found.entry->sha256 = hash.hex();
  struct stat after {};
  if (fstat(file, &after) != 0) return fail(cannot_look_at(*found.entry, errno));
  is_whole = is_whole && is_same(before, after);
  return {};
}

// False when the file ends before, Code::not_found when it vanishes: zeros stand for the rest.
Result<bool> FilesBackup::pour(int file, std::uint64_t from, std::uint64_t to, os::Sha256& hash) {
  std::optional<Error> problem;
  while (from < to) {
    ZX_TRY(go_on());
    piece_.resize(kPiece);
    const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, to - from));
    const auto got = pread(file, piece_.data(), wanted, static_cast<off_t>(from));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) problem = cannot_read("read a file of", part_.path, errno);
    if (problem && problem->code != Code::not_found) return fail(*problem);
    if (got <= 0) break;
    const std::string_view bytes(piece_.data(), static_cast<std::size_t>(got));
    hash.feed(bytes);
    ZX_TRY(archive_->write(bytes));
    from += bytes.size();
  }
  ZX_TRY(pour_zeros(to - from, hash));
  if (problem) return fail(*problem);
  return from == to;
}

Status FilesBackup::pour_zeros(std::uint64_t count, os::Sha256& hash) {
  if (count > 0) piece_.assign(kPiece, '\0');
  while (count > 0) {
    ZX_TRY(go_on());
    const auto bytes = std::string_view(piece_).substr(
        0, static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, count)));
    hash.feed(bytes);
    ZX_TRY(archive_->write(bytes));
    count -= bytes.size();
  }
  return {};
}

Status FilesBackup::go_on() const {
  if (const auto signal = os::interruption()) return fail(*signal);
  if (job_.until.passed()) return fail(Code::timeout, "the files were not read by the deadline");
  return {};
}

Result<ArchiveWriter*> FilesBackup::archive() {
  if (!archive_) {
    const auto path = archive_path(job_.set_id, job_.what.name);
    ZX_ASSIGN(auto made, ArchiveWriter::create(repository_.path() + "/" + path, path, job_.level));
    archive_.emplace(std::move(made));
  }
  return &*archive_;
}

Status FilesBackup::finish(ObjectWriter& index) {
  ZX_TRY(index.write(lines_));
  ZX_ASSIGN(part_.index, index.finish());
  std::optional<Object> fresh;
  if (archive_) {
    ZX_ASSIGN(fresh, archive_->finish());
    ZX_TRY(os::sync_directory(repository_.archives_path()));
  }
  const auto need = [&](const Object& archive, const std::string& set) -> Status {
    if (!lists_.has(set)) return {};
    part_.archives.push_back(archive);
    const auto ending = fmt::format(".{}.list.zst", part_.archives.size());
    ZX_ASSIGN(auto stored,
              lists_.store(set, directory_ + "/" + name_ + ending, path_ + ending, kIndexLevel));
    part_.lists.push_back(std::move(stored));
    return {};
  };
  if (earlier_.part != nullptr)
    for (const auto& archive : earlier_.part->archives)
      ZX_TRY(need(archive, set_of_archive(archive.path, job_.what.name)));
  if (fresh) ZX_TRY(need(*fresh, job_.set_id));
  if (part_.archives.size() != lists_.size())
    return fail(Code::internal, "an index names an archive that is none of its set's");
  if (more_warnings_ > 0) part_.warnings.push_back(fmt::format("and {} more", more_warnings_));
  return write_recipe();
}

Status FilesBackup::write_recipe() {
  std::string text;
  for (std::size_t i = 0; i < part_.archives.size(); ++i)
    text += fmt::format("{}\t{}\n", part_.archives[i].path, part_.lists[i].path);
  const auto file = directory_ + "/" + name_ + ".restore";
  ZX_TRY(os::write_file(file, text));
  ZX_ASSIGN(part_.recipe, object_of_file(file, path_ + ".restore"));
  return {};
}

}  // namespace

Result<FilesPart> back_up_files(const Repository& repository, const FilesJob& job) {
  FilesBackup backup(repository, job);
  return backup.run();
}

}  // namespace zx::backup
