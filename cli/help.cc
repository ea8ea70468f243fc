#include "cli/help.h"

#include <algorithm>

#include "lib/base/text.h"

namespace zx::cli {
namespace {

constexpr std::size_t kWidth = 80;
constexpr std::size_t kWidestLeft = 30;

using Pairs = std::vector<std::pair<std::string, std::string>>;

// Names on the left, what they are on the right; a name that is too wide gets a line of its own.
std::string two_columns(const Pairs& pairs) {
  std::size_t left = 0;
  for (const auto& pair : pairs)
    if (display_width(pair.first) <= kWidestLeft) left = std::max(left, display_width(pair.first));
  const std::size_t column = 2 + left + 2;
  std::string out;
  for (const auto& [name, says] : pairs) {
    auto right = wrap(says, kWidth, std::string(column, ' '));
    if (trim(says).empty()) {
      out += "  " + name + "\n";
    } else if (2 + display_width(name) + 2 <= column) {
      right.replace(0, 2 + name.size(), "  " + name);
      out += right + "\n";
    } else {
      out += "  " + name + "\n" + right + "\n";
    }
  }
  return out;
}

std::string commands_of(const Place& place) {
  Pairs pairs;
  for (const auto* child : children_of(*place.app))
    pairs.emplace_back(child->get_name(), child->get_description());
  return pairs.empty() ? std::string() : "Commands:\n" + two_columns(pairs);
}

std::string says_of(const Argument& argument) {
  std::string out = argument.says;
  if (argument.required && !argument.positional) out += " (required)";
  if (!argument.fallback.empty()) out += " (default " + argument.fallback + ")";
  return out;
}

// One section a group of options, in the order in which the groups appear.
std::string sections_of(const commands::Tree& tree, const Place& place) {
  std::vector<std::pair<std::string, Pairs>> sections;
  for (const auto& argument : arguments_of(tree, *place.app)) {
    auto found = std::find_if(sections.begin(), sections.end(), [&](const auto& section) {
      return section.first == argument.section;
    });
    if (found == sections.end()) {
      // Arguments come first, as in the usage line.
      found = sections.emplace(argument.positional ? sections.begin() : sections.end(),
                               argument.section, Pairs{});
    }
    found->second.emplace_back(argument.spelled(), says_of(argument));
  }
  std::string out;
  for (const auto& [name, pairs] : sections) out += "\n" + name + ":\n" + two_columns(pairs);
  return out;
}

std::string usage_of(const commands::Tree& tree, const Place& place) {
  std::string out = "Usage: ";
  const std::string indent(out.size(), ' ');
  if (tree.handler(place.app) != nullptr) {
    auto usage = wrap(usage_line(tree, place), kWidth, indent);
    usage.replace(0, indent.size(), out);
    out = usage + "\n";
    if (!children_of(*place.app).empty()) out += indent + place.name() + " COMMAND [FLAGS]\n";
    return out;
  }
  return out + usage_line(tree, place) + "\n";
}

}  // namespace

std::string wrap_command(std::string_view command, std::size_t width, std::string_view indent) {
  std::string out(indent);
  std::size_t column = indent.size();
  bool is_first = true;
  for (const auto& word : split(command, ' ')) {
    const auto word_width = display_width(word);
    if (!is_first && column + 1 + word_width + 2 > width) {
      out += " \\\n" + std::string(indent) + "  " + word;
      column = indent.size() + 2 + word_width;
    } else {
      if (!is_first) out += ' ';
      out += word;
      column += word_width + (is_first ? 0 : 1);
    }
    is_first = false;
  }
  return out;
}

std::string help_text(const commands::Tree& tree, const Place& place) {
  const bool is_root = place.words.empty();
  auto out = wrap(place.name() + " - " + place.app->get_description(), kWidth, "") + "\n\n" +
             usage_of(tree, place);
  const auto* doc = tree.doc(place.app);
  if (doc != nullptr && !doc->description.empty())
    out += "\n" + wrap(trim(doc->description), kWidth, "") + "\n";
  if (const auto commands = commands_of(place); !commands.empty()) out += "\n" + commands;
  out += sections_of(tree, place);
  if (doc != nullptr && !doc->examples.empty()) {
    out += "\nExamples:\n";
    for (const auto& example : doc->examples)
      out += wrap_command(example.command, kWidth, "  ") + "\n" +
             wrap(example.says, kWidth, "      ") + "\n";
  }
  if (is_root)
    out += "\nzx help COMMAND says more about a command, zx(1) and zx.toml(5) about all of it.\n";
  else if (tree.handler(place.app) == nullptr)
    out += "\n" + place.name() + " COMMAND --help says more about a command.\n";
  return out;
}

std::string short_help(const commands::Tree& tree, const Place& place) {
  return usage_of(tree, place) + "\n" + commands_of(place) + "\n" +
         (place.words.empty() ? "zx help" : place.name() + " --help") + " says more.\n";
}

}  // namespace zx::cli
