#include "cli/describe.h"

#include <algorithm>

#include "lib/base/text.h"

namespace zx::cli {
namespace {

// CLI11 keeps the set of an IsMember check only in its type name: "TEXT:{table,json}".
std::vector<std::string> choices_of(const CLI::Option& option) {
  const auto type = option.get_type_name();
  const auto open = type.find('{');
  const auto close = type.find('}', open == std::string::npos ? 0 : open);
  if (open == std::string::npos || close == std::string::npos) return {};
  return split(std::string_view(type).substr(open + 1, close - open - 1), ',');
}

std::string value_of(const CLI::Option& option, const Argument& argument) {
  if (argument.positional) return option.get_name(true, false);
  if (!takes_value(option)) return {};
  if (!option.get_option_text().empty()) return option.get_option_text();
  if (const auto choices = join(argument.choices, "|"); !choices.empty() && choices.size() <= 24)
    return choices;
  if (argument.completes != commands::Complete::none)
    return std::string(value_name(argument.completes));
  const auto type = option.get_type_name();
  const auto base = type.substr(0, type.find_first_of(":{["));
  if (base == "INT" || base == "UINT" || base == "FLOAT") return "N";
  return base.empty() ? "VALUE" : base;
}

Argument describe(const commands::Tree& tree, const CLI::Option& option) {
  Argument argument;
  argument.option = &option;
  argument.positional = option.get_positional() && !option.nonpositional();
  if (!option.get_snames().empty()) argument.short_flag = "-" + option.get_snames().front();
  if (!option.get_lnames().empty()) argument.long_flag = "--" + option.get_lnames().front();
  argument.choices = choices_of(option);
  argument.completes = tree.completion(&option);
  argument.value = value_of(option, argument);
  argument.says = option.get_description();
  if (!argument.choices.empty() && argument.value.find('|') == std::string::npos)
    argument.says += " (one of " + join(argument.choices, ", ") + ")";
  if (takes_value(option)) argument.fallback = option.get_default_str();
  argument.required = option.get_required();
  // A switch that counts, such as -v, is one that keeps all its results.
  argument.repeatable = takes_value(option)
                            ? option.get_items_expected_max() > 1
                            : option.get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
  if (option.get_group() != "Options")
    argument.section = option.get_group();
  else
    argument.section = argument.positional ? "Arguments" : "Flags";
  return argument;
}

// An unnamed subcommand is CLI11's option group; its options belong to the command around it.
void collect(const commands::Tree& tree, const CLI::App& app, std::vector<Argument>& out) {
  for (const auto* option : app.get_options()) {
    // CLI11 gives a group a help flag of its own.
    if (app.get_name().empty() && option == app.get_help_ptr()) continue;
    if (!option->get_group().empty()) out.push_back(describe(tree, *option));
  }
  for (const auto* nameless :
       app.get_subcommands([](const CLI::App* child) { return child->get_name().empty(); })) {
    const auto before = out.size();
    collect(tree, *nameless, out);
    for (auto i = before; i < out.size(); ++i)
      if (out[i].section == "Flags") out[i].section = nameless->get_group();
  }
}

void collect_leaves(const commands::Tree& tree, const Place& place, std::vector<Place>& out) {
  if (tree.handler(place.app) != nullptr) out.push_back(place);
  for (const auto* child : children_of(*place.app)) {
    auto below = place;
    below.words.push_back(child->get_name());
    below.app = child;
    collect_leaves(tree, below, out);
  }
}

}  // namespace

std::string Argument::name() const {
  if (positional) return value;
  return long_flag.empty() ? short_flag : long_flag;
}

std::string Argument::spelled() const {
  if (positional) return repeatable ? value + "..." : value;
  std::string out = short_flag.empty() ? "    " : short_flag;
  if (!long_flag.empty()) out += (short_flag.empty() ? "" : ", ") + long_flag;
  return value.empty() ? out : out + " " + value;
}

std::vector<Argument> arguments_of(const commands::Tree& tree, const CLI::App& app) {
  std::vector<Argument> all;
  collect(tree, app, all);
  std::stable_partition(all.begin(), all.end(),
                        [](const Argument& a) { return a.section != kGlobalSection; });
  return all;
}

bool takes_value(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

std::string Place::name() const { return words.empty() ? "zx" : "zx " + join(words, " "); }

std::vector<const CLI::App*> children_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* child) {
    return !child->get_name().empty() && !child->get_group().empty();
  });
}

std::vector<Place> visible_leaves(const commands::Tree& tree, const CLI::App& root) {
  std::vector<Place> leaves;
  collect_leaves(tree, Place{{}, &root}, leaves);
  return leaves;
}

std::string usage_line(const commands::Tree& tree, const Place& place) {
  std::string out = place.name();
  const bool is_leaf = tree.handler(place.app) != nullptr;
  if (!is_leaf) return out + " COMMAND [FLAGS]";
  bool has_flags = false;
  std::string required;
  std::string positionals;
  for (const auto& argument : arguments_of(tree, *place.app)) {
    if (argument.positional) {
      const auto text = argument.spelled();
      positionals += argument.required ? " " + text : " [" + text + "]";
    } else if (argument.required) {
      required += " " + argument.name() + (argument.value.empty() ? "" : " " + argument.value);
    } else {
      has_flags = true;
    }
  }
  return out + required + (has_flags ? " [FLAGS]" : "") + positionals;
}

std::string_view value_name(commands::Complete kind) {
  switch (kind) {
    case commands::Complete::pg_node: return "NODE";
    case commands::Complete::pg_cluster: return "CLUSTER";
    case commands::Complete::redis_node: return "NODE";
    case commands::Complete::redis_deployment: return "DEPLOYMENT";
    case commands::Complete::run_id:
    case commands::Complete::unfinished_run: return "RUN";
    case commands::Complete::file: return "FILE";
    case commands::Complete::directory: return "DIR";
    case commands::Complete::none: break;
  }
  return "VALUE";
}

}  // namespace zx::cli
