// The rows of a dump on their way into a database over several connections at once.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/backup/dump_script.h"
#include "lib/backup/set.h"
#include "lib/pg/connection.h"

namespace zx::backup {

class RowLoader {
 public:
  [[nodiscard]] static Result<RowLoader> connect(
      const pg::Target& target, const std::vector<std::pair<std::string, std::string>>& settings,
      int connections, Deadline until);
  RowLoader(RowLoader&&) noexcept;
  RowLoader& operator=(RowLoader&&) = delete;
  ~RowLoader();

  // What a DumpScript is to call, on one thread. Settings go to every connection, other statements
  // to the first; the rows of a COPY are spread over all of them, in pieces of whole lines, so that
  // a small table takes one. Each COPY is whole, in every connection, before what comes after it.
  [[nodiscard]] DumpScript::Events events();
  // What the server counted of each COPY, by the name of the table as it stands there.
  [[nodiscard]] std::vector<TableRows> counted() const;

 private:
  struct Impl;
  explicit RowLoader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::backup
