#include <algorithm>
#include <charconv>
#include <cstring>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/redis/rdb_stream.h"

namespace zx::redis {
namespace {

constexpr std::size_t kMarkSize = 40;
constexpr std::size_t kLongestLine = 1024;

Error refusal(const std::string& text) {
  Error error{Code::server, "the server refuses SYNC: " + text, {}, {}, false};
  if (text.starts_with("NOMASTERLINK"))
    error.hint = "its link to its own master is down: take the copy from another replica";
  if (text.starts_with("LOADING")) error.hint = "it reads its data set into memory; try later";
  if (text.starts_with("NOPERM") || text.starts_with("NOAUTH")) {
    error.code = Code::auth;
    error.hint = "the ACL user needs +sync +psync +replconf";
  }
  return error;
}

// How many bytes at the end of `bytes` may be the beginning of the mark. With a mark of random
// bytes: none, nearly always, and nothing has to be held back.
std::size_t begun_mark(std::string_view bytes, std::string_view mark) {
  for (auto size = std::min(bytes.size(), mark.size() - 1); size > 0; --size)
    if (bytes.ends_with(mark.substr(0, size))) return size;
  return 0;
}

// Of a mark in the data of a whole piece; find() would stop at every byte that it begins with.
std::size_t find_mark(std::string_view bytes, std::string_view mark) {
  const void* const found = ::memmem(bytes.data(), bytes.size(), mark.data(), mark.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<std::size_t>(static_cast<const char*>(found) - bytes.data());
}

}  // namespace

Status SyncReply::give(std::string_view bytes, const RdbSink& sink) {
  if (bytes.empty()) return {};
  bytes_ += bytes.size();
  return sink(bytes);
}

Status SyncReply::preamble(const std::string& line) {
  if (line.empty()) return {};  // still saving
  if (line.front() == '-') return fail(refusal(first_line(line.substr(1))));
  if (line.starts_with("$EOF:")) {
    mark_ = line.substr(5);
    if (mark_.size() != kMarkSize)
      return fail(Code::failed, "the server announced an end mark of another length than 40");
    part_ = Part::marked;
    return {};
  }
  if (line.front() != '$')
    return fail(Code::failed, "the server answered SYNC with: " + first_line(line));
  std::uint64_t length = 0;
  const auto* const end = line.data() + line.size();
  const auto [stopped, error] = std::from_chars(line.data() + 1, end, length);
  if (error != std::errc() || stopped != end)
    return fail(Code::failed, "the server announced no length: " + first_line(line));
  if (length == 0 || length > kMostBytes)
    return fail(Code::failed,
                fmt::format("the server announced an absurd length of {} bytes", length));
  announced_ = length;
  part_ = Part::counted;
  return {};
}

Status SyncReply::feed(std::string_view bytes, const RdbSink& sink) {
  while (!bytes.empty()) {
    if (part_ == Part::done) return {};
    if (part_ == Part::marked) return marked(bytes, sink);
    if (part_ == Part::counted) {
      const auto part =
          bytes.substr(0, std::min<std::uint64_t>(bytes.size(), *announced_ - bytes_));
      ZX_TRY(give(part, sink));
      if (bytes_ == *announced_) part_ = Part::done;
      bytes.remove_prefix(part.size());
      continue;
    }
    const auto newline = bytes.find('\n');
    line_.append(bytes.substr(0, newline));
    if (line_.size() > kLongestLine)
      return fail(Code::failed, "the server answered SYNC with a line without an end");
    if (newline == std::string_view::npos) return {};
    bytes.remove_prefix(newline + 1);
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    ZX_TRY(preamble(line_));
    line_.clear();
  }
  return {};
}

Status SyncReply::marked(std::string_view bytes, const RdbSink& sink) {
  // A mark that began in an earlier piece.
  if (!held_.empty()) {
    const auto before = held_.size();
    held_.append(bytes.substr(0, kMarkSize));
    if (const auto at = held_.find(mark_); at != std::string::npos) {
      part_ = Part::done;
      return give(std::string_view(held_).substr(0, at), sink);
    }
    if (bytes.size() < kMarkSize) {
      const auto surplus = held_.size() - begun_mark(held_, mark_);
      const auto status = give(std::string_view(held_).substr(0, surplus), sink);
      held_.erase(0, surplus);
      return status;
    }
    // No mark begins in what was held: the piece itself has the rest.
    ZX_TRY(give(std::string_view(held_).substr(0, before), sink));
    held_.clear();
  }
  if (const auto at = find_mark(bytes, mark_); at != std::string_view::npos) {
    part_ = Part::done;
    return give(bytes.substr(0, at), sink);
  }
  const auto kept = begun_mark(bytes, mark_);
  ZX_TRY(give(bytes.substr(0, bytes.size() - kept), sink));
  held_ = bytes.substr(bytes.size() - kept);
  return {};
}

Status SyncReply::closed() const {
  if (part_ == Part::done) return {};
  if (part_ == Part::preamble)
    return fail(Code::failed, "the server closed the connection before it sent its data set",
                "its log says why; a failed BGSAVE, or a full disk, often");
  const auto of = announced_ ? fmt::format(" of {}", *announced_) : std::string();
  return fail(Code::failed,
              fmt::format("the server closed the connection after {}{} bytes of its data set",
                          bytes_ + held_.size(), of),
              "its log says why; its client-output-buffer-limit of replicas, often");
}

}  // namespace zx::redis
