// Sets for tests, written into a repository as a backup writes them, of objects that hold nothing.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "tests/support.h"

namespace zx::test {

inline Wall moment(const std::string& utc) {
  const auto at = parse_utc(utc + ":00.000Z");
  REQUIRE_MESSAGE(at != Wall{}, utc);
  return at;
}

struct SetToPut {
  std::string id = {};
  Wall begun{};
  // Names; of those that are not there yet each gets 1000 bytes.
  std::vector<std::string> archives = {};
  std::string label = {};
  bool has_redis = true, has_files = true;
};

inline backup::Object put_object(const backup::Repository& repository, const std::string& id,
                                 const std::string& path, std::size_t bytes) {
  const bool is_archive = path.starts_with("archives/");
  const auto own = "sets/" + id + "/";
  const auto file = is_archive ? repository.path() + "/" + path
                               : repository.incoming_path(id) + "/" + path.substr(own.size());
  if (!is_archive || !std::filesystem::exists(file)) write(file, std::string(bytes, 'x'));
  return {path, bytes, bytes, std::string(64, 'a')};
}

inline backup::Set put_set(const backup::Repository& repository, const SetToPut& wanted) {
  backup::Set set;
  set.id = wanted.id;
  set.label = wanted.label;
  set.host = "here";
  set.platform = "zhixuan";
  set.begun = wanted.begun;
  set.ended = wanted.begun + std::chrono::minutes(1);
  REQUIRE(repository.begin(set.id).has_value());
  if (wanted.has_redis) {
    auto& redis = set.redis.emplace();
    redis.deployment = "cache";
    redis.node = "redis-a";
    redis.at = wanted.begun + std::chrono::seconds(1);
    const auto path = "sets/" + set.id + "/redis/cache.rdb";
    redis.rdb = put_object(repository, set.id, path, 270);
    redis.record = put_object(repository, set.id, path + ".json", 30);
  }
  if (wanted.has_files) {
    auto& files = set.files.emplace_back();
    files.name = "上传";
    files.path = "/srv/上传";
    files.at = wanted.begun + std::chrono::seconds(2);
    files.index = put_object(repository, set.id, "sets/" + set.id + "/files/index.zst", 180);
    files.recipe = put_object(repository, set.id, "sets/" + set.id + "/files/x.restore", 20);
    for (const auto& name : wanted.archives)
      files.archives.push_back(put_object(repository, set.id, "archives/" + name, 1000));
  }
  const auto published = repository.publish(set);
  REQUIRE_MESSAGE(published.has_value(), (published ? "" : published.error().message));
  return set;
}

inline backup::Repository make_repository(const std::string& path) {
  auto made = backup::Repository::open_or_make(path);
  REQUIRE_MESSAGE(made.has_value(), (made ? "" : made.error().message));
  return *std::move(made);
}

// Every path below, and of regular files the size.
inline std::vector<std::string> tree_of(const std::string& path) {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    const auto name = entry.path().string().substr(path.size() + 1);
    if (name == "lock") continue;
    all.push_back(entry.is_regular_file() ? name + " " + std::to_string(entry.file_size()) : name);
  }
  std::sort(all.begin(), all.end());
  return all;
}
inline std::vector<std::string> names_in(const std::string& path) {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(path))
    all.push_back(entry.path().filename().string());
  std::sort(all.begin(), all.end());
  return all;
}

// What a prune begins and ends with.
inline Result<backup::Repository::Swept> sweep(const backup::Repository& repository) {
  ZX_ASSIGN(const auto writing, repository.lock_to_write("a test"));
  return repository.sweep(writing);
}

}  // namespace zx::test
