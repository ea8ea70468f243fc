#include "lib/backup/object.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <vector>

#include <fmt/format.h>
#include <zstd.h>

#include "lib/backup/repository_lock.h"
#include "lib/os/sha256.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

constexpr int kMostWindow = 24;  // 2^24 bytes; level 19 has 2^23
constexpr Millis kNever{24LL * 365 * 3'600'000};

Status write_all(int file, const std::string& path, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto put = ::write(file, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail(repository_error("write", path, errno));
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

// errno as a negative number.
ssize_t read_some(int file, std::vector<char>& into) {
  while (true) {
    const auto got = ::read(file, into.data(), into.size());
    if (got >= 0) return got;
    if (errno != EINTR) return -errno;
  }
}

Error damaged(const Object& object, const std::string& how) {
  return Error{Code::failed, shown(object) + " " + how, "", {}, false};
}

}  // namespace

struct ObjectWriter::Impl {
  std::string file, path;
  os::Descriptor out;
  ZSTD_CCtx* zstd = ZSTD_createCCtx();
  std::vector<char> buffer = std::vector<char>(ZSTD_CStreamOutSize());
  os::Sha256 hash;
  std::uint64_t raw = 0, bytes = 0;
  bool is_finished = false;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    ZSTD_freeCCtx(zstd);
    if (!is_finished && out) unlink(file.c_str());
  }
  Status compress(std::string_view piece, ZSTD_EndDirective end) {
    ZSTD_inBuffer in{piece.data(), piece.size(), 0};
    while (true) {
      ZSTD_outBuffer to{buffer.data(), buffer.size(), 0};
      const auto left = ZSTD_compressStream2(zstd, &to, &in, end);
      if (ZSTD_isError(left) != 0)
        return fail(Code::internal, "zstd: " + std::string(ZSTD_getErrorName(left)));
      const std::string_view made(buffer.data(), to.pos);
      hash.feed(made);
      bytes += made.size();
      ZX_TRY(write_all(out.get(), file, made));
      const bool is_done = end == ZSTD_e_end ? left == 0 : in.pos == in.size;
      if (is_done) return {};
    }
  }
};

ObjectWriter::ObjectWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ObjectWriter::ObjectWriter(ObjectWriter&&) noexcept = default;
ObjectWriter::~ObjectWriter() = default;

Result<ObjectWriter> ObjectWriter::create(const std::string& file, const std::string& path,
                                          int level) {
  auto impl = std::make_unique<Impl>();
  if (impl->zstd == nullptr) throw std::bad_alloc();
  impl->file = file;
  impl->path = path;
  ZSTD_CCtx_setParameter(impl->zstd, ZSTD_c_compressionLevel, level);
  ZSTD_CCtx_setParameter(impl->zstd, ZSTD_c_checksumFlag, 1);
  // Not an error where the library has no threads: it compresses in this one then.
  ZSTD_CCtx_setParameter(impl->zstd, ZSTD_c_nbWorkers, 1);
  impl->out = os::Descriptor(
      ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!impl->out) return fail(repository_error("write", file, errno));
  if (fchmod(impl->out.get(), 0600) != 0) return fail(repository_error("write", file, errno));
  return ObjectWriter(std::move(impl));
}

Status ObjectWriter::write(std::string_view bytes) {
  impl_->raw += bytes.size();
  return impl_->compress(bytes, ZSTD_e_continue);
}

std::uint64_t ObjectWriter::raw() const { return impl_->raw; }

Result<Object> ObjectWriter::finish() {
  ZX_TRY(impl_->compress({}, ZSTD_e_end));
  if (fsync(impl_->out.get()) != 0) return fail(repository_error("write", impl_->file, errno));
  impl_->is_finished = true;
  return Object{impl_->path, impl_->bytes, impl_->raw, impl_->hash.hex()};
}

Result<Object> object_of_file(const std::string& file, const std::string& path) {
  const os::Descriptor in(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!in) return fail(repository_error("read", file, errno));
  std::vector<char> buffer(1u << 18);
  os::Sha256 hash;
  Object object{path, 0, 0, {}};
  while (true) {
    const auto got = read_some(in.get(), buffer);
    if (got < 0) return fail(repository_error("read", file, static_cast<int>(-got)));
    if (got == 0) break;
    hash.feed({buffer.data(), static_cast<std::size_t>(got)});
    object.bytes += got;
  }
  if (fsync(in.get()) != 0) return fail(repository_error("write", file, errno));
  object.raw = object.bytes;
  object.sha256 = hash.hex();
  return object;
}

struct ObjectReader::Impl {
  Object object;
  os::Descriptor file;
  ZSTD_DCtx* zstd = ZSTD_createDCtx();
  std::vector<char> stored = std::vector<char>(1u << 18);
  std::vector<char> plain = std::vector<char>(1u << 20);
  ZSTD_inBuffer in{nullptr, 0, 0};
  os::Sha256 hash;
  std::uint64_t bytes = 0, raw = 0;
  std::size_t wanted = 1;  // 0: a frame has ended
  bool has_ended = false;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { ZSTD_freeDCtx(zstd); }
};

ObjectReader::ObjectReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ObjectReader::ObjectReader(ObjectReader&&) noexcept = default;
ObjectReader::~ObjectReader() = default;

Result<ObjectReader> ObjectReader::open(const Repository& repository, const Object& object) {
  auto impl = std::make_unique<Impl>();
  if (impl->zstd == nullptr) throw std::bad_alloc();
  // No writer of zx uses a longer window: a hostile frame may not ask for more memory.
  ZSTD_DCtx_setParameter(impl->zstd, ZSTD_d_windowLogMax, kMostWindow);
  ZX_ASSIGN(impl->file, repository.open_object(object));
  impl->object = object;
  return ObjectReader(std::move(impl));
}

Result<std::string_view> ObjectReader::next() {
  auto& in = impl_->in;
  const auto& object = impl_->object;
  if (impl_->has_ended) return std::string_view();
  while (true) {
    if (in.pos == in.size) {
      const auto read = read_some(impl_->file.get(), impl_->stored);
      if (read < 0) return fail(unreadable(object, static_cast<int>(-read)));
      if (read == 0) break;
      const auto got = static_cast<std::size_t>(read);
      impl_->hash.feed({impl_->stored.data(), got});
      impl_->bytes += got;
      in = {impl_->stored.data(), got, 0};
    }
    ZSTD_outBuffer out{impl_->plain.data(), impl_->plain.size(), 0};
    impl_->wanted = ZSTD_decompressStream(impl_->zstd, &out, &in);
    if (ZSTD_isError(impl_->wanted) != 0)
      return fail(damaged(
          object, fmt::format("cannot be decompressed: {}", ZSTD_getErrorName(impl_->wanted))));
    impl_->raw += out.pos;
    // More than it was made of: a bomb.
    if (impl_->raw > object.raw)
      return fail(damaged(object, fmt::format("holds more than {} bytes", object.raw)));
    if (out.pos > 0) return std::string_view(impl_->plain.data(), out.pos);
  }
  impl_->has_ended = true;
  if (impl_->bytes != object.bytes || impl_->hash.hex() != object.sha256)
    return fail(damaged(object, "is not what was written: another SHA-256"));
  if (impl_->wanted != 0 || impl_->raw != object.raw)
    return fail(damaged(object, fmt::format("ends after {} of {} bytes", impl_->raw, object.raw)));
  return std::string_view();
}

bool says_damage(int number) {
  switch (number) {
    case EIO:
    case EUCLEAN:  // metadata that contradicts itself; a wrong sum of it is EBADMSG
    case EBADMSG:
    case ENODATA:  // a sector that is lost
    case EILSEQ:   // a wrong sum, of encrypted or compressed content too
      return true;
    default: return false;
  }
}

Error unreadable(const Object& object, int number) {
  if (!says_damage(number)) return repository_error("read", object.path, number);
  return errno_error(Code::failed, shown(object) + " cannot be read", number);
}

Status check_sum(const Repository& repository, const Object& object,
                 const std::function<void(std::uint64_t)>& progress) {
  return check_sum(repository, object, progress, Deadline::after(kNever));
}

Status check_sum(const Repository& repository, const Object& object,
                 const std::function<void(std::uint64_t)>& progress, Deadline until) {
  ZX_ASSIGN(const auto file, repository.open_object(object));
  std::vector<char> buffer(1u << 20);
  os::Sha256 hash;
  std::uint64_t bytes = 0;
  while (true) {
    if (const auto signal = os::interruption()) return fail(*signal);
    if (until.passed()) return fail(Code::timeout, shown(object) + " was not read by the deadline");
    const auto read = read_some(file.get(), buffer);
    if (read < 0) return fail(unreadable(object, static_cast<int>(-read)));
    if (read == 0) break;
    const auto got = static_cast<std::size_t>(read);
    hash.feed({buffer.data(), got});
    bytes += got;
    if (progress) progress(got);
  }
  if (bytes != object.bytes || hash.hex() != object.sha256)
    return fail(damaged(object, "is not what was written: another SHA-256"));
  return {};
}

Result<std::string> read_object(const Repository& repository, const Object& object,
                                std::size_t limit) {
  if (object.raw > limit)
    return fail(damaged(object, fmt::format("is larger than {}", format_bytes(limit))));
  ZX_ASSIGN(auto reader, ObjectReader::open(repository, object));
  std::string text;
  while (true) {
    ZX_ASSIGN(const auto piece, reader.next());
    if (piece.empty()) return text;
    text += piece;
  }
}

}  // namespace zx::backup
