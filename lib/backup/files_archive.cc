#include "lib/backup/files_archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>

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
constexpr int kBlock = 128 << 10;  // bytes that libarchive hands over at once
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
  std::unique_ptr<archive, WriteEnd> tar{archive_write_new()};

  explicit Impl(ObjectWriter writer) : object(std::move(writer)) {}
  static la_ssize_t take(archive* tar, void* data, const void* bytes, std::size_t size) {
    auto& self = *static_cast<Impl*>(data);
    // When it is freed before its end libarchive still closes the archive: nobody wants that.
    if (self.problem) return -1;
    const auto put = self.object.write({static_cast<const char*>(bytes), size});
    if (put) return static_cast<la_ssize_t>(size);
    self.problem = put.error();
    archive_set_error(tar, EIO, "the object was not written");
    return -1;
  }
  Status check(int outcome) {
    if (outcome == ARCHIVE_OK) return {};
    if (problem) return fail(*problem);
    return fail(Code::failed, "cannot write an archive: " + words_of(tar.get()));
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
  auto* const tar = impl->tar.get();
  if (tar == nullptr || impl->entry == nullptr) throw std::bad_alloc();
  ZX_TRY(impl->check(archive_write_set_format_pax_restricted(tar)));
  ZX_TRY(impl->check(archive_write_set_options(tar, "hdrcharset=BINARY,xattrheader=SCHILY")));
  ZX_TRY(impl->check(archive_write_set_bytes_per_block(tar, kBlock)));
  ZX_TRY(impl->check(archive_write_set_bytes_in_last_block(tar, 1)));
  ZX_TRY(impl->check(archive_write_open(tar, impl.get(), nullptr, Impl::take, nullptr)));
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
  return impl_->check(archive_write_header(impl_->tar.get(), head));
}

Status ArchiveWriter::write(std::string_view bytes) {
  if (bytes.size() > impl_->missing)
    return fail(Code::internal, "a member has more bytes than its header says");
  impl_->missing -= bytes.size();
  while (!bytes.empty()) {
    const auto put = archive_write_data(impl_->tar.get(), bytes.data(), bytes.size());
    if (put <= 0) return impl_->check(ARCHIVE_FATAL);
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

Result<Object> ArchiveWriter::finish() {
  if (impl_->missing > 0)
    return fail(Code::internal, fmt::format("a member lacks {} bytes", impl_->missing));
  ZX_TRY(impl_->check(archive_write_close(impl_->tar.get())));
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
