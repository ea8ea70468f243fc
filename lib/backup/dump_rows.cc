#include "lib/backup/dump_rows.h"

#include <algorithm>
#include <cstring>

#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr std::size_t kLargestHead = 256u << 20;
// Behind the rows of a COPY pg_dump writes "\.\n\n\n".
constexpr std::uint64_t kNewlinesAtEnd = 3;

constexpr char kData = 1, kBlobs = 3;  // BLK_DATA, BLK_BLOBS

std::uint64_t newlines_in(std::string_view bytes) {
  std::uint64_t count = 0;
  const char* at = bytes.data();
  const char* const end = at + bytes.size();
  while ((at = static_cast<const char*>(
              std::memchr(at, '\n', static_cast<std::size_t>(end - at)))) != nullptr) {
    ++count;
    if (++at == end) break;
  }
  return count;
}

// Reads what is at the front of a text; once it is too short, nothing more is right.
class Front {
 public:
  Front(std::string_view text, std::size_t int_size) : text_(text), int_size_(int_size) {}
  [[nodiscard]] bool is_short() const { return is_short_; }
  [[nodiscard]] std::size_t read() const { return at_; }
  void set_int_size(std::size_t size) { int_size_ = size; }
  unsigned char byte() {
    if (at_ >= text_.size()) {
      is_short_ = true;
      return 0;
    }
    return static_cast<unsigned char>(text_[at_++]);
  }
  void skip(std::size_t count) {
    if (count > text_.size() - at_) {
      is_short_ = true;
      at_ = text_.size();
    } else {
      at_ += count;
    }
  }
  // A sign and the bytes of the number, the least first.
  std::int64_t number() {
    const bool is_negative = byte() != 0;
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < int_size_; ++i)
      value |= static_cast<std::uint64_t>(byte()) << (8 * std::min<std::size_t>(i, 7));
    const auto bounded = static_cast<std::int64_t>(value & 0x7fff'ffff'ffff'ffffULL);
    return is_negative ? -bounded : bounded;
  }
  // Absent: the length is -1.
  std::string_view text(bool& is_there) {
    const auto length = number();
    is_there = length >= 0;
    if (length <= 0 || is_short_) return {};
    const auto begin = at_;
    skip(static_cast<std::size_t>(length));
    return is_short_ ? std::string_view() : text_.substr(begin, static_cast<std::size_t>(length));
  }
  std::string_view text() {
    bool is_there = false;
    return text(is_there);
  }

 private:
  std::string_view text_;
  std::size_t int_size_;
  std::size_t at_ = 0;
  bool is_short_ = false;
};

}  // namespace

void DumpRows::give_up(std::string why) {
  if (problem_.empty()) problem_ = std::move(why);
}

// All of it, or more has to come first.
bool DumpRows::read_head() {
  Front front(held_, int_size_);
  std::string magic;
  for (int i = 0; i < 5; ++i) magic += static_cast<char>(front.byte());
  const int major = front.byte(), minor = front.byte();
  (void)front.byte();  // the revision
  const std::size_t int_size = front.byte(), offset_size = front.byte();
  const int format = front.byte();
  if (front.is_short()) return false;
  // 1.14 is of PostgreSQL 12 to 15.
  if (magic != "PGDMP" || major != 1 || minor != 14 || format != 1 || int_size < 4 ||
      int_size > 8 || offset_size > 16) {
    give_up("the dump has a format that is not known here");
    return true;
  }
  int_size_ = int_size;
  front.set_int_size(int_size);
  (void)front.number();                              // compression
  for (int i = 0; i < 7; ++i) (void)front.number();  // when
  for (int i = 0; i < 3; ++i) (void)front.text();    // database, version of server, of pg_dump
  const auto entries = front.number();
  std::map<std::int64_t, Table> tables;
  for (std::int64_t i = 0; i < entries; ++i) {
    const auto id = front.number();
    const bool has_data = front.number() != 0;
    (void)front.text();  // tableoid
    (void)front.text();  // oid
    const auto name = front.text();
    const auto what = front.text();
    (void)front.number();                            // section
    for (int j = 0; j < 3; ++j) (void)front.text();  // how it is made, dropped, copied
    const auto schema = front.text();
    for (int j = 0; j < 4; ++j) (void)front.text();  // tablespace, access method, owner, with OIDs
    bool is_there = true;
    while (is_there && !front.is_short()) (void)front.text(is_there);  // dependencies
    (void)front.byte();                                                // is the offset known?
    front.skip(offset_size);
    if (front.is_short()) return false;
    if (has_data && what == "TABLE DATA") tables[id] = {std::string(schema), std::string(name), 0};
  }
  tables_ = std::move(tables);
  held_.erase(0, front.read());
  at_ = At::block;
  return true;
}

bool DumpRows::read_block() {
  Front front(held_, int_size_);
  const char kind = static_cast<char>(front.byte());
  const auto id = front.number();
  if (front.is_short()) return false;
  held_.erase(0, front.read());
  table_ = nullptr;
  if (kind == kData) {
    const auto found = tables_.find(id);
    table_ = found == tables_.end() ? nullptr : &found->second;
    at_ = At::piece;
  } else if (kind == kBlobs) {
    in_blob_ = false;
    at_ = At::blobs;
  } else {
    give_up("the dump has a block that is not known here");
  }
  return true;
}

void DumpRows::feed(std::string_view piece) {
  while (!piece.empty() && problem_.empty()) {
    if (at_ == At::rows) {
      const auto count = std::min<std::uint64_t>(left_, piece.size());
      const auto rows = piece.substr(0, static_cast<std::size_t>(count));
      if (table_ != nullptr && !in_blob_) table_->newlines += newlines_in(rows);
      piece.remove_prefix(rows.size());
      left_ -= count;
      if (left_ == 0) at_ = At::piece;
      continue;
    }
    if (at_ == At::head) {
      held_ += piece;
      piece = {};
      if (held_.size() > kLargestHead) return give_up("the dump has an endless table of contents");
      if (!read_head() || !problem_.empty()) continue;
      const auto rest = std::exchange(held_, {});
      return feed(rest);
    }
    // A number, or a byte and a number.
    const std::size_t wanted = 1 + int_size_ + (at_ == At::block ? 1 : 0);
    const auto more = std::min(wanted - held_.size(), piece.size());
    held_ += piece.substr(0, more);
    piece.remove_prefix(more);
    if (held_.size() < wanted) return;
    if (at_ == At::block) {
      (void)read_block();
      continue;
    }
    const auto number = Front(held_, int_size_).number();
    held_.clear();
    if (number < 0) return give_up("the dump has a block of a negative length");
    if (at_ == At::blobs) {  // the number of a large object; 0: there are no more
      in_blob_ = number != 0;
      at_ = in_blob_ ? At::piece : At::block;
    } else if (number > 0) {
      left_ = static_cast<std::uint64_t>(number);
      at_ = At::rows;
    } else {
      at_ = in_blob_ ? At::blobs : At::block;
    }
  }
}

Result<DumpRows::Rows> DumpRows::finish() const {
  if (!problem_.empty()) return fail(Code::refused, problem_);
  if (at_ != At::block || !held_.empty()) return fail(Code::failed, "the dump ends in the middle");
  Rows rows;
  for (const auto& [id, table] : tables_)
    rows[{table.schema, table.name}] =
        table.newlines > kNewlinesAtEnd ? table.newlines - kNewlinesAtEnd : 0;
  return rows;
}

}  // namespace zx::backup
