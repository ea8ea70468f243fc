// From the words of the command line to a place in the tree. CLI11 could do it with fallthrough(),
// but then a node that is called like a command ("status") would be taken for the command, and a
// wrong word is reported without the place where it stood. So the command words are found here, and
// CLI11 parses what belongs to the leaf.
#pragma once

#include <string>
#include <vector>

#include "cli/describe.h"

namespace zx::cli {

struct Walk {
  Place place;
  std::vector<std::string> front;  // global flags that stood before or between the command words
  std::vector<std::string> rest;   // the words after the command
  std::string unknown_word;        // not a command at `place`
  std::string unknown_flag;        // before the command, and not a global one
  const CLI::Option* waiting = nullptr;  // the last word is a flag that still needs its value
  bool help = false;     // `help` in front, or --help before the command was complete
  bool version = false;  // --version in front
};

// The walk ends at a place that has a handler, unless a command below it follows.
[[nodiscard]] Walk walk(const commands::Tree& tree, const CLI::App& root,
                        const std::vector<std::string>& words);

// A word that begins with a hyphen, read with the options of `app`.
struct FlagWord {
  const CLI::Option* option = nullptr;      // the last one in a bundle such as -vq; null: unknown
  std::vector<const CLI::Option*> options;  // all of the bundle
  bool wants_next = false;                  // the value is the next word
  std::string value;                        // the value, when it is in the same word
};
[[nodiscard]] bool is_flag_word(const std::string& word);
[[nodiscard]] FlagWord read_flag(const CLI::App& app, const std::string& word);

}  // namespace zx::cli
