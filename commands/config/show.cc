#include <memory>

#include "commands/command.h"

namespace zx::commands {
namespace {

// Values are spelled as in TOML; those of zx are JSON too, and anything else stays text.
Json value_of(const std::string& spelled) {
  auto parsed = parse_json(spelled, "value");
  return parsed ? *std::move(parsed) : Json(spelled);
}

Result<int> run(Env& env, bool with_origin) {
  ZX_ASSIGN(const auto path, config::find_file(env.shared.config));
  ZX_ASSIGN(const auto lines, config::show(path));
  Table table;
  table.head = {"KEY", "VALUE"};
  if (with_origin) table.head.emplace_back("ORIGIN");
  auto keys = Json::array();
  for (const auto& line : lines) {
    std::vector<Cell> row{line.key, line.value};
    if (with_origin)
      row.emplace_back(line.origin, line.origin == "default" ? Tone::dim : Tone::plain);
    table.rows.push_back(std::move(row));
    Json key{{"key", line.key}, {"value", line.value == "(none)" ? Json() : value_of(line.value)}};
    if (with_origin) key["origin"] = line.origin;
    keys.push_back(std::move(key));
  }
  env.screen.table(table);
  env.screen.json(Json{{"config", path}, {"keys", std::move(keys)}});
  return 0;
}

}  // namespace

void add_config_show(Tree& tree) {
  const auto with_origin = std::make_shared<bool>(false);
  auto* leaf = tree.leaf(
      tree.group("config", "read, check and write zx.toml"), "show", "list every key and its value",
      {.description =
           "Lists every key of every region, host, cluster and node with the value that zx works "
           "with, defaults included. A flag wins over the environment, the environment over the "
           "file, the file over the default. Passwords are not shown.",
       .examples = {{"zx config show", "what zx works with"},
                    {"zx config show --origin", "and where each value comes from"},
                    {"zx config show -o json", "the same for a script"}},
       .exits = {Code::config}},
      [with_origin](Env& env) { return run(env, *with_origin); });
  leaf->add_flag("--origin", *with_origin, "say where each value comes from");
}

}  // namespace zx::commands
