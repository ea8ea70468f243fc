// Text on the terminal, or in whatever stands behind stdout and stderr.
#pragma once

#include <string>
#include <string_view>

#include "commands/command.h"

namespace zx::cli {

class TerminalScreen : public commands::Screen {
 public:
  // `shared` is read at each use, so that a screen can exist before the flags are parsed.
  explicit TerminalScreen(const commands::Shared& shared);
  ~TerminalScreen() override;
  TerminalScreen(const TerminalScreen&) = delete;
  TerminalScreen& operator=(const TerminalScreen&) = delete;

  void line(std::string_view text, commands::Tone tone) override;
  void table(const commands::Table& table) override;
  void json(const Json& json) override;
  void raw(std::string_view text) override;
  void note(std::string_view text) override;
  void progress(std::string_view text) override;
  void clear() override;
  [[nodiscard]] bool is_json() const override { return shared_.format == commands::Format::json; }
  [[nodiscard]] bool is_terminal() const override { return out_is_terminal_; }
  [[nodiscard]] bool is_broken() const override;
  [[nodiscard]] Status confirm(std::string_view question, std::string_view flag) override;

  // What someone is shown who did not give a command; to stderr even with -q.
  void help_on_stderr(std::string_view text) { err(text); }
  // To stderr, and in the format of programs to stdout too, when no JSON was printed yet.
  void error(const Error& error);
  // Whether everything reached stdout. A reader that went away (EPIPE) is not a failure.
  [[nodiscard]] Status finish();

 private:
  void out(std::string_view text);
  void err(std::string_view text);
  void erase_progress();
  [[nodiscard]] bool colours(bool terminal) const;
  [[nodiscard]] std::string paint(std::string_view text, commands::Tone tone, bool terminal) const;

  const commands::Shared& shared_;
  bool out_is_terminal_;
  bool err_is_terminal_;
  bool is_dumb_;            // TERM=dumb: a terminal that cannot move its cursor
  bool no_color_variable_;  // NO_COLOR is set and not empty
  bool progress_shown_ = false;
  bool json_printed_ = false;
  int out_failure_ = 0;  // errno of the first write to stdout that failed
};

}  // namespace zx::cli
