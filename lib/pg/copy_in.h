// Rows into tables by COPY … FROM STDIN, and out of them, over a connection of its own that blocks:
// for a thread of its own, beside a load that has more than one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/clock.h"
#include "lib/pg/connection.h"

namespace zx::pg {

class CopyIn {
 public:
  // With these settings of the session.
  [[nodiscard]] static Result<CopyIn> connect(
      const Target& target, const std::vector<std::pair<std::string, std::string>>& settings,
      Deadline until);
  CopyIn(CopyIn&&) noexcept;
  CopyIn& operator=(CopyIn&&) noexcept;
  ~CopyIn();

  // Code::server with the server's words, unreachable when the connection ends, timeout,
  // interrupted when zx is. After an Error nothing more can be done; but for one that is retryable,
  // a lock that did not come in time: then the transaction can be ended.
  [[nodiscard]] Status run(const std::string& sql);
  // One statement, and all its rows.
  [[nodiscard]] Result<Rows> ask(const std::string& sql);
  // `sql` is a COPY … FROM STDIN; then the rows in its format, in pieces of any size.
  [[nodiscard]] Status begin(const std::string& sql);
  [[nodiscard]] Status put(std::string_view bytes);
  // The rows that the server counted.
  [[nodiscard]] Result<std::uint64_t> end();
  // `sql` is a COPY … TO STDOUT; `take` gets the rows in pieces of whole lines.
  [[nodiscard]] Status copy_out(const std::string& sql,
                                const std::function<Status(std::string_view)>& take);

 private:
  struct Impl;
  explicit CopyIn(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::pg
