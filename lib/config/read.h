// From text to Config: reading, then the environment, then checks across keys. Each step adds to
// the same list of defects, so that a person sees all of them at once.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/config/document.h"
#include "lib/config/keys.h"

namespace zx::config {

struct Draft {
  Config config;
  std::string directory;              // relative paths begin here
  std::map<std::string, Mark> marks;  // of keys that were given and of named tables, by spell_key()
  std::vector<Defect> defects;

  [[nodiscard]] bool is_given(const std::vector<std::string>& parts) const {
    return marks.contains(spell_key(parts));
  }
  // Of the nearest enclosing table when the key itself was not given.
  [[nodiscard]] Mark mark_of(std::vector<std::string> parts) const;
  void add(const std::vector<std::string>& parts, std::string text) {
    defects.push_back({mark_of(parts), std::move(text)});
  }
};

// Puts `value` into `slot`, or says what is wrong with it. `what` begins the message.
[[nodiscard]] std::optional<Defect> set_value(const Key& key, const Slot& slot, const Value& value,
                                              const std::string& what,
                                              const std::string& directory);

// `; did you mean "port"?`, or nothing.
[[nodiscard]] std::string meant(const std::string& word,
                                const std::vector<std::string>& candidates);

void read_document(Draft& draft, const Value& document);
void apply_environment(Draft& draft);
void check_references(Draft& draft);

// All three. The Error names every defect by `path` as it was given.
[[nodiscard]] Result<Draft> read_config(const std::string& text, const std::string& path);

}  // namespace zx::config
