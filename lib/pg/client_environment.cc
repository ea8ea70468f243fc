#include "lib/pg/client_environment.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include <fmt/format.h>

#include "lib/os/files.h"
#include "lib/pg/rejoin_dir.h"

namespace zx::pg {

Result<ClientEnvironment> ClientEnvironment::make(const Target& target) {
  if (target.password.empty()) return ClientEnvironment(target, {});
  const auto line = passfile_line(target.user, target.password);
  os::Descriptor file(memfd_create("pgpass", MFD_CLOEXEC));
  // libpq takes none that others may read.
  if (!file || fchmod(file.get(), 0600) != 0 ||
      pwrite(file.get(), line.data(), line.size(), 0) != static_cast<ssize_t>(line.size()))
    return fail(errno_error(Code::io, "cannot make a passfile in memory", errno));
  return ClientEnvironment(target, std::move(file));
}

std::vector<std::pair<std::string, std::string>> ClientEnvironment::variables(
    const std::string& database,
    const std::vector<std::pair<std::string, std::string>>& options) const {
  std::string words;
  for (const auto& [name, value] : options) words += " -c " + name + "=" + value;
  std::vector<std::pair<std::string, std::string>> all{{"PG*", ""},
                                                       {"PGHOST", target_.address},
                                                       {"PGPORT", std::to_string(target_.port)},
                                                       {"PGUSER", target_.user},
                                                       {"PGDATABASE", database},
                                                       {"PGSSLMODE", target_.sslmode},
                                                       {"PGCONNECT_TIMEOUT", "10"},
                                                       {"PGAPPNAME", "zx"},
                                                       {"PGOPTIONS", words},
                                                       // Messages that zx tells apart.
                                                       {"LC_ALL", "C.UTF-8"}};
  const auto pass_on = [&](const char* name) {
    if (const char* value = getenv(name); value != nullptr) all.emplace_back(name, value);
  };
  for (const char* name : {"PGSSLCERT", "PGSSLKEY", "PGSSLCRL"}) pass_on(name);
  if (target_.sslrootcert.empty())
    pass_on("PGSSLROOTCERT");
  else
    all.emplace_back("PGSSLROOTCERT", target_.sslrootcert);
  if (!passfile_) {
    for (const char* name : {"PGPASSFILE", "PGPASSWORD"}) pass_on(name);
    return all;
  }
  // Programs of this user open it as zx's own.
  all.emplace_back("PGPASSFILE", fmt::format("/proc/{}/fd/{}", getpid(), passfile_.get()));
  return all;
}

}  // namespace zx::pg
