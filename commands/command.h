// What a leaf command is: a place on the CLI11 tree, its documentation, and a handler that runs
// the chain and returns an exit status. How text reaches the terminal is behind Screen.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "lib/base/error.h"
#include "lib/base/json.h"
#include "lib/base/units.h"
#include "lib/config/config.h"

namespace zx::commands {

enum class Format { table, json, nagios };

// The flags that every command takes.
struct Shared {
  std::optional<std::string> config;
  Format format = Format::table;
  int verbose = 0;
  bool quiet = false;
  bool no_color = false;
  std::optional<Millis> timeout;
  std::string version;  // of zx itself
};

enum class Tone { plain, good, bad, warn, dim };

// A cell says what it means; the tone only doubles it.
struct Cell {
  std::string text;
  Tone tone = Tone::plain;
  Cell(std::string t = {}, Tone n = Tone::plain) : text(std::move(t)), tone(n) {}
  Cell(const char* t) : text(t) {}
};

struct Table {
  std::vector<std::string> head;  // empty: no heading line
  std::vector<std::vector<Cell>> rows;
  std::string indent = "  ";
};

class Screen {
 public:
  virtual ~Screen() = default;
  // Results, to stdout. line() and table() print with -o table only.
  virtual void line(std::string_view text, Tone tone = Tone::plain) = 0;
  virtual void table(const Table& table) = 0;
  virtual void json(const Json& json) = 0;  // printed with -o json only; adds "schema": 1 in front
  virtual void raw(std::string_view text) = 0;  // stdout, in every format, as it is
  // To stderr.
  virtual void note(std::string_view text) = 0;  // not with -q
  virtual void progress(
      std::string_view text) = 0;  // one line that is overwritten; a terminal only
  virtual void clear() = 0;        // clears the terminal for --watch; a terminal only
  [[nodiscard]] virtual bool is_json() const = 0;
  [[nodiscard]] virtual bool is_terminal() const = 0;
  [[nodiscard]] virtual bool is_broken() const = 0;  // nothing more can be printed on stdout
  // Asks yes or no on the terminal. Code::declined when there is none, with a hint to `flag`.
  [[nodiscard]] virtual Status confirm(std::string_view question, std::string_view flag) = 0;
};

struct Env {
  const Shared& shared;
  Screen& screen;
  // zx.toml, found and loaded at the first call.
  [[nodiscard]] Result<const config::Config*> config();
  // What to type for another command on the same configuration: "zx -c lab/zx.toml status".
  [[nodiscard]] std::string typed(std::string_view words) const;
  // Set once a run has an outcome: the exit status is its, also when stdout takes no more.
  bool has_acted = false;
  Env(const Shared& s, Screen& c) : shared(s), screen(c) {}

 private:
  std::optional<config::Config> loaded_;
};

// As a person would type it in a shell; for messages only, zx itself never uses a shell.
[[nodiscard]] std::string shell_word(const std::string& text);

// The exit status; an Error is printed by main (stderr, or as JSON when nothing was printed yet).
using Handler = std::function<Result<int>(Env&)>;

struct Example {
  std::string command;
  std::string says;
};

struct LeafDoc {
  std::string description;  // paragraphs for help and man page
  std::vector<Example> examples;
  std::vector<Code> exits;  // besides 0 and usage, which every command has
  // Takes -o nagios too: it prints one line by raw(), and its exit status is that of a plugin, 0 to
  // 3. An Error is "unknown", 3.
  bool nagios = false;
};

// What a value completes to.
enum class Complete {
  none,
  pg_node,
  pg_cluster,
  redis_node,
  redis_deployment,
  run_id,
  unfinished_run,
  file,
  directory,
};

class Tree {
 public:
  explicit Tree(CLI::App& root) : root_(root) {}
  // A group such as `failover`, made at its first mention.
  CLI::App* group(const std::string& name, const std::string& summary);
  CLI::App* leaf(CLI::App* parent, const std::string& name, const std::string& summary, LeafDoc doc,
                 Handler handler);
  void complete(const CLI::Option* option, Complete kind) { completes_[option] = kind; }
  // The leaf that a group alone stands for: `zx agent` is `zx agent run`.
  void stands_for(const CLI::App* group, CLI::App* leaf) { defaults_[group] = leaf; }
  [[nodiscard]] const CLI::App* default_of(const CLI::App* group) const;

  [[nodiscard]] CLI::App& root() { return root_; }
  [[nodiscard]] const LeafDoc* doc(const CLI::App* leaf) const;
  [[nodiscard]] const Handler* handler(const CLI::App* leaf) const;
  [[nodiscard]] Complete completion(const CLI::Option* option) const;

 private:
  struct Leaf {
    LeafDoc doc;
    Handler handler;
  };
  CLI::App& root_;
  std::map<const CLI::App*, Leaf> leaves_;
  std::map<const CLI::Option*, Complete> completes_;
  std::map<const CLI::App*, CLI::App*> defaults_;
};

// For the options whose absence means the newest, or everything: a variable of a script that is not
// set must not mean that.
[[nodiscard]] std::string not_empty(const std::string& value);

// One function a leaf file, called by add_all.
void add_failover_pg(Tree& tree);
void add_failover_redis(Tree& tree);
void add_switchover_pg(Tree& tree);
void add_rejoin_pg(Tree& tree);
void add_status(Tree& tree);
void add_runs(Tree& tree);
void add_config_check(Tree& tree);
void add_config_show(Tree& tree);
void add_config_init(Tree& tree);
void add_lab(Tree& tree);
void add_agent(Tree& tree);
void add_agent_unit(Tree& tree);
void add_failover_ack(Tree& tree);
void add_redis_sync(Tree& tree);
void add_node(Tree& tree);
void add_redis_backup(Tree& tree);
void add_redis_restore(Tree& tree);
void add_redis_status(Tree& tree);
void add_redis_monitor(Tree& tree);
void add_backup_run(Tree& tree);
void add_restore(Tree& tree);
void add_backup_list(Tree& tree);
void add_backup_verify(Tree& tree);
void add_backup_prune(Tree& tree);
void add_all(Tree& tree);

}  // namespace zx::commands
