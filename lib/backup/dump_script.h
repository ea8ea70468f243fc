// What pg_restore writes as a script for the data of a dump, taken apart as it comes: statements,
// and the rows of COPY … FROM stdin. Pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "lib/base/error.h"

namespace zx::backup {

class DumpScript {
 public:
  struct Events {
    std::function<Status(const std::string& sql)> statement;  // without its comments
    std::function<Status(const std::string& sql)> copy;       // COPY …; rows follow
    std::function<Status(std::string_view rows)> rows;        // whole lines
    std::function<Status()> copied;
  };
  explicit DumpScript(Events events) : events_(std::move(events)) {}

  // Code::failed for a command of psql, or a statement longer than any that pg_restore writes;
  // errors of the events.
  [[nodiscard]] Status feed(std::string_view piece);
  // No more will come. Code::failed in the middle of something.
  [[nodiscard]] Status finish();

 private:
  [[nodiscard]] Status line(std::string_view text);
  [[nodiscard]] Status rows(std::string_view& piece);
  void read_quotes(std::string_view text);

  Events events_;
  bool in_rows_ = false;
  bool in_quotes_ = false;  // of a name or a text, which may hold a newline
  char quote_ = 0;
  std::string rest_;       // a line that ends in a later piece
  std::string statement_;  // so far
};

}  // namespace zx::backup
