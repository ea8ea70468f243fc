// The one table of keys. Reading, checking, the environment, `show`, `render` and the manual are
// all loops over it.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lib/config/config.h"

namespace zx::config {

// The objects that the names in a key's path stand for; null where the path has no such part.
struct Place {
  Platform* platform = nullptr;
  Region* region = nullptr;
  Host* host = nullptr;
  PgCluster* cluster = nullptr;
  PgNode* node = nullptr;
  RedisDeployment* deployment = nullptr;
  RedisNode* redis_node = nullptr;
  Agent* agent = nullptr;
  Backup* backup = nullptr;
  BackupFiles* backup_files = nullptr;
  BackupCheck* backup_check = nullptr;
  Service* service = nullptr;
};

using List = std::vector<std::string>;
// The member of Config that a key stands for. Its C++ type decides the key's type.
using Slot =
    std::variant<std::string*, int*, bool*, std::uint64_t*, Millis*, List*, std::optional<List>*>;

enum class Use {
  plain,
  path,    // relative to the directory of the file
  secret,  // "${NAME}" only, never shown
  secret_file,
  argv,  // a list whose items may be empty or repeat
};

struct Limits {
  bool is_required = false;
  Use use = Use::plain;
  int least = std::numeric_limits<int>::min();
  int most = std::numeric_limits<int>::max();
  std::vector<std::string> choices = {};
  std::string_view fallback = {};  // when the default cannot be read off a fresh object
};

struct Key {
  std::string_view pattern;
  Slot (*slot)(const Place&);
  std::string_view doc;  // its first sentence is the comment in a rendered file
  Limits limits = {};
};

[[nodiscard]] const std::vector<Key>& keys();
[[nodiscard]] const Key* find_key(std::string_view pattern);
// The last part: "port".
[[nodiscard]] std::string name_of(const Key& key);
// The pattern without it: "pg.*.nodes.*".
[[nodiscard]] std::string_view table_of(const Key& key);
// What may follow `pattern` in the table of keys: {"*"}, or the names of keys and tables.
[[nodiscard]] std::vector<std::string> parts_after(std::string_view pattern);

// "an integer from 1 to 65535", for messages and the manual.
[[nodiscard]] std::string expected_by(const Key& key);
// As it would be written in the file; empty when an optional list is absent.
[[nodiscard]] std::string spell(const Slot& slot);
// Of a freshly made object.
[[nodiscard]] std::string spell_default(const Key& key);

// Every table that `config` has or could have without a new name, in the order of the file.
struct Table {
  std::string_view pattern;        // "hosts.*"
  std::vector<std::string> parts;  // {"hosts", "bj-db-1"}
  Place place;
};
[[nodiscard]] std::vector<Table> tables_of(Config& config);
[[nodiscard]] std::vector<const Key*> keys_in(const Table& table);
// {"hosts", "bj-db-1", "address"}
[[nodiscard]] std::vector<std::string> parts_of(const Table& table, const Key& key);

[[nodiscard]] std::string default_state_dir();

}  // namespace zx::config
