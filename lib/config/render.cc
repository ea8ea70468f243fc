#include "lib/config/render.h"

#include <set>

#include "lib/config/document.h"
#include "lib/config/keys.h"

namespace zx::config {
namespace {

std::string first_sentence(std::string_view doc) {
  return std::string(doc.substr(0, doc.find(". ")));
}

}  // namespace

std::string render(const Config& config) {
  Config copy = config;  // slots are for writing too
  std::string out =
      "# What zx looks after. Keys that are not here have their defaults:\n"
      "# zx config show lists them all, man zx.toml explains them.\n";
  std::set<const Key*> explained;
  for (const auto& table : tables_of(copy)) {
    std::string body;
    for (const auto* key : keys_in(table)) {
      const auto value = spell(key->slot(table.place));
      const bool is_left_out = value.empty() || value == spell_default(*key) ||
                               (value == "\"\"" && spell_default(*key) != "\"\"");
      if (is_left_out && !key->limits.is_required) continue;
      // A key of every node is explained at the first.
      if (explained.insert(key).second) {
        auto says = first_sentence(key->doc);
        if (says.ends_with('.')) says.pop_back();
        body += "# " + says + "\n";
      }
      body += name_of(*key) + " = " + value + "\n";
    }
    const bool is_named = table.pattern.ends_with('*');
    if (!body.empty() || is_named) out += "\n[" + spell_key(table.parts) + "]\n" + body;
  }
  return out;
}

}  // namespace zx::config
