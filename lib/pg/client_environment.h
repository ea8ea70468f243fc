// How PostgreSQL's own programs reach a server: by their environment, and the password by a file,
// so that neither stands in a command line, which everybody on the host can read.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/os/files.h"
#include "lib/pg/connection.h"

namespace zx::pg {

class ClientEnvironment {
 public:
  // The passfile has no name and lies in memory: the kernel removes it with zx, killed or not.
  [[nodiscard]] static Result<ClientEnvironment> make(const Target& target);
  ClientEnvironment(ClientEnvironment&&) = default;
  ClientEnvironment& operator=(ClientEnvironment&&) = delete;
  ClientEnvironment(const ClientEnvironment&) = delete;
  ClientEnvironment& operator=(const ClientEnvironment&) = delete;

  // PGHOST, PGPORT, PGUSER, PGDATABASE, …, for ProcessOptions. Of zx's own PG… only those are
  // passed on that prove who is who: PGSERVICE and PGHOSTADDR would lead elsewhere. `options` are
  // settings of the session, as in PGOPTIONS.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> variables(
      const std::string& database,
      const std::vector<std::pair<std::string, std::string>>& options = {}) const;

 private:
  ClientEnvironment(Target target, os::Descriptor passfile)
      : target_(std::move(target)), passfile_(std::move(passfile)) {}
  Target target_;
  os::Descriptor passfile_;  // none: libpq's own ways
};

}  // namespace zx::pg
