// The bytes of a server as replies, within limits: whatever they are, memory is bounded and the
// first that is no reply ends the reading.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "lib/redis/connection.h"

namespace zx::redis {

struct ReplyLimits {
  std::size_t bytes = 64u << 20;      // of one reply
  std::size_t items = 1u << 20;       // of one reply, all nested ones counted
  std::size_t error_text = 1u << 10;  // of an error; cut
};

class ReplyReader {
 public:
  explicit ReplyReader(const ReplyLimits& limits = {});
  ~ReplyReader();
  ReplyReader(const ReplyReader&) = delete;
  ReplyReader& operator=(const ReplyReader&) = delete;

  void feed(std::string_view bytes);
  // The next whole reply; nothing while more bytes are needed, and after a defect. An error reply
  // is a Reply of that kind.
  [[nodiscard]] std::optional<Reply> next();
  // Why nothing more can be read; empty while all is well.
  [[nodiscard]] const std::string& defect() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::redis
