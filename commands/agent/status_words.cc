#include "commands/agent/status_words.h"

#include <algorithm>
#include <utility>

#include "lib/base/text.h"
#include "lib/base/units.h"

namespace zx::commands {
namespace {

constexpr Millis kJustNow{2000};
constexpr std::size_t kColumns = 80;

}  // namespace

std::string spaced(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

void say(Screen& screen, const std::string& text, Tone tone, const std::string& indent) {
  bool is_first = true;
  const std::string deeper = indent + "  ";
  for (const auto& line : split(wrap(text, kColumns - deeper.size(), ""), '\n'))
    screen.line((std::exchange(is_first, false) ? indent : deeper) + line, tone);
}

std::optional<Millis> silent_for(const Json& node) {
  if (!get_object(node, "answered_ago_ms").is_number()) return std::nullopt;
  return Millis(get_int(node, "answered_ago_ms"));
}

std::string answered(const Json& node) {
  const auto span = silent_for(node);
  if (!span) return "never";
  return *span < kJustNow ? "now" : format_duration(*span) + " ago";
}

void show_nodes(Screen& screen, const Json& all,
                Cell (*says_of)(const Json& all, const Json& node)) {
  Table table;
  table.head = {"NODE", "ROLE", "ANSWERED", "WHAT IT SAYS"};
  for (const auto& node : get_object(all, "nodes")) {
    const auto role = get_string(node, "role", "unknown");
    table.rows.push_back({get_string(node, "name"), role == "unknown" ? "–" : role, answered(node),
                          says_of(all, node)});
  }
  screen.table(table);
}

}  // namespace zx::commands
