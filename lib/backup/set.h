// A recovery set: what one backup run made, as its manifest tells. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/backup/trust.h"
#include "lib/base/clock.h"
#include "lib/base/error.h"
#include "lib/base/json.h"

namespace zx::backup {

// Of the manifest and of zx-repository.json. A higher one than this is refused.
inline constexpr int kFormat = 1;

// A file of the repository. `path` is relative to it: "sets/ID/pg/shop.dump.zst".
struct Object {
  std::string path;
  std::uint64_t bytes = 0;  // as stored
  std::uint64_t raw = 0;    // decompressed
  std::string sha256;       // of what is stored
  bool operator==(const Object&) const = default;
};

struct TableRows {
  std::string table;  // quoted where SQL wants it: public."Order"
  std::uint64_t rows = 0;
  bool operator==(const TableRows&) const = default;
};

struct DatabaseSetting {
  std::string role;  // empty: of every role
  std::string name, value;
  bool operator==(const DatabaseSetting&) const = default;
};

// One item of a database's ACL.
struct Grant {
  std::string grantee;  // empty: PUBLIC
  std::string privilege;
  bool grantable = false;
  bool operator==(const Grant&) const = default;
};

struct DatabasePart {
  std::string name;
  Object dump;  // pg_dump -Fc, in zstd
  std::string owner, encoding, collate, ctype, provider, icu_locale;
  std::string tablespace;  // empty: pg_default
  std::string comment;
  int connection_limit = -1;
  bool has_acl = false;  // false: the default one
  std::vector<Grant> acl;
  std::vector<DatabaseSetting> settings;
  std::vector<std::string> extensions;
  std::vector<TableRows> tables;  // counted in the snapshot of the dump
  std::uint64_t size = 0;         // bytes on the server
  std::string lsn;                // of the snapshot
  std::int64_t took_ms = 0;
};

struct PgPart {
  std::string cluster, node;
  bool from_standby = false;
  std::string server_version, dump_version;
  std::string system_id;
  std::uint32_t timeline = 0;
  Wall at{};                 // of the first snapshot
  std::int64_t skew_ms = 0;  // to the last
  Object globals;            // pg_dumpall --globals-only, in zstd
  std::vector<std::string> roles;
  std::vector<DatabasePart> databases;
  std::int64_t took_ms = 0;
};

struct RedisPart {
  std::string deployment, node;
  Object rdb;
  Object record;  // of the copy: what zx redis restore reads beside a file, for people
  std::uint64_t keys = 0, expires = 0;
  std::map<int, std::uint64_t> databases;
  std::string digest;  // DEBUG DIGEST, when it was made
  std::string server_version, replid;
  std::optional<std::int64_t> offset;
  Wall at{};
  std::int64_t took_ms = 0;
};

struct FilesPart {
  std::string name;  // in zx.toml
  std::string path;
  Object index;                  // every file and where it lies, in zstd
  std::vector<Object> archives;  // that the index refers to, of this set and earlier ones
  // For people; zx restores by the index. Of each archive the members that this set needs, as tar
  // -T reads them, and which list belongs to which archive.
  std::vector<Object> lists;
  Object recipe;
  std::uint64_t files = 0;         // and directories and links
  std::uint64_t bytes = 0;         // of their content
  std::uint64_t stored_files = 0;  // new or changed since the set before
  std::vector<std::string> warnings;
  Wall at{};
  std::int64_t took_ms = 0;
};

struct Set {
  int format = kFormat;
  std::string id;  // a run id
  std::string label;
  std::string host, zx_version, platform;
  Wall begun{}, ended{};
  std::optional<RedisPart> redis;
  std::optional<PgPart> pg;
  std::vector<FilesPart> files;
  std::vector<std::string> warnings;

  // The state that a restore brings back is of this time: the oldest of the parts.
  [[nodiscard]] Wall point() const;
  // All that it needs, archives of earlier sets too; its manifest is not among them.
  [[nodiscard]] std::vector<Object> objects() const;
  // Of these what zx reads to restore it.
  [[nodiscard]] std::vector<Object> objects_for_zx() const;
  [[nodiscard]] std::uint64_t bytes() const;      // of all of them
  [[nodiscard]] std::uint64_t new_bytes() const;  // of those that this run wrote
  [[nodiscard]] std::string parts() const;        // "pg, redis, files"
};
[[nodiscard]] Json to_json(const Set& set);
// Code::refused for a newer format, failed for anything that is no manifest: paths that lead out of
// the repository, sums that are none, an id that is none.
[[nodiscard]] Result<Set> set_from_json(const Json& json);

// Every file of a set and its sum as sha256sum(1) reads them, in the directory of the repository:
// the manifest, whose text is given, and the objects. It is the file SHA256SUMS of the set.
[[nodiscard]] std::string checksum_file_of(const Set& set, const std::string& manifest);

// The name of a database, of a tree of files or of a deployment as part of a file's name: what is
// not a letter, digit, "-", "_" or "." of ASCII becomes %XX; never empty, "." or "..".
[[nodiscard]] std::string file_name_of(const std::string& name);
// For people, who know the set: "pg/shop.dump.zst".
[[nodiscard]] std::string shown(const Object& object);
// May a manifest name this object of set `id`? "sets/ID/…" of its own, or "archives/…".
[[nodiscard]] bool is_object_path(const std::string& path, const std::string& id);

}  // namespace zx::backup
