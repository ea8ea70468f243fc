// How PostgreSQL's own programs reach a server: by their environment, and the password by a file,
// so that neither stands in a command line, which everybody on the host can read.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/pg/connection.h"

namespace zx::pg {

class ClientEnvironment {
 public:
  // The passfile, mode 0600, is made in `directory`, which must be there, and removed at the end.
  [[nodiscard]] static Result<ClientEnvironment> make(const Target& target,
                                                      const std::string& directory);
  ClientEnvironment(ClientEnvironment&& other) noexcept;
  ClientEnvironment& operator=(ClientEnvironment&&) = delete;
  ClientEnvironment(const ClientEnvironment&) = delete;
  ClientEnvironment& operator=(const ClientEnvironment&) = delete;
  ~ClientEnvironment();

  // PGHOST, PGPORT, PGUSER, PGDATABASE, …; `options` are settings of the session, as in PGOPTIONS.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> variables(
      const std::string& database,
      const std::vector<std::pair<std::string, std::string>>& options = {}) const;

 private:
  ClientEnvironment(Target target, std::string passfile)
      : target_(std::move(target)), passfile_(std::move(passfile)) {}
  Target target_;
  std::string passfile_;  // empty: libpq's own ways
};

}  // namespace zx::pg
