#include "lib/pg/client_environment.h"

#include <unistd.h>

#include "lib/base/ids.h"
#include "lib/os/files.h"
#include "lib/pg/rejoin_dir.h"

namespace zx::pg {

Result<ClientEnvironment> ClientEnvironment::make(const Target& target,
                                                  const std::string& directory) {
  std::string passfile;
  if (!target.password.empty()) {
    passfile = directory + "/pgpass-" + random_hex(8);
    os::WriteOptions options;
    options.durable = false;
    ZX_TRY(os::write_file(passfile, passfile_line(target.user, target.password), options));
  }
  return ClientEnvironment(target, passfile);
}

ClientEnvironment::ClientEnvironment(ClientEnvironment&& other) noexcept
    : target_(std::move(other.target_)), passfile_(std::exchange(other.passfile_, {})) {}

ClientEnvironment::~ClientEnvironment() {
  if (!passfile_.empty()) unlink(passfile_.c_str());
}

std::vector<std::pair<std::string, std::string>> ClientEnvironment::variables(
    const std::string& database,
    const std::vector<std::pair<std::string, std::string>>& options) const {
  std::string words;
  for (const auto& [name, value] : options) words += " -c " + name + "=" + value;
  std::vector<std::pair<std::string, std::string>> all{{"PGHOST", target_.address},
                                                       {"PGPORT", std::to_string(target_.port)},
                                                       {"PGUSER", target_.user},
                                                       {"PGDATABASE", database},
                                                       {"PGSSLMODE", target_.sslmode},
                                                       {"PGCONNECT_TIMEOUT", "10"},
                                                       {"PGAPPNAME", "zx"},
                                                       {"PGOPTIONS", words},
                                                       // Messages that zx tells apart.
                                                       {"LC_ALL", "C.UTF-8"}};
  if (!target_.sslrootcert.empty()) all.emplace_back("PGSSLROOTCERT", target_.sslrootcert);
  if (passfile_.empty()) return all;
  all.emplace_back("PGPASSFILE", passfile_);
  all.emplace_back("PGPASSWORD", "");  // one that is inherited would win over the file
  return all;
}

}  // namespace zx::pg
