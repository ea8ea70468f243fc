#include "lib/backup/files_restore.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "lib/backup/files_archive.h"
#include "lib/backup/files_index.h"
#include "lib/backup/files_target.h"
#include "lib/os/sha256.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

constexpr std::uint64_t kTellFiles = 256;
constexpr std::uint64_t kTellBytes = 8 << 20;

Error damaged(const Object& archive, const IndexEntry& entry, const std::string& what) {
  return Error{Code::failed,
               fmt::format("{} in {} {}", shown(entry.path), archive.path, what),
               "verify the sets and take another: zx backup verify",
               {},
               false};
}

// The index from its beginning, of the entries that are wanted only.
class Wanted {
 public:
  static Result<Wanted> open(const Repository& repository, const FilesPart& part,
                             const Patterns& only) {
    ZX_ASSIGN(auto reader, ObjectReader::open(repository, part.index));
    return Wanted(std::make_unique<ObjectReader>(std::move(reader)), part.index.path, only);
  }
  Result<bool> next(IndexEntry& entry) {
    while (true) {
      auto has = reader_.next(entry);
      if (!has) return fail_while(has.error(), "reading " + path_);
      if (!*has || is_wanted(entry)) return has;
    }
  }
  // The same, of those whose content lies in the archive of `set`.
  Result<bool> next_of(const std::string& set, IndexEntry& entry) {
    while (true) {
      ZX_ASSIGN(const bool has, next(entry));
      if (!has || entry.set == set) return has;
    }
  }

 private:
  Wanted(std::unique_ptr<ObjectReader> object, std::string path, const Patterns& only)
      : object_(std::move(object)),
        reader_([source = object_.get()] { return source->next(); }),
        path_(std::move(path)),
        only_(only) {}
  bool is_wanted(const IndexEntry& entry) {
    if (only_.empty()) return true;
    const bool is_inside = !whole_.empty() && entry.path.starts_with(whole_) &&
                           entry.path.size() > whole_.size() && entry.path[whole_.size()] == '/';
    if (is_inside) return true;
    if (!only_.match(entry.path)) return false;
    if (entry.type == 'd') whole_ = entry.path;
    return true;
  }
  std::unique_ptr<ObjectReader> object_;
  IndexReader reader_;
  std::string path_;
  const Patterns& only_;
  std::string whole_;  // a directory that is wanted with all that is in it
};

bool lies_in(const std::string& path, const std::string& directory) {
  if (directory == ".") return !path.empty();
  return path.size() > directory.size() && path.starts_with(directory) &&
         path[directory.size()] == '/';
}

class Passage {
 public:
  // Without `target` nothing is written.
  Passage(const Repository& repository, const FilesPart& part, const Patterns& only,
          FilesTarget* target, const FilesProgress& progress, Deadline until)
      : repository_(repository),
        part_(part),
        only_(only),
        target_(target),
        progress_(progress),
        until_(until) {}
  Status run() {
    ZX_TRY(prepare());
    for (const auto& archive : part_.archives) ZX_TRY(go_through(archive));
    if (target_ != nullptr) ZX_TRY(finish_directories());
    tell(true);
    return {};
  }
  [[nodiscard]] std::uint64_t files() const { return files_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  Status prepare();
  Status make_directories(const IndexEntry& entry);
  Status finish_directories();
  Status go_through(const Object& archive);
  Status take(ArchiveReader& tar, const Object& archive, const IndexEntry& entry,
              const Member& member, std::string& problem);
  Status take_file(ArchiveReader& tar, const IndexEntry& entry, std::string& problem);
  Status zeros(std::uint64_t count, os::Sha256& hash);
  Status go_on() const;
  void tell(bool is_last = false);

  const Repository& repository_;
  const FilesPart& part_;
  const Patterns& only_;
  FilesTarget* target_;
  const FilesProgress& progress_;
  Deadline until_;
  std::map<std::string, std::uint64_t> wanted_;  // how many entries each set's archive has
  std::vector<IndexEntry> way_;                  // the directories that lead to where the index is
  std::size_t made_ = 0;                         // how many of them are there
  std::uint64_t files_ = 0, bytes_ = 0, told_files_ = 0, told_bytes_ = 0;
};

Status Passage::go_on() const {
  if (const auto signal = os::interruption()) return fail(*signal);
  if (until_.passed()) return fail(Code::timeout, "the files were not read by the deadline");
  return {};
}

void Passage::tell(bool is_last) {
  const auto files = files_ - told_files_, bytes = bytes_ - told_bytes_;
  if (!progress_ || (!is_last && files < kTellFiles && bytes < kTellBytes)) return;
  progress_(files, bytes);
  told_files_ = files_;
  told_bytes_ = bytes_;
}

// All of the index is believed before anything is written: its own sum, the manifest's numbers, and
// that the set has the archives that it names.
Status Passage::prepare() {
  std::uint64_t files = 0, bytes = 0;
  const Patterns all({});
  ZX_ASSIGN(auto index, Wanted::open(repository_, part_, all));
  IndexEntry entry;
  while (true) {
    ZX_ASSIGN(const bool has, index.next(entry));
    if (!has) break;
    ++files;
    bytes += entry.size;
    ++wanted_[entry.set];
  }
  if (files != part_.files || bytes != part_.bytes)
    return fail(Code::failed,
                fmt::format("{} names {} files of {} bytes, the manifest {} of {}",
                            part_.index.path, files, bytes, part_.files, part_.bytes));
  for (const auto& [set, count] : wanted_) {
    const auto path = archive_path(set, part_.name);
    if (std::none_of(part_.archives.begin(), part_.archives.end(),
                     [&](const Object& archive) { return archive.path == path; }))
      return fail(Code::failed,
                  fmt::format("{} names {}, which is none of its set's", part_.index.path, path));
  }
  if (target_ == nullptr && only_.empty()) return {};
  wanted_.clear();
  ZX_ASSIGN(auto again, Wanted::open(repository_, part_, all));
  ZX_ASSIGN(auto chosen, Wanted::open(repository_, part_, only_));
  IndexEntry choice;
  ZX_ASSIGN(bool has_choice, chosen.next(choice));
  if (!has_choice)
    return fail(Code::not_found, "the set has no file that matches",
                "zx-repository(7) says how to read its index");
  while (has_choice) {
    ZX_ASSIGN(const bool has, again.next(entry));
    if (!has) break;
    if (entry.type == 'd') {
      while (!way_.empty() && !lies_in(entry.path, way_.back().path)) way_.pop_back();
      made_ = std::min(made_, way_.size());
      way_.push_back(entry);
    }
    if (entry.path != choice.path) continue;
    ++wanted_[entry.set];
    ZX_TRY(make_directories(entry));
    ZX_ASSIGN(has_choice, chosen.next(choice));
  }
  way_.clear();
  return {};
}

// Those that lead to a chosen entry, chosen or not; the last one may be the entry itself.
Status Passage::make_directories(const IndexEntry& entry) {
  if (target_ == nullptr) return {};
  while (!way_.empty() && way_.back().path != entry.path && !lies_in(entry.path, way_.back().path))
    way_.pop_back();
  made_ = std::min(made_, way_.size());
  for (; made_ < way_.size(); ++made_) ZX_TRY(target_->make_directory(way_[made_]));
  return go_on();
}

Status Passage::go_through(const Object& archive) {
  const auto set = set_of_archive(archive.path, part_.name);
  // Nothing of it is wanted: only whether it is whole.
  const bool is_wanted = wanted_.count(set) != 0;
  if (!is_wanted && target_ != nullptr) return {};
  ZX_ASSIGN(auto index, Wanted::open(repository_, part_, only_));
  ZX_ASSIGN(auto tar, ArchiveReader::open(repository_, archive));
  IndexEntry entry;
  ZX_ASSIGN(bool has_entry, index.next_of(set, entry));
  std::string problem = "is missing";
  Member member;
  while (true) {
    ZX_ASSIGN(const bool has_member, tar.next(member));
    while (has_entry && (!has_member || comes_before(entry.path, member.path))) {
      if (!problem.empty()) return fail(damaged(archive, entry, problem));
      ++files_;
      bytes_ += entry.size;
      tell();
      problem = "is missing";
      ZX_ASSIGN(has_entry, index.next_of(set, entry));
    }
    if (!has_member) return {};
    ZX_TRY(go_on());
    // What it has of other sets' is passed over.
    if (!has_entry || entry.path != member.path) continue;
    ZX_TRY(take(tar, archive, entry, member, problem));
  }
}

// `problem`: why this member is not what the index means; a later one of the same path may be.
Status Passage::take(ArchiveReader& tar, const Object& archive, const IndexEntry& entry,
                     const Member& member, std::string& problem) {
  if (member.type != entry.type || member.target != entry.target)
    return fail(damaged(archive, entry, "is something else than the index tells"));
  problem.clear();
  if (entry.type == 'd') {
    if (target_ != nullptr) target_->keep_attributes(entry, tar.attributes());
    return {};
  }
  if (entry.type == 'l') return target_ != nullptr ? target_->make_link(entry) : Status();
  problem = fmt::format("has {} bytes instead of {}", member.size, entry.size);
  if (member.size != entry.size) return {};
  const auto taken = take_file(tar, entry, problem);
  if (!taken && taken.error().code == Code::failed)
    return fail(damaged(archive, entry, "cannot be read: " + taken.error().message));
  return taken;
}

Status Passage::take_file(ArchiveReader& tar, const IndexEntry& entry, std::string& problem) {
  const auto attributes = tar.attributes();
  if (target_ != nullptr) ZX_TRY(target_->begin_file(entry));
  os::Sha256 hash;
  std::uint64_t at = 0;
  const auto take_piece = [&](std::uint64_t offset, std::string_view bytes) -> Status {
    if (offset < at || offset > entry.size || bytes.size() > entry.size - offset)
      return fail(Code::failed, "content lies elsewhere than in the file");
    ZX_TRY(zeros(offset - at, hash));
    hash.feed(bytes);
    at = offset + bytes.size();
    ZX_TRY(go_on());
    return target_ != nullptr ? target_->write(offset, bytes) : Status();
  };
  ZX_TRY(tar.read(take_piece));
  ZX_TRY(zeros(entry.size - at, hash));
  problem = hash.hex() == entry.sha256 ? "" : "has another SHA-256 than the index tells";
  if (!problem.empty() || target_ == nullptr) return {};
  return target_->end_file(entry, attributes);
}

Status Passage::zeros(std::uint64_t count, os::Sha256& hash) {
  static const std::string kZeros(1 << 20, '\0');
  while (count > 0) {
    ZX_TRY(go_on());
    const auto some = std::min<std::uint64_t>(count, kZeros.size());
    hash.feed(std::string_view(kZeros).substr(0, static_cast<std::size_t>(some)));
    count -= some;
  }
  return {};
}

// From the leaves to the root: a directory that may not be written or entered is closed last.
Status Passage::finish_directories() {
  const Patterns all({});
  ZX_ASSIGN(auto index, Wanted::open(repository_, part_, all));
  ZX_ASSIGN(auto chosen, Wanted::open(repository_, part_, only_));
  IndexEntry entry, choice;
  ZX_ASSIGN(bool has_choice, chosen.next(choice));
  made_ = 0;
  const auto leave = [&](const std::string& path) -> Status {
    while (!way_.empty() && !lies_in(path, way_.back().path)) {
      if (way_.size() == made_) {
        ZX_TRY(target_->finish_directory(way_.back()));
        --made_;
      }
      way_.pop_back();
    }
    return {};
  };
  while (has_choice) {
    ZX_ASSIGN(const bool has, index.next(entry));
    if (!has) break;
    if (entry.type == 'd') {
      ZX_TRY(leave(entry.path));
      way_.push_back(entry);
    }
    if (entry.path != choice.path) continue;
    if (entry.type != 'd') ZX_TRY(leave(entry.path));
    made_ = way_.size();
    ZX_ASSIGN(has_choice, chosen.next(choice));
  }
  ZX_TRY(leave({}));
  return {};
}

}  // namespace

Result<FilesRestored> restore_files(const Repository& repository, const FilesPart& part,
                                    const FilesRestore& restore) {
  const auto begun = monotonic_now();
  ZX_ASSIGN(auto target, FilesTarget::create(restore.into));
  const Patterns only(restore.only);
  Passage passage(repository, part, only, &target, restore.progress, restore.until);
  ZX_TRY(passage.run());
  ZX_TRY(target.sync());
  return FilesRestored{passage.files(), passage.bytes(), target.warnings(), since(begun).count()};
}

Status decode_files(const Repository& repository, const FilesPart& part,
                    const FilesProgress& progress, Deadline until) {
  const Patterns all({});
  Passage passage(repository, part, all, nullptr, progress, until);
  return passage.run();
}

}  // namespace zx::backup
