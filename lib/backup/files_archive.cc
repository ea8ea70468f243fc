#include "lib/backup/files_archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <new>
#include <optional>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

constexpr std::string_view kFolder = "archives/";
constexpr std::string_view kEnding = ".tar.zst";
constexpr std::size_t kPiece = 256 << 10;  // bytes that are compressed at once
constexpr std::int64_t kSecond = 1'000'000'000;

struct WriteEnd {
  void operator()(archive* tar) const { archive_write_free(tar); }
};
struct ReadEnd {
  void operator()(archive* tar) const { archive_read_free(tar); }
};
struct EntryEnd {
  void operator()(archive_entry* entry) const { archive_entry_free(entry); }
};

std::string words_of(archive* tar) {
  const char* const words = archive_error_string(tar);
  return words == nullptr ? "libarchive does not say why" : first_line(words);
}

// Towards the past also before 1970.
std::int64_t seconds_of(std::int64_t ns) { return ns / kSecond - (ns % kSecond < 0 ? 1 : 0); }

// libarchive writes all but printable ASCII, "%" and "=" of an attribute's name as %XX, and leaves
// it to the reader of this form to undo that.
std::string attribute_name(std::string_view written) {
  std::string name;
  for (std::size_t at = 0; at < written.size(); ++at) {
    unsigned value = 0;
    const auto* const digits = written.data() + at + 1;
    const bool is_code = written[at] == '%' && at + 2 < written.size() &&
                         std::from_chars(digits, digits + 2, value, 16).ptr == digits + 2;
    name += is_code ? static_cast<char>(value) : written[at];
    if (is_code) at += 2;
  }
  return name;
}

// Fits all of it into the header that every tar has had since 1988? Else a header of pax stands
// before it, of which libarchive can leave none out once names are bytes.
bool is_plain(const IndexEntry& entry, const std::vector<Attribute>& attributes,
              const std::vector<Extent>& extents) {
  constexpr std::size_t kLongestName = 99, kLongestTarget = 100;  // a directory's gets a "/"
  constexpr std::uint32_t kMostId = (1u << 21) - 1;
  constexpr std::uint64_t kMostBytes = (1ull << 33) - 1;
  const auto is_ascii = [](const std::string& text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  };
  const auto seconds = seconds_of(entry.mtime);
  return attributes.empty() && extents.empty() && entry.path.size() <= kLongestName &&
         entry.target.size() <= kLongestTarget && entry.size <= kMostBytes &&
         entry.uid <= kMostId && entry.gid <= kMostId && seconds >= 0 &&
         static_cast<std::uint64_t>(seconds) <= kMostBytes && is_ascii(entry.path) &&
         is_ascii(entry.target);
}

mode_t type_of(char type) { return type == 'd' ? S_IFDIR : type == 'l' ? S_IFLNK : S_IFREG; }

}  // namespace

std::string archive_path(const std::string& set, const std::string& tree) {
  return fmt::format("{}{}-{}{}", kFolder, set, file_name_of(tree), kEnding);
}

std::string set_of_archive(const std::string& path, const std::string& tree) {
  const auto ending = fmt::format("-{}{}", file_name_of(tree), kEnding);
  if (!path.starts_with(kFolder) || !path.ends_with(ending) ||
      path.size() < kFolder.size() + ending.size())
    return {};
  auto set = path.substr(kFolder.size(), path.size() - kFolder.size() - ending.size());
  return is_run_id(set) ? set : std::string();
}

struct ArchiveWriter::Impl {
  ObjectWriter object;
  std::optional<Error> problem;  // of the object
  std::unique_ptr<archive_entry, EntryEnd> entry{archive_entry_new()};
  std::uint64_t missing = 0;  // bytes of the member that are still to come
  std::string pending;        // bytes of the archive
  bool is_over = false;       // what is written now is left out
  // Members of a tar stand for themselves: one writer for the plain ones, which ends the archive,
  // and one for the others, for libarchive decides once for an archive how its headers are.
  std::unique_ptr<archive, WriteEnd> plain{archive_write_new()}, pax{archive_write_new()};
  archive* tar = plain.get();  // of the present member

  explicit Impl(ObjectWriter writer) : object(std::move(writer)) {}
  static la_ssize_t take(archive* tar, void* data, const void* bytes, std::size_t size) {
    auto& self = *static_cast<Impl*>(data);
    // When it is freed before its end libarchive still closes the archive: nobody wants that.
    if (self.problem) return -1;
    if (self.is_over) return static_cast<la_ssize_t>(size);
    self.pending.append(static_cast<const char*>(bytes), size);
    if (self.pending.size() < kPiece || self.flush()) return static_cast<la_ssize_t>(size);
    archive_set_error(tar, EIO, "the object was not written");
    return -1;
  }
  Status flush() {
    const auto put = object.write(pending);
    pending.clear();
    if (!put) problem = put.error();
    return put;
  }
  Status open(archive* writer, bool is_pax) {
    if (writer == nullptr) throw std::bad_alloc();
    if (is_pax) {
      ZX_TRY(check(archive_write_set_format_pax_restricted(writer)));
      ZX_TRY(check(archive_write_set_options(writer, "hdrcharset=BINARY,xattrheader=SCHILY")));
    } else {
      ZX_TRY(check(archive_write_set_format_ustar(writer)));
    }
    ZX_TRY(check(archive_write_set_bytes_per_block(writer, 0)));
    return check(archive_write_open(writer, this, nullptr, Impl::take, nullptr));
  }
  Status check(int outcome) {
    if (outcome == ARCHIVE_OK) return {};
    if (problem) return fail(*problem);
    return fail(Code::failed, "cannot write an archive: " + words_of(tar));
  }
};

ArchiveWriter::ArchiveWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ArchiveWriter::ArchiveWriter(ArchiveWriter&&) noexcept = default;
ArchiveWriter::~ArchiveWriter() {
  if (impl_ && !impl_->problem)
    impl_->problem = Error{Code::internal, "not finished", {}, {}, false};
}

Result<ArchiveWriter> ArchiveWriter::create(const std::string& file, const std::string& path,
                                            int level) {
  ZX_ASSIGN(auto object, ObjectWriter::create(file, path, level));
  auto impl = std::make_unique<Impl>(std::move(object));
  if (impl->entry == nullptr) throw std::bad_alloc();
  ZX_TRY(impl->open(impl->plain.get(), false));
  ZX_TRY(impl->open(impl->pax.get(), true));
  impl->pending.reserve(kPiece + (kPiece >> 1));
  return ArchiveWriter(std::move(impl));
}

Status ArchiveWriter::begin(const IndexEntry& entry, const std::vector<Attribute>& attributes,
                            const std::vector<Extent>& extents) {
  if (impl_->missing > 0)
    return fail(Code::internal, fmt::format("a member lacks {} bytes", impl_->missing));
  auto* const head = archive_entry_clear(impl_->entry.get());
  archive_entry_copy_pathname(head, entry.path.c_str());
  archive_entry_set_filetype(head, type_of(entry.type));
  archive_entry_set_perm(head, entry.mode);
  archive_entry_set_uid(head, entry.uid);
  archive_entry_set_gid(head, entry.gid);
  const auto seconds = seconds_of(entry.mtime);
  archive_entry_set_mtime(head, seconds, static_cast<long>(entry.mtime - seconds * kSecond));
  archive_entry_set_size(head, static_cast<la_int64_t>(entry.size));
  if (entry.type == 'l') archive_entry_copy_symlink(head, entry.target.c_str());
  for (const auto& [name, value] : attributes)
    archive_entry_xattr_add_entry(head, name.c_str(), value.data(), value.size());
  for (const auto& extent : extents)
    archive_entry_sparse_add_entry(head, extent.offset, extent.size);
  impl_->missing = entry.size;
  auto* const tar = is_plain(entry, attributes, extents) ? impl_->plain.get() : impl_->pax.get();
  if (tar != impl_->tar) ZX_TRY(impl_->check(archive_write_finish_entry(impl_->tar)));
  impl_->tar = tar;
  return impl_->check(archive_write_header(tar, head));
}

Status ArchiveWriter::write(std::string_view bytes) {
  if (bytes.size() > impl_->missing)
    return fail(Code::internal, "a member has more bytes than its header says");
  impl_->missing -= bytes.size();
  while (!bytes.empty()) {
    const auto put = archive_write_data(impl_->tar, bytes.data(), bytes.size());
    if (put <= 0) return impl_->check(ARCHIVE_FATAL);
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

Result<Object> ArchiveWriter::finish() {
  if (impl_->missing > 0)
    return fail(Code::internal, fmt::format("a member lacks {} bytes", impl_->missing));
  ZX_TRY(impl_->check(archive_write_finish_entry(impl_->tar)));
  // Both have an end to write, and an archive has one.
  impl_->is_over = true;
  impl_->tar = impl_->pax.get();
  ZX_TRY(impl_->check(archive_write_close(impl_->tar)));
  impl_->is_over = false;
  impl_->tar = impl_->plain.get();
  ZX_TRY(impl_->check(archive_write_close(impl_->tar)));
  ZX_TRY(impl_->flush());
  return impl_->object.finish();
}

struct ArchiveReader::Impl {
  ObjectReader object;
  std::string path;  // of the archive in the repository
  std::optional<Error> problem;
  bool has_ended = false;
  archive_entry* entry = nullptr;  // the archive's own
  std::unique_ptr<archive, ReadEnd> tar{archive_read_new()};

  Impl(ObjectReader reader, std::string name) : object(std::move(reader)), path(std::move(name)) {}
  static la_ssize_t give(archive* tar, void* data, const void** bytes) {
    auto& self = *static_cast<Impl*>(data);
    auto piece = self.object.next();
    if (const auto signal = os::interruption(); signal && piece) piece = fail(*signal);
    if (!piece) {
      self.problem = piece.error();
      archive_set_error(tar, EIO, "the object is damaged");
      return -1;
    }
    *bytes = piece->data();
    self.has_ended = piece->empty();
    return static_cast<la_ssize_t>(piece->size());
  }
  [[nodiscard]] Error wrong(const std::string& what) const {
    if (problem) return *problem;
    return Error{Code::failed, fmt::format("{} is damaged: {}", path, what), {}, {}, false};
  }
  // The sum of the object is known only at its very end.
  Status drain() {
    while (!has_ended) {
      if (const auto signal = os::interruption()) return fail(*signal);
      ZX_ASSIGN(const auto piece, object.next());
      has_ended = piece.empty();
    }
    return {};
  }
  Status fill(Member& member) const;
};

// What zx writes, and nothing else.
Status ArchiveReader::Impl::fill(Member& member) const {
  const char* const name = archive_entry_pathname(entry);
  if (name == nullptr || *name == '\0') return fail(wrong("a member without a name"));
  member.path = name;
  if (archive_entry_hardlink(entry) != nullptr)
    return fail(wrong(shown(member.path) + " is a hard link"));
  const auto type = archive_entry_filetype(entry);
  if (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK)
    return fail(wrong(shown(member.path) + " is no file, directory or symbolic link"));
  member.type = type == AE_IFREG ? 'f' : type == AE_IFDIR ? 'd' : 'l';
  if (member.type == 'd' && member.path.ends_with('/')) member.path.pop_back();
  if (!is_tree_path(member.path))
    return fail(wrong("a member's path leads elsewhere: " + shown(member.path)));
  const auto size = archive_entry_size(entry);
  if (size < 0 || (member.type != 'f' && size > 0))
    return fail(wrong(shown(member.path) + " has a size that does not fit"));
  member.size = static_cast<std::uint64_t>(size);
  const char* const target = member.type == 'l' ? archive_entry_symlink(entry) : "";
  if (target == nullptr) return fail(wrong(shown(member.path) + " has no target"));
  member.target = target;
  return {};
}

ArchiveReader::ArchiveReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ArchiveReader::ArchiveReader(ArchiveReader&&) noexcept = default;
ArchiveReader::~ArchiveReader() = default;

Result<ArchiveReader> ArchiveReader::open(const Repository& repository, const Object& object) {
  ZX_ASSIGN(auto reader, ObjectReader::open(repository, object));
  auto impl = std::make_unique<Impl>(std::move(reader), object.path);
  auto* const tar = impl->tar.get();
  if (tar == nullptr) throw std::bad_alloc();
  if (archive_read_support_format_tar(tar) != ARCHIVE_OK ||
      archive_read_open(tar, impl.get(), nullptr, Impl::give, nullptr) != ARCHIVE_OK)
    return fail(impl->wrong(words_of(tar)));
  return ArchiveReader(std::move(impl));
}

Result<bool> ArchiveReader::next(Member& member) {
  const auto outcome = archive_read_next_header(impl_->tar.get(), &impl_->entry);
  if (outcome == ARCHIVE_EOF) {
    ZX_TRY(impl_->drain());
    return false;
  }
  if (outcome != ARCHIVE_OK) return fail(impl_->wrong(words_of(impl_->tar.get())));
  ZX_TRY(impl_->fill(member));
  return true;
}

std::vector<Attribute> ArchiveReader::attributes() const {
  std::vector<Attribute> found;
  archive_entry_xattr_reset(impl_->entry);
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  while (archive_entry_xattr_next(impl_->entry, &name, &value, &size) == ARCHIVE_OK)
    found.push_back({attribute_name(name), std::string(static_cast<const char*>(value), size)});
  return found;
}

Status ArchiveReader::read(const Take& take) {
  while (true) {
    const void* bytes = nullptr;
    std::size_t size = 0;
    la_int64_t offset = 0;
    const auto outcome = archive_read_data_block(impl_->tar.get(), &bytes, &size, &offset);
    if (outcome == ARCHIVE_EOF) return {};
    if (outcome != ARCHIVE_OK) return fail(impl_->wrong(words_of(impl_->tar.get())));
    if (size == 0) continue;
    if (offset < 0) return fail(impl_->wrong("content before the beginning of a file"));
    ZX_TRY(take(static_cast<std::uint64_t>(offset), {static_cast<const char*>(bytes), size}));
  }
}

}  // namespace zx::backup
