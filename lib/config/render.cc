#include "lib/config/render.h"

#include <set>

#include "lib/base/text.h"
#include "lib/config/document.h"
#include "lib/config/keys.h"

namespace zx::config {
namespace {

std::string first_sentence(std::string_view doc) {
  return std::string(doc.substr(0, doc.find(". ")));
}

std::string comment(std::string_view text) {
  std::string out;
  if (text.empty()) return out;
  for (const auto& line : split(clean_utf8(text), '\n'))
    out += line.empty() ? "#\n" : "# " + line + "\n";
  return out;
}

}  // namespace

std::string render(const Config& config, const Remarks& remarks) {
  Config copy = config;  // slots are for writing too
  const auto remark = [&](const std::vector<std::string>& parts) {
    const auto found = remarks.at.find(spell_key(parts));
    return found == remarks.at.end() ? std::string() : comment(found->second);
  };
  std::string out = comment(remarks.head) +
                    "# What zx looks after. Keys that are not here have their defaults:\n"
                    "# zx config show lists them all, man zx.toml explains them.\n";
  std::set<const Key*> explained;
  for (const auto& table : tables_of(copy)) {
    std::string body;
    for (const auto* key : keys_in(table)) {
      const auto value = spell(key->slot(table.place));
      const bool is_left_out = value.empty() || value == spell_default(*key) ||
                               (value == "\"\"" && spell_default(*key) != "\"\"");
      const auto said = remark(parts_of(table, *key));
      if (is_left_out && !key->limits.is_required) {
        body += said;
        continue;
      }
      // A key of every node is explained at the first.
      if (explained.insert(key).second) {
        auto says = first_sentence(key->doc);
        if (says.ends_with('.')) says.pop_back();
        body += "# " + says + "\n";
      }
      body += said;
      body += name_of(*key) + " = " + value + "\n";
    }
    const bool is_named = table.pattern.ends_with('*');
    if (body.empty() && !is_named) continue;
    out += "\n" + remark(table.parts) + "[" + spell_key(table.parts) + "]\n" + body;
  }
  if (!remarks.tail.empty()) out += "\n" + comment(remarks.tail);
  return out;
}

}  // namespace zx::config
