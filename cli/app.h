// The command line: the tree of commands, their shared flags, and the way from words to an exit
// status.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "commands/command.h"

namespace zx::cli {

class TerminalScreen;

class Application {
 public:
  Application();
  ~Application();
  Application(const Application&) = delete;
  Application& operator=(const Application&) = delete;

  // `words` are those after the program's name. Runs one command and returns its exit status;
  // what went wrong has been printed.
  [[nodiscard]] int run(const std::vector<std::string>& words);

  [[nodiscard]] const commands::Tree& tree() const { return tree_; }
  [[nodiscard]] const CLI::App& root() const { return root_; }

 private:
  [[nodiscard]] Result<int> dispatch(const std::vector<std::string>& words);
  void share_flags(CLI::App& app);
  void share_flags_below(CLI::App& app);

  CLI::App root_;
  commands::Shared shared_;
  commands::Tree tree_;
  std::unique_ptr<TerminalScreen> screen_;
  bool has_acted_ = false;  // see Env
};

}  // namespace zx::cli
