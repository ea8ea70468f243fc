#include "lib/config/keys.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/config/document.h"

namespace zx::config {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;  // clang 14 does not find it out by itself

const Place& fresh_place() {
  static Platform platform = [] {
    Platform fresh;
    fresh.state_dir = default_state_dir();
    return fresh;
  }();
  static Region region;
  static Host host;
  static PgCluster cluster;
  static PgNode node;
  static RedisDeployment deployment;
  static RedisNode redis_node;
  static Agent agent;
  static Backup backup;
  static BackupFiles backup_files;
  static BackupCheck backup_check;
  static Service service;
  static const Place place{&platform,   &region, &host,   &cluster,      &node,         &deployment,
                           &redis_node, &agent,  &backup, &backup_files, &backup_check, &service};
  return place;
}

}  // namespace

const Key* find_key(std::string_view pattern) {
  for (const auto& key : keys())
    if (key.pattern == pattern) return &key;
  return nullptr;
}

std::string name_of(const Key& key) {
  return std::string(key.pattern.substr(key.pattern.rfind('.') + 1));
}

std::string_view table_of(const Key& key) { return key.pattern.substr(0, key.pattern.rfind('.')); }

std::vector<std::string> parts_after(std::string_view pattern) {
  const auto prefix = pattern.empty() ? std::string() : std::string(pattern) + ".";
  std::vector<std::string> parts;
  for (const auto& key : keys()) {
    if (!key.pattern.starts_with(prefix)) continue;
    const auto rest = key.pattern.substr(prefix.size());
    const std::string part(rest.substr(0, rest.find('.')));
    if (std::find(parts.begin(), parts.end(), part) == parts.end()) parts.push_back(part);
  }
  return parts;
}

std::string expected_by(const Key& key) {
  const auto& limits = key.limits;
  if (!limits.choices.empty()) return "one of " + join(limits.choices, ", ");
  if (limits.use == Use::secret) return "\"${NAME}\" with the name of an environment variable";
  return std::visit(
      Overloaded{
          [&](std::string*) {
            return std::string(limits.use == Use::plain ? "a string" : "a path");
          },
          [&](int*) { return fmt::format("an integer from {} to {}", limits.least, limits.most); },
          [](bool*) { return std::string("true or false"); },
          [](std::uint64_t*) { return std::string("a size such as \"16 MiB\""); },
          [](Millis*) { return std::string("a duration such as \"30s\""); },
          [](auto*) { return std::string("a list of strings"); },
      },
      key.slot(fresh_place()));
}

std::string spell(const Slot& slot) {
  return std::visit(
      Overloaded{
          [](std::string* text) { return spell_string(*text); },
          [](int* number) { return std::to_string(*number); },
          [](bool* flag) { return std::string(*flag ? "true" : "false"); },
          [](std::uint64_t* bytes) { return spell_string(spell_bytes(*bytes)); },
          [](Millis* span) { return spell_string(spell_duration(*span)); },
          [](List* list) { return spell_list(*list); },
          [](std::optional<List>* list) { return *list ? spell_list(**list) : std::string(); },
      },
      slot);
}

std::string spell_default(const Key& key) { return spell(key.slot(fresh_place())); }

std::vector<Table> tables_of(Config& config) {
  std::vector<Table> tables;
  tables.push_back({"platform", {"platform"}, {.platform = &config.platform}});
  for (auto& region : config.regions)
    tables.push_back({"regions.*", {"regions", region.name}, {.region = &region}});
  for (auto& host : config.hosts)
    tables.push_back({"hosts.*", {"hosts", host.name}, {.host = &host}});
  for (auto& cluster : config.pg) {
    tables.push_back({"pg.*", {"pg", cluster.name}, {.cluster = &cluster}});
    for (auto& node : cluster.nodes)
      tables.push_back({"pg.*.nodes.*",
                        {"pg", cluster.name, "nodes", node.name},
                        {.cluster = &cluster, .node = &node}});
    tables.push_back({"pg.*.policy", {"pg", cluster.name, "policy"}, {.cluster = &cluster}});
  }
  for (auto& deployment : config.redis) {
    const std::vector<std::string> parts{"redis", deployment.name};
    const Place place{.deployment = &deployment};
    tables.push_back({"redis.*", parts, place});
    for (auto& node : deployment.nodes)
      tables.push_back({"redis.*.nodes.*",
                        {"redis", deployment.name, "nodes", node.name},
                        {.deployment = &deployment, .redis_node = &node}});
    for (const auto* table : {"sentinel", "policy"})
      tables.push_back(
          {table == std::string_view("sentinel") ? "redis.*.sentinel" : "redis.*.policy",
           {"redis", deployment.name, table},
           place});
  }
  tables.push_back({"agent", {"agent"}, {.agent = &config.agent}});
  auto& backup = config.backup;
  tables.push_back({"backup", {"backup"}, {.backup = &backup}});
  for (const auto* table : {"retention", "target"})
    tables.push_back({table == std::string_view("target") ? "backup.target" : "backup.retention",
                      {"backup", table},
                      {.backup = &backup}});
  for (auto& files : backup.files)
    tables.push_back({"backup.files.*",
                      {"backup", "files", files.name},
                      {.backup = &backup, .backup_files = &files}});
  for (auto& check : backup.checks)
    tables.push_back({"backup.checks.*",
                      {"backup", "checks", check.name},
                      {.backup = &backup, .backup_check = &check}});
  for (auto& service : config.services) {
    tables.push_back({"services.*", {"services", service.name}, {.service = &service}});
    tables.push_back(
        {"services.*.health", {"services", service.name, "health"}, {.service = &service}});
  }
  return tables;
}

std::vector<const Key*> keys_in(const Table& table) {
  std::vector<const Key*> found;
  for (const auto& key : keys())
    if (table_of(key) == table.pattern) found.push_back(&key);
  return found;
}

std::vector<std::string> parts_of(const Table& table, const Key& key) {
  auto parts = table.parts;
  parts.push_back(name_of(key));
  return parts;
}

std::string default_state_dir() {
  if (geteuid() == 0) return "/var/lib/zx";
  // The XDG specification: a relative value is to be ignored.
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && state[0] == '/') return std::string(state) + "/zx";
  const char* home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/') {
    const auto* entry = getpwuid(geteuid());
    home = entry != nullptr ? entry->pw_dir : nullptr;
  }
  return home != nullptr ? std::string(home) + "/.local/state/zx" : std::string();
}

std::vector<KeyDoc> key_docs() {
  std::vector<KeyDoc> docs;
  for (const auto& key : keys()) {
    KeyDoc doc;
    doc.pattern = key.pattern;
    doc.type = expected_by(key);
    for (const auto* article : {"a ", "an "})
      if (doc.type.starts_with(article)) doc.type.erase(0, std::string_view(article).size());
    doc.type = doc.type.substr(0, doc.type.find(" such as"));
    if (doc.type == "true or false") doc.type = "boolean";
    if (key.limits.use == Use::secret) doc.type = "\"${NAME}\"";
    const auto fallback = spell_default(key);
    if (key.limits.is_required)
      doc.fallback = "required";
    else if (!key.limits.fallback.empty())
      doc.fallback = key.limits.fallback;
    else if (fallback != "\"\"" && fallback != "[]")
      doc.fallback = fallback;
    doc.doc = key.doc;
    doc.secret = key.limits.use == Use::secret;
    docs.push_back(std::move(doc));
  }
  return docs;
}

}  // namespace zx::config
