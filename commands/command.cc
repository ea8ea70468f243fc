#include "commands/command.h"

#include <algorithm>
#include <cctype>

#include "lib/base/log.h"

namespace zx::commands {

Result<const config::Config*> Env::config() {
  if (!loaded_) {
    ZX_ASSIGN(const auto path, config::find_file(shared.config));
    log::info("configuration: " + path);
    ZX_ASSIGN(loaded_, config::load(path));
  }
  return &*loaded_;
}

std::string Env::typed(std::string_view words) const {
  const auto with = shared.config ? "-c " + shell_word(*shared.config) + " " : std::string();
  return "zx " + with + std::string(words);
}

std::string shell_word(const std::string& text) {
  const auto is_plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("/._-+:@%").find(c) != std::string_view::npos;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return text;
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

CLI::App* Tree::group(const std::string& name, const std::string& summary) {
  for (auto* existing :
       root_.get_subcommands([&](CLI::App* app) { return app->get_name() == name; }))
    return existing;
  auto* group = root_.add_subcommand(name, summary);
  group->require_subcommand(1);
  return group;
}

CLI::App* Tree::leaf(CLI::App* parent, const std::string& name, const std::string& summary,
                     LeafDoc doc, Handler handler) {
  auto* leaf = parent->add_subcommand(name, summary);
  leaves_[leaf] = Leaf{std::move(doc), std::move(handler)};
  return leaf;
}

const LeafDoc* Tree::doc(const CLI::App* leaf) const {
  const auto found = leaves_.find(leaf);
  return found == leaves_.end() ? nullptr : &found->second.doc;
}

const Handler* Tree::handler(const CLI::App* leaf) const {
  const auto found = leaves_.find(leaf);
  return found == leaves_.end() ? nullptr : &found->second.handler;
}

const CLI::App* Tree::default_of(const CLI::App* group) const {
  const auto found = defaults_.find(group);
  return found == defaults_.end() ? nullptr : found->second;
}

Complete Tree::completion(const CLI::Option* option) const {
  const auto found = completes_.find(option);
  return found == completes_.end() ? Complete::none : found->second;
}

void add_all(Tree& tree) {
  add_status(tree);
  add_failover_pg(tree);
  add_failover_redis(tree);
  add_failover_ack(tree);
  add_switchover_pg(tree);
  add_rejoin_pg(tree);
  add_redis_status(tree);
  add_redis_monitor(tree);
  add_redis_sync(tree);
  add_redis_backup(tree);
  add_redis_restore(tree);
  add_backup_run(tree);
  add_backup_list(tree);
  add_backup_verify(tree);
  add_backup_prune(tree);
  add_restore(tree);
  add_runs(tree);
  add_agent(tree);
  add_agent_unit(tree);
  add_config_check(tree);
  add_config_show(tree);
  add_config_init(tree);
  add_lab(tree);
  add_node(tree);
}

std::string not_empty(const std::string& value) {
  return value.empty() ? "takes a value that is not empty" : "";
}

}  // namespace zx::commands
