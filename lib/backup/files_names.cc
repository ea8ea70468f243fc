#include "lib/backup/files_names.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "lib/backup/repository_lock.h"

namespace zx::backup {
namespace {

constexpr std::size_t kMostBuffered = 4 << 20;
constexpr std::size_t kPiece = 64 << 10;

}  // namespace

Status NameLists::add(const std::string& set, std::string_view names) {
  // Neighbours mostly lie in the same archive.
  if (last_ == nullptr || last_->first != set) last_ = &*lists_.try_emplace(set).first;
  last_->second.buffer += names;
  buffered_ += names.size();
  return buffered_ < kMostBuffered ? Status() : flush();
}

Status NameLists::flush() {
  if (!file_) {
    const auto path = beside_ + ".names";
    file_ = os::Descriptor(
        open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file_) return fail(repository_error("write", path, errno));
    if (unlink(path.c_str()) != 0) return fail(repository_error("remove", path, errno));
  }
  for (auto& [set, list] : lists_) {
    if (list.buffer.empty()) continue;
    list.pieces.push_back({end_, list.buffer.size()});
    ZX_TRY(put(list.buffer));
    list.buffer = std::string();
  }
  buffered_ = 0;
  return {};
}

Status NameLists::put(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto put = pwrite(file_.get(), bytes.data(), bytes.size(), end_);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail(repository_error("write", beside_ + ".names", errno));
    end_ += put;
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

Result<Object> NameLists::store(const std::string& set, const std::string& file,
                                const std::string& path, int level) {
  const auto found = lists_.find(set);
  if (found == lists_.end()) return fail(Code::internal, "no name of " + set + " is listed");
  ZX_ASSIGN(auto object, ObjectWriter::create(file, path, level));
  std::string piece;
  for (auto [at, size] : found->second.pieces)
    while (size > 0) {
      piece.resize(std::min(size, kPiece));
      const auto got = pread(file_.get(), piece.data(), piece.size(), at);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0)
        return fail(repository_error("read", beside_ + ".names", got < 0 ? errno : EIO));
      ZX_TRY(object.write({piece.data(), static_cast<std::size_t>(got)}));
      at += got;
      size -= static_cast<std::size_t>(got);
    }
  ZX_TRY(object.write(found->second.buffer));
  return object.finish();
}

}  // namespace zx::backup
