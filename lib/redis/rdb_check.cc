#include "lib/redis/rdb_check.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include <fmt/format.h>

#include "lib/base/count.h"
#include "lib/base/text.h"
#include "lib/redis/crc64.h"

namespace zx::redis {
namespace {

// Opcodes and object types of rdb.h.
constexpr unsigned char kFunction2 = 245, kFunctionOld = 246, kModuleAux = 247, kIdle = 248,
                        kFreq = 249, kAux = 250, kResizeDb = 251, kExpireMs = 252, kExpire = 253,
                        kSelectDb = 254, kEnd = 255;
constexpr unsigned char kString = 0, kList = 1, kSet = 2, kScored = 3, kHash = 4, kWeighted = 5,
                        kModuleOld = 6, kModule2 = 7, kZipmap = 9, kZiplistHash = 13,
                        kQuicklist = 14, kStream1 = 15, kListpackHash = 16, kListpackSorted = 17,
                        kQuicklist2 = 18, kStream2 = 19, kListpackSet = 20, kStream3 = 21;
constexpr int kFirstOfRedis72 = 11;  // the version of RDB that has the last two
constexpr int kFirstWithChecksum = 5;
constexpr std::uint64_t kAbsurd = 1ULL << 58;  // elements; far from overflowing in bytes
constexpr std::size_t kNoteLimit = 256, kMostNotes = 32, kMostDatabases = 65'536;
constexpr std::uint64_t kStreamId = 16;

std::uint64_t big_endian(const unsigned char* bytes, std::size_t count) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < count; ++i) value = value << 8 | bytes[i];
  return value;
}

std::uint64_t little_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;)
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

}  // namespace

tl::unexpected<Error> RdbCheck::bad(const std::string& what) {
  const auto at = before_ + static_cast<std::uint64_t>(reached_ - chunk_);
  return fail(Code::failed, fmt::format("not a whole RDB: {} at byte {}", what, at),
              "this copy cannot be used; take another");
}

void RdbCheck::push(Want want, std::uint64_t count, Want then) {
  expected_.at(depth_++) = {want, then, count};
}

Status RdbCheck::feed(std::string_view bytes) {
  if (has_failed_) return fail(error_);
  chunk_ = reached_ = bytes.data();
  const char* at = bytes.data();
  const char* const end = at + bytes.size();
  auto status = take(at, end);
  if (!status) {
    has_failed_ = true;
    error_ = status.error();
    return status;
  }
  if (part_ != Part::trailer && !is_complete_) crc_ = crc64(crc_, bytes);
  before_ += bytes.size();
  summary_.bytes = before_;
  chunk_ = reached_ = nullptr;
  return {};
}

Status RdbCheck::finish() {
  if (has_failed_) return fail(error_);
  if (is_complete_) return {};
  return fail(Code::failed,
              before_ == 0 ? "not a whole RDB: it is empty"
                           : fmt::format("not a whole RDB: it ends at byte {}, {}", before_,
                                         part_ == Part::trailer ? "within its checksum"
                                                                : "before its end mark"),
              "this copy cannot be used; take another");
}

Status RdbCheck::take(const char*& at, const char* end) {
  while (true) {
    reached_ = at;
    if (part_ == Part::body && depth_ > 0) {
      auto& top = expected_[depth_ - 1];
      if (top.count == 0) {
        --depth_;
        continue;
      }
      if (top.want == Want::note_end) {
        --depth_;
        end_note();
        continue;
      }
    }
    if (at == end) return {};
    if (is_complete_) return bad(count_of(end - at, "byte") + " more than it has");
    switch (part_) {
      case Part::magic: ZX_TRY(take_magic(at, end)); break;
      case Part::trailer: ZX_TRY(take_trailer(at, end)); break;
      case Part::body:
        if (depth_ > 0) {
          ZX_TRY(take_expected(at, end));
          break;
        }
        const auto code = static_cast<unsigned char>(*at++);
        ZX_TRY(opcode(code));
        // All but the trailer itself.
        if (code == kEnd) crc_ = crc64(crc_, {chunk_, static_cast<std::size_t>(at - chunk_)});
        break;
    }
  }
}

Status RdbCheck::take_magic(const char*& at, const char* end) {
  constexpr std::string_view kMagic = "REDIS";
  constexpr std::size_t kSize = 9;
  while (at < end && head_size_ < kSize) {
    if (head_size_ < kMagic.size() && *at != kMagic[head_size_]) {
      reached_ = at;
      return bad("it does not begin with REDIS, another byte is");
    }
    head_[head_size_++] = static_cast<unsigned char>(*at++);
  }
  if (head_size_ < kSize) return {};
  head_size_ = 0;
  for (std::size_t i = kMagic.size(); i < kSize; ++i) {
    if (head_[i] < '0' || head_[i] > '9') return bad("no version");
    summary_.version = summary_.version * 10 + (head_[i] - '0');
  }
  if (summary_.version < 1) return bad("no version");
  if (summary_.version > newest_)
    return fail(Code::failed,
                fmt::format("an RDB of a newer version: {}, and {} is the newest that can be read",
                            summary_.version, newest_),
                "it was written by a newer Redis than this host's");
  part_ = Part::body;
  return {};
}

Status RdbCheck::take_trailer(const char*& at, const char* end) {
  while (at < end && head_size_ < 8) head_[head_size_++] = static_cast<unsigned char>(*at++);
  if (head_size_ < 8) return {};
  const auto told = little_endian({reinterpret_cast<const char*>(head_.data()), 8});
  is_complete_ = true;
  summary_.has_checksum = told != 0;  // 0: the server writes none
  if (told == 0 || told == crc_) return {};
  reached_ = at - std::min<std::ptrdiff_t>(8, at - chunk_);
  return bad(fmt::format("its checksum {:016x} is not that of its bytes, {:016x},", told, crc_));
}

Status RdbCheck::opcode(unsigned char code) {
  const bool is_prefix = code == kExpire || code == kExpireMs || code == kFreq || code == kIdle;
  if (has_prefix_ && !is_prefix && code > kStream3) return bad("a time to live without a key");
  has_prefix_ = is_prefix;
  switch (code) {
    case kExpireMs: push(Want::bytes, 8); break;
    case kExpire: push(Want::bytes, 4); break;
    case kFreq: push(Want::bytes, 1); break;
    case kIdle: push(Want::lengths); break;
    case kAux:
      push(Want::note_end);
      push(Want::note_value);
      push(Want::note_name);
      break;
    case kResizeDb: push(Want::lengths, 2); break;
    case kSelectDb: push(Want::database); break;
    case kFunction2:
      ++summary_.functions;
      push(Want::strings);
      break;
    case kModuleAux:
      push(Want::module);
      push(Want::lengths);
      push(Want::module_when);
      push(Want::lengths);
      break;
    case kFunctionOld: return bad("a function as only a preview of Redis 7 wrote it");
    case kEnd:
      part_ = summary_.version >= kFirstWithChecksum ? Part::trailer : Part::body;
      is_complete_ = part_ == Part::body;
      break;
    default: return object(code);
  }
  if (code == kExpire || code == kExpireMs) has_expiry_ = true;
  return {};
}

bool RdbCheck::is_known(unsigned char type) const {
  if (type == kListpackSet || type == kStream3) return summary_.version >= kFirstOfRedis72;
  return type <= kWeighted || type == kModule2 || (type >= kZipmap && type <= kStream2);
}

Status RdbCheck::object(unsigned char type) {
  if (type == kModuleOld) return bad("a module's value as only a preview of Redis 4 wrote it");
  if (!is_known(type)) return bad(fmt::format("no such type of value, {},", type));
  ++summary_.keys;
  if (std::exchange(has_expiry_, false)) ++summary_.expires;
  if (!summary_.databases.contains(database_) && summary_.databases.size() == kMostDatabases)
    return bad(fmt::format("more than {} databases", kMostDatabases));
  ++summary_.databases[database_];
  switch (type) {
    case kString:
    case kListpackHash:
    case kListpackSorted:
    case kListpackSet: push(Want::strings); break;
    case kList:
    case kSet:
    case kQuicklist: many(Want::strings); break;
    case kHash: many(Want::pairs); break;
    case kScored: many(Want::scored); break;
    case kWeighted: many(Want::weighted); break;
    case kQuicklist2: many(Want::quicks); break;
    case kModule2:
      push(Want::module);
      push(Want::lengths);
      break;
    case kStream1:
    case kStream2:
    case kStream3:
      stream_version_ = type == kStream1 ? 1 : type == kStream2 ? 2 : 3;
      many(Want::groups);
      // Its length and last id; later also the first id, the highest deleted one, entries added.
      push(Want::lengths, stream_version_ == 1 ? 3 : 8);
      many(Want::pairs);
      break;
    default:  // kZipmap … kZiplistHash
      static_assert(kZiplistHash == kZipmap + 4);
      push(Want::strings);
  }
  push(Want::strings);  // its key comes first
  return {};
}

RdbCheck::Head RdbCheck::read_length(const char*& at, const char* end, std::uint64_t& value) {
  const auto size_of = [](unsigned char first) -> std::size_t {
    if (first >> 6 == 0 || first >> 6 == 3) return 1;
    if (first >> 6 == 1) return 2;
    return first == 0x80 ? 5 : first == 0x81 ? 9 : 0;
  };
  const auto first = head_size_ > 0 ? head_[0] : static_cast<unsigned char>(*at);
  const auto size = size_of(first);
  if (size == 0) return Head::bad;
  const unsigned char* bytes = nullptr;
  if (head_size_ == 0 && static_cast<std::size_t>(end - at) >= size) {
    bytes = reinterpret_cast<const unsigned char*>(at);
    at += size;
  } else {
    while (at < end && head_size_ < size) head_[head_size_++] = static_cast<unsigned char>(*at++);
    if (head_size_ < size) return Head::part;
    head_size_ = 0;
    bytes = head_.data();
  }
  if (size == 1) value = first & 0x3F;
  if (size == 2) value = std::uint64_t{first & 0x3Fu} << 8 | bytes[1];
  if (size > 2) value = big_endian(bytes + 1, size - 1);
  return first >> 6 == 3 ? Head::encoded : Head::whole;
}

Status RdbCheck::string_head(const char*& at, const char* end) {
  std::uint64_t value = 0;
  const auto head = read_length(at, end, value);
  if (head == Head::part) return {};
  if (head == Head::bad) return bad("no length of a string");
  auto& top = expected_[depth_ - 1];
  capture_ = top.want == Want::note_name    ? &name_
             : top.want == Want::note_value ? &value_
                                            : nullptr;
  if (capture_ != nullptr) {
    capture_->clear();
    value_encoding_ = head == Head::encoded ? static_cast<int>(value) : -1;
  }
  --top.count;
  if (head == Head::whole) {
    push(Want::bytes, value);
  } else if (value <= 2) {  // a number of 1, 2 or 4 bytes
    push(Want::bytes, 1ULL << value);
  } else if (value == 3) {
    push(Want::lzf);
  } else {
    return bad(fmt::format("no such encoding of a string, {},", value));
  }
  return {};
}

void RdbCheck::end_note() {
  capture_ = nullptr;
  if (name_.empty() || summary_.notes.size() == kMostNotes || value_encoding_ == 3) return;
  if (value_encoding_ >= 0) {
    auto number = static_cast<std::int64_t>(little_endian(value_));
    if (value_encoding_ == 0) number = static_cast<std::int8_t>(number);
    if (value_encoding_ == 1) number = static_cast<std::int16_t>(number);
    if (value_encoding_ == 2) number = static_cast<std::int32_t>(number);
    value_ = std::to_string(number);
  }
  summary_.notes[first_line(name_)] = first_line(value_);
}

Status RdbCheck::take_expected(const char*& at, const char* end) {
  auto& top = expected_[depth_ - 1];
  switch (top.want) {
    case Want::bytes: {
      const auto count = std::min<std::uint64_t>(top.count, static_cast<std::uint64_t>(end - at));
      if (capture_ != nullptr && capture_->size() < kNoteLimit)
        capture_->append(at, std::min<std::size_t>(count, kNoteLimit - capture_->size()));
      at += count;
      top.count -= count;
      return {};
    }
    case Want::strings:
    case Want::note_name:
    case Want::note_value: return string_head(at, end);
    case Want::score: {
      const auto size = static_cast<unsigned char>(*at++);
      --depth_;
      if (size < 253) push(Want::bytes, size);  // the others are not a number and the infinities
      return {};
    }
    case Want::lengths:
    case Want::lzf:
    case Want::many:
    case Want::quick:
    case Want::module:
    case Want::module_when:
    case Want::database: {
      std::uint64_t value = 0;
      const auto head = read_length(at, end, value);
      if (head == Head::part) return {};
      if (head != Head::whole) return bad("no length");
      return with_length(value);
    }
    default: return each(top);
  }
}

Status RdbCheck::with_length(std::uint64_t value) {
  const auto top = expected_[depth_ - 1];
  if (top.want == Want::lengths) {
    --expected_[depth_ - 1].count;
    return {};
  }
  if (top.want != Want::module) --depth_;
  switch (top.want) {
    case Want::lzf:
      if (value == 0) return bad("a compressed string of no bytes");
      push(Want::bytes, value);
      push(Want::lengths);  // its size when it is not compressed
      return {};
    case Want::many:
      if (value > kAbsurd) return bad(fmt::format("an absurd number of elements, {},", value));
      push(top.then, value);
      return {};
    case Want::quick:
      if (value != 1 && value != 2) return bad("no such kind of a list's node");
      return {};
    case Want::module_when:
      if (value != 2) return bad("no moment of a module's data");
      return {};
    case Want::database: database_ = value; return {};
    default: break;
  }
  switch (value) {  // a module's next value
    case 0: --depth_; return {};
    case 1:
    case 2: push(Want::lengths); return {};
    case 3: push(Want::bytes, 4); return {};
    case 4: push(Want::bytes, 8); return {};
    case 5: push(Want::strings); return {};
    default: return bad("no such kind of a module's value");
  }
}

// One of several that have parts.
Status RdbCheck::each(Expected& top) {
  switch (top.want) {
    case Want::pairs: top = {Want::strings, Want::bytes, top.count * 2}; return {};
    case Want::owned: top = {Want::bytes, Want::bytes, top.count * kStreamId}; return {};
    default: --top.count;
  }
  switch (top.want) {
    case Want::scored:
      push(Want::score);
      push(Want::strings);
      return {};
    case Want::weighted:
      push(Want::bytes, 8);
      push(Want::strings);
      return {};
    case Want::quicks:
      push(Want::strings);
      push(Want::quick);
      return {};
    case Want::groups:
      many(Want::consumers);
      many(Want::pending);
      push(Want::lengths, stream_version_ == 1 ? 2 : 3);  // the last id, and entries read
      push(Want::strings);
      return {};
    case Want::pending:
      push(Want::lengths);  // how often delivered
      push(Want::bytes, kStreamId + 8);
      return {};
    case Want::consumers:
      many(Want::owned);
      push(Want::bytes, stream_version_ == 3 ? 16 : 8);  // when last seen, and last active
      push(Want::strings);
      return {};
    default: return fail(Code::internal, "an RDB element that nothing is known of");
  }
}

}  // namespace zx::redis
