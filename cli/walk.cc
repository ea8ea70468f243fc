#include "cli/walk.h"

namespace zx::cli {
namespace {

const CLI::App* child_named(const CLI::App& app, const std::string& name) {
  const auto found =
      app.get_subcommands([&](const CLI::App* child) { return child->get_name() == name; });
  return found.empty() || name.empty() ? nullptr : found.front();
}

bool has_children(const CLI::App& app) {
  return !app.get_subcommands([](const CLI::App* child) { return !child->get_name().empty(); })
              .empty();
}

}  // namespace

bool is_flag_word(const std::string& word) {
  return word.size() > 1 && word.front() == '-' && word != "--";
}

FlagWord read_flag(const CLI::App& app, const std::string& word) {
  FlagWord flag;
  if (word.starts_with("--")) {
    const auto equals = word.find('=');
    flag.option = app.get_option_no_throw(word.substr(0, equals));
    if (flag.option == nullptr) return flag;
    flag.options.push_back(flag.option);
    if (equals != std::string::npos)
      flag.value = word.substr(equals + 1);
    else
      flag.wants_next = takes_value(*flag.option);
    return flag;
  }
  for (std::size_t i = 1; i < word.size(); ++i) {
    flag.option = app.get_option_no_throw(std::string("-") + word[i]);
    if (flag.option == nullptr) return flag;
    flag.options.push_back(flag.option);
    if (!takes_value(*flag.option)) continue;
    flag.value = word.substr(i + 1);
    flag.wants_next = flag.value.empty();
    return flag;
  }
  return flag;
}

Walk walk(const commands::Tree& tree, const CLI::App& root, const std::vector<std::string>& words) {
  Walk out;
  out.place.app = &root;
  const auto is_leaf = [&] { return tree.handler(out.place.app) != nullptr; };
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto& word = words[i];
    if (is_leaf() && !has_children(*out.place.app)) {
      out.rest.assign(words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
      return out;
    }
    if (is_flag_word(word)) {
      const auto flag = read_flag(root, word);
      if (flag.option == nullptr && is_leaf()) {
        out.rest.assign(words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
        return out;
      }
      if (flag.option == nullptr) {
        out.unknown_flag = word;
        return out;
      }
      const auto name = flag.option->get_lnames().empty() ? "" : flag.option->get_lnames().front();
      if (name == "help") {
        out.help = true;
      } else if (name == "version") {
        out.version = true;
      } else {
        out.front.push_back(word);
        if (!flag.wants_next) continue;
        if (i + 1 == words.size())
          out.waiting = flag.option;
        else
          out.front.push_back(words[++i]);
      }
      continue;
    }
    if (const auto* child = child_named(*out.place.app, word)) {
      out.place.app = child;
      out.place.words.push_back(word);
    } else if (is_leaf()) {
      out.rest.assign(words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
      return out;
    } else if (word == "help" && out.place.words.empty() && !out.help) {
      out.help = true;
    } else {
      out.unknown_word = word;
      return out;
    }
  }
  return out;
}

}  // namespace zx::cli
