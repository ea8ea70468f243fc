#include "lib/config/config.h"

#include <charconv>
#include <cstdlib>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/config/read.h"
#include "lib/os/files.h"
#include "lib/os/secrets.h"

namespace zx::config {
namespace {

constexpr std::size_t kLargestFile = 1u << 20;

template <class T>
const T* find_named(const std::vector<T>& things, const std::string& name) {
  for (const auto& thing : things)
    if (thing.name == name) return &thing;
  return nullptr;
}

Result<std::string> secret_of(const Config& config, const std::string& file,
                              const std::string& secret, const std::string& what) {
  auto value = file.empty() ? os::expand_environment(secret)
                            : os::read_secret_file(file, os::parent_of(config.path));
  if (value) return value;
  auto error = value.error();
  // A name in zx.toml that leads nowhere, not one that the operator mistyped just now.
  if (error.code == Code::not_found) error.code = Code::config;
  if (error.hint.empty())
    error.hint = file.empty() ? "it is named in " + config.path
                              : fmt::format(
                                    "password_file = \"{}\" in {} names it; zx must be "
                                    "able to read it, and nobody else",
                                    file, config.path);
  return fail_while(std::move(error), "reading " + what);
}

Result<std::string> read_text(const std::string& path) {
  auto text = os::read_file(path, kLargestFile);
  if (!text) {
    auto error = text.error();
    error.code = Code::config;
    return fail(std::move(error));
  }
  return text;
}

}  // namespace

const PgNode* PgCluster::node(const std::string& wanted) const { return find_named(nodes, wanted); }
const RedisNode* RedisDeployment::node(const std::string& wanted) const {
  return find_named(nodes, wanted);
}
const Host* Config::host(const std::string& wanted) const { return find_named(hosts, wanted); }
const PgCluster* Config::cluster(const std::string& wanted) const { return find_named(pg, wanted); }
const RedisDeployment* Config::deployment(const std::string& wanted) const {
  return find_named(redis, wanted);
}

Endpoint endpoint_of(const Config& config, const std::string& node) {
  const auto colon = node.rfind(':');
  Endpoint endpoint{node.substr(0, colon), 0};
  if (colon != std::string::npos) {
    const auto* end = node.data() + node.size();
    const auto read = std::from_chars(node.data() + colon + 1, end, endpoint.port);
    if (read.ec != std::errc{} || read.ptr != end) endpoint.port = 0;
  }
  auto& address = endpoint.address;
  if (const auto* host = config.host(address))
    address = host->address;
  else if (address.starts_with('[') && address.ends_with(']'))
    address = address.substr(1, address.size() - 2);
  return endpoint;
}

Result<std::string> password_of(const Config& config, const PgCluster& cluster) {
  return secret_of(config, cluster.password_file, cluster.password,
                   "the password of " + spell_key({"pg", cluster.name}));
}

Result<std::string> replication_password_of(const Config& config, const PgCluster& cluster) {
  return secret_of(config, cluster.replication_password_file, cluster.replication_password,
                   "the replication password of " + spell_key({"pg", cluster.name}));
}

Result<std::string> password_of(const Config& config, const RedisDeployment& deployment) {
  return secret_of(config, deployment.password_file, deployment.password,
                   "the password of " + spell_key({"redis", deployment.name}));
}

Result<std::string> sentinel_password_of(const Config& config, const RedisDeployment& deployment) {
  return secret_of(config, deployment.sentinel.password_file, deployment.sentinel.password,
                   "the password of " + spell_key({"redis", deployment.name, "sentinel"}));
}

Result<std::string> etcd_password_of(const Config& config) {
  return secret_of(config, config.agent.etcd_password_file, config.agent.etcd_password,
                   "the password of agent.etcd_user");
}

Result<std::string> find_file(const std::optional<std::string>& flag) {
  const auto demanded = [](const std::string& path, const std::string& by) -> Result<std::string> {
    if (os::exists(path)) return path;
    return fail(Code::config, fmt::format("the file {} that {} names does not exist", path, by));
  };
  if (flag) return demanded(*flag, "--config");
  const char* variable = std::getenv("ZX_CONFIG");
  if (variable != nullptr && *variable != '\0') return demanded(variable, "$ZX_CONFIG");

  std::vector<std::string> places{"zx.toml"};
  const char* home = std::getenv("HOME");
  if (home != nullptr && *home != '\0') places.push_back(std::string(home) + "/.config/zx/zx.toml");
  places.push_back("/etc/zx/zx.toml");
  for (const auto& place : places)
    if (os::exists(place)) return place;
  return fail(Code::config, "no zx.toml, looked for " + join(places, ", "),
              "zx config init writes one; --config FILE and $ZX_CONFIG name another place");
}

Result<Config> load(const std::string& path) {
  ZX_ASSIGN(const auto text, read_text(path));
  return load_text(text, path);
}

Result<Config> load_text(const std::string& text, const std::string& path) {
  ZX_ASSIGN(auto draft, read_config(text, path));
  return std::move(draft.config);
}

Result<std::vector<Shown>> show(const std::string& path) {
  ZX_ASSIGN(const auto text, read_text(path));
  ZX_ASSIGN(auto draft, read_config(text, path));
  std::vector<Shown> lines;
  for (const auto& table : tables_of(draft.config)) {
    for (const auto* key : keys_in(table)) {
      Shown line;
      line.key = spell_key(parts_of(table, *key));
      line.value = spell(key->slot(table.place));
      if (line.value.empty()) line.value = "(none)";
      if (key->limits.use == Use::secret && line.value != "\"\"") line.value = "(hidden)";
      const auto mark = draft.marks.find(line.key);
      if (mark == draft.marks.end())
        line.origin = "default";
      else if (!mark->second.variable.empty())
        line.origin = "$" + mark->second.variable;
      else
        line.origin = fmt::format("{}:{}", path, mark->second.line);
      lines.push_back(std::move(line));
    }
  }
  return lines;
}

}  // namespace zx::config
