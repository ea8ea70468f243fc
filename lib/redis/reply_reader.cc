#include "lib/redis/reply_reader.h"

#include <hiredis/hiredis.h>

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/base/units.h"

namespace zx::redis {

struct ReplyReader::Impl {
  explicit Impl(const ReplyLimits& l) : limits(l), functions(own_functions()) {
    reader.reset(redisReaderCreateWithFunctions(&functions));
    if (reader) reader->privdata = this;
  }

  // What hiredis makes of the bytes goes straight into Reply. The array that is being filled is the
  // last item of the one around it, which therefore does not grow: its address stays good.
  static Reply* place(const redisReadTask* task, Reply::Kind kind) {
    auto* self = static_cast<Impl*>(task->privdata);
    if (++self->items > self->limits.items) return nullptr;
    if (task->parent == nullptr) {
      self->reply = Reply{};
      self->reply.kind = kind;
      return &self->reply;
    }
    auto& made = static_cast<Reply*>(task->parent->obj)->items.emplace_back();
    made.kind = kind;
    return &made;
  }
  static void* text(const redisReadTask* task, char* from, size_t size) {
    const auto kind = task->type == REDIS_REPLY_ERROR    ? Reply::Kind::error
                      : task->type == REDIS_REPLY_STATUS ? Reply::Kind::status
                                                         : Reply::Kind::string;
    auto* made = place(task, kind);
    if (made == nullptr) return nullptr;
    const auto* self = static_cast<Impl*>(task->privdata);
    if (kind == Reply::Kind::error) size = std::min(size, self->limits.error_text);
    made->text.assign(from, size);
    return made;
  }
  static void* array(const redisReadTask* task, int) { return place(task, Reply::Kind::array); }
  static void* integer(const redisReadTask* task, long long number) {
    auto* made = place(task, Reply::Kind::integer);
    if (made != nullptr) made->number = number;
    return made;
  }
  static void* nil(const redisReadTask* task) { return place(task, Reply::Kind::nil); }
  static redisReplyObjectFunctions own_functions() {
    // The objects are the reader's own: there is nothing to free.
    return {&Impl::text, &Impl::array, &Impl::integer, &Impl::nil, [](void*) {}};
  }

  struct Free {
    void operator()(redisReader* r) const { redisReaderFree(r); }
  };
  ReplyLimits limits;
  redisReplyObjectFunctions functions;
  std::unique_ptr<redisReader, Free> reader;
  Reply reply;            // that is being read
  std::size_t items = 0;  // in it
  std::size_t bytes = 0;  // fed since the last whole one
  std::string defect;
};

ReplyReader::ReplyReader(const ReplyLimits& limits) : impl_(std::make_unique<Impl>(limits)) {
  if (!impl_->reader) impl_->defect = "out of memory";
}
ReplyReader::~ReplyReader() = default;

void ReplyReader::feed(std::string_view bytes) {
  if (!impl_->defect.empty() || bytes.empty()) return;
  impl_->bytes += bytes.size();
  if (redisReaderFeed(impl_->reader.get(), bytes.data(), bytes.size()) != REDIS_OK)
    impl_->defect = first_line(impl_->reader->errstr);
}

std::optional<Reply> ReplyReader::next() {
  auto& self = *impl_;
  if (!self.defect.empty()) return std::nullopt;
  void* found = nullptr;
  if (redisReaderGetReply(self.reader.get(), &found) != REDIS_OK) {
    self.defect = self.items > self.limits.items
                      ? fmt::format("a reply of more than {} items", self.limits.items)
                      : first_line(self.reader->errstr);
    return std::nullopt;
  }
  if (found == nullptr) {
    if (self.bytes > self.limits.bytes)
      self.defect = fmt::format("a reply of more than {}", format_bytes(self.limits.bytes));
    return std::nullopt;
  }
  self.items = 0;
  self.bytes = self.reader->len - self.reader->pos;
  return std::exchange(self.reply, {});
}

const std::string& ReplyReader::defect() const { return impl_->defect; }

}  // namespace zx::redis
