#include "lib/backup/redis_source.h"

#include "lib/backup/object.h"
#include "lib/redis/backup.h"
#include "lib/redis/observe.h"

namespace zx::backup {
namespace {

// A replica; where there is none that can give it, and no Sentinel that would take the reader for
// one, the master.
Result<redis::BackupSource> source_of(const config::RedisDeployment& deployment,
                                      const redis::Snapshot& snapshot) {
  auto source = redis::choose_source(deployment, snapshot, "", false);
  if (source || !deployment.sentinel.master_name.empty()) return source;
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == redis::Role::master)
      return redis::choose_source(deployment, snapshot, facts.name, false);
  return source;
}

}  // namespace

Result<RedisBackedUp> back_up_redis(const Repository& repository, const RedisJob& job) {
  const auto& deployment = job.deployment;
  const auto start = monotonic_now();
  ZX_ASSIGN(const auto audience, redis::audience_of(job.config, deployment));
  const auto snapshot =
      redis::observe(audience, std::min(deployment.policy.probe_deadline, job.until.left()));
  ZX_ASSIGN(const auto source, source_of(deployment, snapshot));
  RedisBackedUp done;
  if (auto doubt = redis::doubt_of(snapshot, source.node); !doubt.empty())
    done.warnings.push_back(std::move(doubt));
  redis::BackupOptions options;
  options.deployment = deployment.name;
  options.node = source.node;
  const auto name = file_name_of(deployment.name) + ".rdb";
  options.file = repository.incoming_path(job.set_id) + "/redis/" + name;
  options.until = job.until;
  options.throwaway.bin_dir = deployment.bin_dir;
  options.throwaway.base = job.config.platform.state_dir;
  ZX_ASSIGN(const auto target, redis::target_of(job.config, deployment, source.node));
  if (const auto* facts = snapshot.node(source.node); facts != nullptr) {
    const auto room = redis::has_room_for(*facts);
    options.load = room.has_value();
    if (!room) done.warnings.push_back("the copy was not loaded: " + room.error().message);
  }
  options.throwaway.databases =
      redis::databases_of(target, job.until.at_most(deployment.policy.probe_deadline));
  ZX_ASSIGN(auto behind, redis::catch_up(job.config, deployment, snapshot, source.node, job.until));
  if (!behind.empty()) done.warnings.push_back(std::move(behind));
  std::uint64_t told = 0;
  options.progress = [&](std::uint64_t bytes) {
    if (job.progress) job.progress(bytes - told);
    told = bytes;
  };
  auto& part = done.part;
  part.at = wall_now();
  ZX_ASSIGN(const auto backup,
            redis::take_backup(options, [&](const auto& on_length, const auto& sink) {
              redis::PullOptions pull;
              pull.until = job.until;
              pull.on_length = on_length;
              return redis::pull_rdb(target, pull, sink);
            }));
  const auto& record = backup.record;
  part.deployment = deployment.name;
  part.node = source.node;
  part.rdb = {"sets/" + job.set_id + "/redis/" + name, record.bytes, record.bytes, record.sha256};
  ZX_ASSIGN(part.record, object_of_file(options.file + ".json", part.rdb.path + ".json"));
  part.keys = record.keys;
  part.expires = record.expires;
  for (const auto& [number, keys] : backup.summary.databases)
    part.databases[static_cast<int>(number)] = keys;
  part.digest = record.digest;
  part.server_version = record.server_version;
  part.replid = record.replid;
  part.offset = record.offset;
  part.took_ms = since(start).count();
  return done;
}

}  // namespace zx::backup
