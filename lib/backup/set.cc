#include "lib/backup/set.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/os/sha256.h"

namespace zx::backup {
namespace {

constexpr const char* kKind = "zx-recovery-set";

Json to_json(const Object& object) {
  return {{"path", object.path},
          {"bytes", object.bytes},
          {"raw_bytes", object.raw},
          {"sha256", object.sha256}};
}

Json to_json(const std::vector<Object>& objects) {
  auto list = Json::array();
  for (const auto& object : objects) list.push_back(to_json(object));
  return list;
}

Json to_json(const DatabasePart& part) {
  Json json{{"name", part.name},
            {"dump", to_json(part.dump)},
            {"owner", part.owner},
            {"encoding", part.encoding},
            {"collate", part.collate},
            {"ctype", part.ctype},
            {"provider", part.provider},
            {"icu_locale", part.icu_locale},
            {"tablespace", part.tablespace},
            {"comment", part.comment},
            {"connection_limit", part.connection_limit},
            {"acl", Json()},
            {"settings", Json::array()},
            {"extensions", part.extensions},
            {"tables", Json::array()},
            {"size", part.size},
            {"lsn", part.lsn},
            {"ms", part.took_ms}};
  if (part.has_acl) {
    json["acl"] = Json::array();
    for (const auto& grant : part.acl)
      json["acl"].push_back({{"grantee", grant.grantee},
                             {"privilege", grant.privilege},
                             {"grantable", grant.grantable}});
  }
  for (const auto& setting : part.settings)
    json["settings"].push_back(
        {{"role", setting.role}, {"name", setting.name}, {"value", setting.value}});
  for (const auto& table : part.tables)
    json["tables"].push_back({{"table", table.table}, {"rows", table.rows}});
  return json;
}

Json to_json(const PgPart& part) {
  Json json{{"cluster", part.cluster},
            {"node", part.node},
            {"from_standby", part.from_standby},
            {"server_version", part.server_version},
            {"dump_version", part.dump_version},
            {"system_id", part.system_id},
            {"timeline", part.timeline},
            {"at", format_utc(part.at)},
            {"skew_ms", part.skew_ms},
            {"globals", to_json(part.globals)},
            {"roles", part.roles},
            {"databases", Json::array()},
            {"ms", part.took_ms}};
  for (const auto& database : part.databases) json["databases"].push_back(to_json(database));
  return json;
}

Json to_json(const RedisPart& part) {
  Json json{{"deployment", part.deployment},
            {"node", part.node},
            {"rdb", to_json(part.rdb)},
            {"record", to_json(part.record)},
            {"keys", part.keys},
            {"expires", part.expires},
            {"databases", Json::object()},
            {"digest", part.digest},
            {"server_version", part.server_version},
            {"replid", part.replid},
            {"offset", part.offset ? Json(*part.offset) : Json()},
            {"at", format_utc(part.at)},
            {"ms", part.took_ms}};
  for (const auto& [number, keys] : part.databases)
    json["databases"][std::to_string(number)] = keys;
  return json;
}

Json to_json(const FilesPart& part) {
  return {{"name", part.name},
          {"path", part.path},
          {"index", to_json(part.index)},
          {"archives", to_json(part.archives)},
          {"lists", to_json(part.lists)},
          {"recipe", to_json(part.recipe)},
          {"files", part.files},
          {"bytes", part.bytes},
          {"stored_files", part.stored_files},
          {"warnings", part.warnings},
          {"at", format_utc(part.at)},
          {"ms", part.took_ms}};
}

// Reads a manifest: the first thing that is wrong is what is said.
class Reader {
 public:
  explicit Reader(std::string id) : id_(std::move(id)) {}

  [[nodiscard]] const std::string& problem() const { return problem_; }
  void wrong(const std::string& what) {
    if (problem_.empty()) problem_ = what;
  }

  std::uint64_t count(const Json& json, const char* key) {
    const auto found = json.is_object() ? json.find(key) : json.end();
    if (!json.is_object() || found == json.end() || !found->is_number_integer() ||
        (found->is_number_integer() && !found->is_number_unsigned() &&
         found->get<std::int64_t>() < 0)) {
      wrong(fmt::format("\"{}\" is no number", key));
      return 0;
    }
    return found->get<std::uint64_t>();
  }
  std::string text(const Json& json, const char* key) {
    const auto found = json.is_object() ? json.find(key) : json.end();
    if (!json.is_object() || found == json.end() || !found->is_string()) {
      wrong(fmt::format("\"{}\" is no text", key));
      return {};
    }
    return found->get<std::string>();
  }
  Wall time(const Json& json, const char* key) {
    const auto at = parse_utc(text(json, key));
    if (at == Wall{}) wrong(fmt::format("\"{}\" is no time", key));
    return at;
  }
  const Json& list(const Json& json, const char* key) {
    static const Json none = Json::array();
    const auto found = json.is_object() ? json.find(key) : json.end();
    if (!json.is_object() || found == json.end() || !found->is_array()) {
      wrong(fmt::format("\"{}\" is no list", key));
      return none;
    }
    return *found;
  }
  Object object(const Json& json) {
    Object object;
    object.path = text(json, "path");
    object.bytes = count(json, "bytes");
    object.raw = count(json, "raw_bytes");
    object.sha256 = text(json, "sha256");
    if (!is_object_path(object.path, id_))
      wrong("the path of an object leads elsewhere: " + first_line(object.path));
    if (object.sha256.size() != 64 ||
        object.sha256.find_first_not_of("0123456789abcdef") != std::string::npos)
      wrong("the SHA-256 of an object is none: " + first_line(object.path));
    return object;
  }
  std::vector<Object> objects(const Json& json, const char* key) {
    std::vector<Object> found;
    for (const auto& one : list(json, key)) found.push_back(object(one));
    return found;
  }

  DatabasePart database(const Json& json) {
    DatabasePart part;
    part.name = text(json, "name");
    if (part.name.empty() || part.name.find('\0') != std::string::npos)
      wrong("a database has no name");
    part.dump = object(get_object(json, "dump"));
    part.owner = text(json, "owner");
    part.encoding = text(json, "encoding");
    part.collate = text(json, "collate");
    part.ctype = text(json, "ctype");
    part.provider = text(json, "provider");
    part.icu_locale = get_string(json, "icu_locale");
    part.tablespace = get_string(json, "tablespace");
    part.comment = get_string(json, "comment");
    part.connection_limit = static_cast<int>(get_int(json, "connection_limit", -1));
    part.has_acl = get_object(json, "acl").is_array();
    if (part.has_acl)
      for (const auto& grant : get_object(json, "acl"))
        part.acl.push_back(
            {text(grant, "grantee"), text(grant, "privilege"), get_bool(grant, "grantable")});
    for (const auto& setting : list(json, "settings"))
      part.settings.push_back(
          {text(setting, "role"), text(setting, "name"), text(setting, "value")});
    part.extensions = get_strings(json, "extensions");
    for (const auto& table : list(json, "tables"))
      part.tables.push_back({text(table, "table"), count(table, "rows")});
    part.size = count(json, "size");
    part.lsn = text(json, "lsn");
    part.took_ms = get_int(json, "ms");
    return part;
  }

  PgPart pg(const Json& json) {
    PgPart part;
    part.cluster = text(json, "cluster");
    part.node = text(json, "node");
    part.from_standby = get_bool(json, "from_standby");
    part.server_version = text(json, "server_version");
    part.dump_version = text(json, "dump_version");
    part.system_id = text(json, "system_id");
    part.timeline = static_cast<std::uint32_t>(count(json, "timeline"));
    part.at = time(json, "at");
    part.skew_ms = get_int(json, "skew_ms");
    part.globals = object(get_object(json, "globals"));
    part.roles = get_strings(json, "roles");
    for (const auto& one : list(json, "databases")) part.databases.push_back(database(one));
    part.took_ms = get_int(json, "ms");
    return part;
  }

  RedisPart redis(const Json& json) {
    RedisPart part;
    part.deployment = text(json, "deployment");
    part.node = text(json, "node");
    part.rdb = object(get_object(json, "rdb"));
    part.record = object(get_object(json, "record"));
    part.keys = count(json, "keys");
    part.expires = count(json, "expires");
    if (const auto& databases = get_object(json, "databases"); databases.is_object()) {
      for (const auto& [number, keys] : databases.items()) {
        if (number.empty() || number.size() > 9 ||
            number.find_first_not_of("0123456789") != std::string::npos || !keys.is_number()) {
          wrong("a database of Redis has no number");
          continue;
        }
        part.databases[std::atoi(number.c_str())] = keys.get<std::uint64_t>();
      }
    }
    part.digest = get_string(json, "digest");
    part.server_version = get_string(json, "server_version");
    part.replid = get_string(json, "replid");
    if (const auto& offset = get_object(json, "offset"); offset.is_number_integer())
      part.offset = offset.get<std::int64_t>();
    part.at = time(json, "at");
    part.took_ms = get_int(json, "ms");
    return part;
  }

  FilesPart files(const Json& json) {
    FilesPart part;
    part.name = text(json, "name");
    part.path = text(json, "path");
    if (!part.path.starts_with('/')) wrong("the path of a tree of files is not absolute");
    part.index = object(get_object(json, "index"));
    part.archives = objects(json, "archives");
    part.lists = objects(json, "lists");
    part.recipe = object(get_object(json, "recipe"));
    part.files = count(json, "files");
    part.bytes = count(json, "bytes");
    part.stored_files = count(json, "stored_files");
    part.warnings = get_strings(json, "warnings");
    part.at = time(json, "at");
    part.took_ms = get_int(json, "ms");
    return part;
  }

 private:
  std::string id_;
  std::string problem_;
};

}  // namespace

Wall Set::point() const {
  auto oldest = ended;
  if (redis) oldest = std::min(oldest, redis->at);
  if (pg) oldest = std::min(oldest, pg->at);
  for (const auto& part : files) oldest = std::min(oldest, part.at);
  return oldest;
}

std::vector<Object> Set::objects() const {
  auto all = objects_for_zx();
  if (redis) all.push_back(redis->record);
  for (const auto& part : files) {
    all.insert(all.end(), part.lists.begin(), part.lists.end());
    all.push_back(part.recipe);
  }
  return all;
}

std::vector<Object> Set::objects_for_zx() const {
  std::vector<Object> all;
  if (redis) all.push_back(redis->rdb);
  if (pg) {
    all.push_back(pg->globals);
    for (const auto& database : pg->databases) all.push_back(database.dump);
  }
  for (const auto& part : files) {
    all.push_back(part.index);
    all.insert(all.end(), part.archives.begin(), part.archives.end());
  }
  return all;
}

std::uint64_t Set::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& object : objects()) sum += object.bytes;
  return sum;
}

std::uint64_t Set::new_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& object : objects())
    if (object.path.starts_with("sets/") || object.path.starts_with("archives/" + id + "-"))
      sum += object.bytes;
  return sum;
}

std::string Set::parts() const {
  std::vector<std::string> names;
  if (pg) names.emplace_back("pg");
  if (redis) names.emplace_back("redis");
  if (!files.empty()) names.emplace_back("files");
  return join(names, ", ");
}

Json to_json(const Set& set) {
  Json json{{"kind", kKind},
            {"format", set.format},
            {"id", set.id},
            {"label", set.label},
            {"host", set.host},
            {"platform", set.platform},
            {"zx", set.zx_version},
            {"begun", format_utc(set.begun)},
            {"ended", format_utc(set.ended)},
            {"redis", Json()},
            {"pg", Json()},
            {"files", Json::array()},
            {"warnings", set.warnings}};
  if (set.redis) json["redis"] = to_json(*set.redis);
  if (set.pg) json["pg"] = to_json(*set.pg);
  for (const auto& part : set.files) json["files"].push_back(to_json(part));
  return json;
}

Result<Set> set_from_json(const Json& json) {
  if (!json.is_object() || get_string(json, "kind") != kKind)
    return fail(Code::failed, "it is no manifest of a set");
  Set set;
  set.format = static_cast<int>(std::clamp<std::int64_t>(get_int(json, "format"), 0, 1'000'000));
  if (set.format > kFormat)
    return fail(Code::refused,
                fmt::format("it has format {}, this zx knows up to {}", set.format, kFormat),
                "use a newer zx");
  set.id = get_string(json, "id");
  if (set.format < 1 || !is_run_id(set.id)) return fail(Code::failed, "it has no format and no id");
  Reader reader(set.id);
  set.label = get_string(json, "label");
  set.host = get_string(json, "host");
  set.platform = get_string(json, "platform");
  set.zx_version = get_string(json, "zx");
  set.begun = reader.time(json, "begun");
  set.ended = reader.time(json, "ended");
  if (const auto& part = get_object(json, "redis"); !part.is_null()) set.redis = reader.redis(part);
  if (const auto& part = get_object(json, "pg"); !part.is_null()) set.pg = reader.pg(part);
  for (const auto& part : reader.list(json, "files")) set.files.push_back(reader.files(part));
  set.warnings = get_strings(json, "warnings");
  if (!reader.problem().empty()) return fail(Code::failed, reader.problem());
  return set;
}

std::string checksum_file_of(const Set& set, const std::string& manifest) {
  std::string text;
  const auto add = [&](const std::string& sum, const std::string& path) {
    text += fmt::format("{}  {}\n", sum, path);
  };
  os::Sha256 hash;
  hash.feed(manifest);
  add(hash.hex(), "sets/" + set.id + "/manifest.json");
  for (const auto& object : set.objects()) add(object.sha256, object.path);
  return text;
}

std::string file_name_of(const std::string& name) {
  std::string out;
  for (const char c : name) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    if (is_plain && !(out.empty() && (c == '.' || c == '-')))
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out.empty() ? "%" : out;
}

std::string shown(const Object& object) {
  const auto parts = split(object.path, '/');
  return parts.size() == 4 ? parts[2] + "/" + parts[3] : object.path;
}

bool is_object_path(const std::string& path, const std::string& id) {
  const auto is_part = [](const std::string& part) {
    return !part.empty() && part != "." && part != ".." && part.size() <= 255;
  };
  // What file_name_of() makes; nothing that would be more than a line of SHA256SUMS.
  if (path.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.%/") !=
      std::string::npos)
    return false;
  const auto parts = split(path, '/');
  if (!std::all_of(parts.begin(), parts.end(), is_part)) return false;
  if (parts.size() == 2) return parts[0] == "archives";
  return parts.size() == 4 && parts[0] == "sets" && parts[1] == id;
}

}  // namespace zx::backup
