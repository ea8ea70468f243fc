// What the CLI11 tree says about itself, in the form that help, manual and completion share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "commands/command.h"

namespace zx::cli {

// The section of the flags that every command takes.
inline constexpr const char* kGlobalSection = "Global flags";

// An option or a positional argument.
struct Argument {
  const CLI::Option* option = nullptr;
  std::string short_flag;  // "-o", or empty
  std::string long_flag;   // "--output", or empty
  std::string value;       // "NODE", "table|json"; empty for a switch; the name of a positional
  std::string says;
  std::string fallback;  // what holds when it is not given, or empty
  std::string section;   // "Arguments", "Flags", "Global flags", or the group it was put in
  std::vector<std::string> choices;  // the values it takes, when they are a fixed set
  commands::Complete completes = commands::Complete::none;
  bool positional = false;
  bool required = false;
  bool repeatable = false;

  // "--output", "-x" when there is no long form, or the name of a positional.
  [[nodiscard]] std::string name() const;
  // "-o, --output table|json"; without a short form indented to align with those that have one.
  [[nodiscard]] std::string spelled() const;
};

// Those of `app` that are not hidden, in the order of declaration, the global ones last.
[[nodiscard]] std::vector<Argument> arguments_of(const commands::Tree& tree, const CLI::App& app);
[[nodiscard]] bool takes_value(const CLI::Option& option);

// A place in the tree: the words after `zx`, and what stands there.
struct Place {
  std::vector<std::string> words;
  const CLI::App* app = nullptr;
  [[nodiscard]] std::string name() const;  // "zx failover pg"
};

// Visible commands directly below `app`; a hidden one has the empty CLI11 group.
[[nodiscard]] std::vector<const CLI::App*> children_of(const CLI::App& app);
// Every visible place that has a handler, in the order of declaration.
[[nodiscard]] std::vector<Place> visible_leaves(const commands::Tree& tree, const CLI::App& root);

// "zx failover pg [FLAGS] [CLUSTER]".
[[nodiscard]] std::string usage_line(const commands::Tree& tree, const Place& place);
// "pg_node" as a value: "NODE".
[[nodiscard]] std::string_view value_name(commands::Complete kind);

}  // namespace zx::cli
