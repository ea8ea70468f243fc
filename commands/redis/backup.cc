// zx redis backup: a checked copy of the data set in one file.
#include <memory>

#include <fmt/format.h>

#include "commands/redis_deployment.h"
#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/os/files.h"
#include "lib/redis/backup.h"
#include "lib/redis/observe.h"

namespace zx::commands {
namespace {

struct Options {
  std::string to, from, deployment;
  bool no_load = false, digest = false, bgsave = false;
};

constexpr Millis kLongest{24 * 3'600'000};

Result<std::string> default_file(const config::Config& config, const std::string& deployment) {
  const auto directory = config.platform.state_dir + "/backups/redis";
  ZX_TRY(os::make_directories(directory));
  auto stamp = format_utc(wall_now()).substr(0, 19);
  std::erase_if(stamp, [](char c) { return c == '-' || c == ':'; });
  return fmt::format("{}/{}-{}Z.rdb", directory, deployment, stamp);
}

Result<redis::RdbSource> source_of(const config::Config& config,
                                   const config::RedisDeployment& deployment,
                                   const std::string& node, bool bgsave, Deadline until) {
  ZX_ASSIGN(const auto target, redis::target_of(config, deployment, node));
  if (!bgsave)
    return redis::RdbSource([target, until](const auto& on_length, const auto& sink) {
      redis::PullOptions options;
      options.until = until;
      options.on_length = on_length;
      return redis::pull_rdb(target, options, sink);
    });
  const auto* host = config.host(deployment.node(node)->host);
  if (host == nullptr || !host->remote || !host->remote->empty())
    return fail(
        Code::refused,
        fmt::format("--bgsave reads the file that {} saves, and it is on another host", node),
        fmt::format("run zx redis backup on {}, or take the copy over the wire",
                    host == nullptr ? "its host" : host->name));
  ZX_ASSIGN(const auto saved, redis::save_on_server(target, until));
  return redis::saved_file(saved);
}

Json to_json(const redis::Backup& backup, const redis::BackupSource& source,
             const std::string& doubt) {
  auto json = redis::to_json(backup.record);
  json.erase("schema");
  auto databases = Json::object();
  for (const auto& [number, keys] : backup.summary.databases)
    databases[std::to_string(number)] = keys;
  Json out{{"outcome", "done"}, {"file", backup.file}, {"why", source.why}};
  out.update(json);
  out["databases"] = std::move(databases);
  out["functions"] = backup.summary.functions;
  out["has_checksum"] = backup.summary.has_checksum;
  out["loaded"] = backup.content.has_value();
  out["waited_ms"] = backup.waited.count();
  out["streamed_ms"] = backup.streamed.count();
  out["ms"] = backup.took.count();
  out["warnings"] = Json::array();
  if (!doubt.empty()) out["warnings"].push_back(doubt);
  out["error"] = Json();
  return out;
}

void show(Env& env, const redis::Backup& backup, const redis::BackupSource& source) {
  const auto& record = backup.record;
  env.screen.line(fmt::format("Copied {} ({}): {}, {} keys in {}.", record.node, source.why,
                              format_bytes(record.bytes), record.keys,
                              format_duration(backup.took)));
  std::vector<std::string> checked{"structure"};
  checked.emplace_back(backup.summary.has_checksum ? "checksum"
                                                   : "no checksum (the server writes none)");
  if (backup.content)
    checked.emplace_back("loaded by a server");
  else
    checked.emplace_back("not loaded");
  Table table;
  table.rows.push_back({"file", backup.file});
  table.rows.push_back({"checked", join(checked, ", ")});
  table.rows.push_back({"SHA-256", record.sha256});
  if (!record.digest.empty()) table.rows.push_back({"digest", record.digest});
  if (record.offset)
    table.rows.push_back({"offset", fmt::format("{} of {}", *record.offset, record.replid)});
  env.screen.table(table);
}

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto* deployment, pick_deployment(*config, given.deployment));
  const auto until = Deadline::after(env.shared.timeout.value_or(kLongest));
  ZX_ASSIGN(const auto audience, redis::audience_of(*config, *deployment));
  const auto snapshot =
      redis::observe(audience, std::min(deployment->policy.probe_deadline, until.left()));
  ZX_ASSIGN(const auto source,
            redis::choose_source(*deployment, snapshot, given.from, given.bgsave));
  auto doubt = redis::doubt_of(snapshot, source.node);
  if (!doubt.empty()) {
    doubt += "; zx redis status says more";
    env.screen.note(doubt);
  }
  const auto* facts = snapshot.node(source.node);
  if (!given.no_load && facts != nullptr) {
    if (auto room = redis::has_room_for(*facts); !room) {
      auto error = room.error();
      error.hint = "without the load it is checked by its structure and checksum alone: --no-load";
      return fail(std::move(error));
    }
  }
  ZX_ASSIGN(const auto behind, redis::catch_up(*config, *deployment, snapshot, source.node, until));
  if (!behind.empty()) env.screen.note(behind);
  redis::BackupOptions options;
  options.deployment = deployment->name;
  options.node = source.node;
  options.file = given.to;
  if (options.file.empty()) {
    ZX_ASSIGN(options.file, default_file(*config, deployment->name));
  }
  options.load = !given.no_load;
  options.digest = given.digest;
  options.until = until;
  options.throwaway.bin_dir = deployment->bin_dir;
  options.throwaway.base = config->platform.state_dir;
  if (options.load) {
    ZX_ASSIGN(const auto target, redis::target_of(*config, *deployment, source.node));
    options.throwaway.databases =
        redis::databases_of(target, until.at_most(deployment->policy.probe_deadline));
  }
  options.progress = [&env, &source](std::uint64_t bytes) {
    env.screen.progress(fmt::format("… {}  {}", source.node, format_bytes(bytes)));
  };
  log::info(fmt::format("copying {}: {}", source.node, source.why));
  ZX_ASSIGN(const auto from, source_of(*config, *deployment, source.node, given.bgsave, until));
  ZX_ASSIGN(const auto backup, redis::take_backup(options, from));
  show(env, backup, source);
  env.screen.json(to_json(backup, source, doubt));
  return 0;
}

}  // namespace

void add_redis_backup(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("redis", "look at Redis and its Sentinels"), "backup",
      "copy the data set into a file, and check it",
      {.description =
           "Takes an RDB over the wire from a replica, and checks it while it arrives: structure, "
           "end mark, checksum, announced length. A server of its own loads it at the same time, "
           "since a checksum proves bytes and not that they can be loaded. Only then has the file "
           "its name, with mode 0600, and beside it FILE.json with SHA-256, keys and offset, which "
           "zx redis restore compares. Nothing stays behind of a copy that failed; of one that was "
           "killed (kill -9) FILE.zx-part-XXXXXXXX does, until the next copy into that directory. "
           "With --digest that server also tells the digest of the data (DEBUG DIGEST), to be "
           "compared with that "
           "of another server; zx redis restore makes it anew in any case.\n\n"
           "Of the replicas, the one that is least wanted as a master is asked. A master is never "
           "asked over the wire where there are Sentinels: they would take the reader for a "
           "replica, for good. With --bgsave a server saves to its own disk first, and that file "
           "is copied: for a server on this host.",
       .examples = {{"zx redis backup", "into state_dir, named after the moment"},
                    {"zx redis backup --to /backup/cache.rdb --from redis-b", "from this replica"},
                    {"zx redis backup --no-load -o json", "on a host without the memory for it"}},
       .exits = {Code::failed, Code::refused, Code::config, Code::unreachable, Code::auth}},
      [given](Env& env) { return run(env, *given); });
  tree.complete(
      leaf->add_option("--to", given->to, "the file; it must not exist")
          ->type_name("FILE")
          ->check([](const std::string& text) {
            const bool is_name = !text.empty() && text != "-" && !text.ends_with('/');
            return is_name ? std::string()
                           : "takes the name of a file, which its record is put beside, not '" +
                                 text + "'";
          }),
      Complete::file);
  tree.complete(leaf->add_option("--from", given->from, "the node to copy")->type_name("NODE"),
                Complete::redis_node);
  add_deployment_flag(tree, leaf, given->deployment);
  auto* no_load = leaf->add_flag("--no-load", given->no_load,
                                 "do not load the copy to see that it can be loaded");
  leaf->add_flag("--digest", given->digest,
                 "tell the digest of the loaded data; takes as long again as the load")
      ->excludes(no_load);
  leaf->add_flag("--bgsave", given->bgsave,
                 "let the server save to its own disk, and copy that file");
}

}  // namespace zx::commands
