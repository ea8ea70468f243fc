#include "cli/generate.h"

#include <filesystem>
#include <set>

#include "cli/complete.h"
#include "cli/manual.h"
#include "commands/agent/unit.h"
#include "lib/os/files.h"

namespace zx::cli {
namespace {

Status write_page(const std::string& directory, const std::string& name, const std::string& text) {
  os::WriteOptions options;
  options.mode = 0644;
  options.durable = false;  // made again at any time
  return os::write_file(directory + "/" + name, text, options);
}

bool is_page(const std::string& name) {
  return (name.starts_with("zx") && name.ends_with(".1")) || name == "zx.toml.5";
}

// A page of a command that is gone would describe what does not exist.
Status remove_stale(const std::string& directory, const std::set<std::string>& made) {
  std::error_code failed;
  for (std::filesystem::directory_iterator entry(directory, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    const auto name = entry->path().filename().string();
    if (is_page(name) && !made.contains(name)) ZX_TRY(os::remove_file(entry->path().string()));
  }
  if (failed) return fail(Code::io, "cannot read " + directory + ": " + failed.message());
  return {};
}

Result<int> write_manual(const commands::Tree& tree, const CLI::App& root,
                         const std::string& directory) {
  ZX_TRY(os::make_directories(directory, 0755));
  std::set<std::string> made;
  for (const auto& page : manual_pages(tree, root)) {
    ZX_TRY(write_page(directory, page.file, page.text));
    made.insert(page.file);
  }
  ZX_TRY(remove_stale(directory, made));
  return 0;
}

Result<int> write_completions(const std::string& directory) {
  ZX_TRY(os::make_directories(directory, 0755));
  ZX_TRY(write_page(directory, "zx.bash", bash_completion()));
  ZX_TRY(write_page(directory, "_zx", zsh_completion()));
  ZX_TRY(write_page(directory, "zx.fish", fish_completion()));
  return 0;
}

Result<int> write_units(const std::string& directory) {
  ZX_TRY(os::make_directories(directory, 0755));
  ZX_TRY(write_page(directory, "zx-agent.service", commands::usual_agent_unit()));
  return 0;
}

}  // namespace

void add_generate(commands::Tree& tree, const CLI::App& root) {
  auto* group = tree.group("__generate", "files made from the tree of commands");
  group->group("");
  const auto add = [&](const std::string& name, const std::string& says, auto write) {
    auto directory = std::make_shared<std::string>();
    auto* leaf = tree.leaf(group, name, says, {},
                           [directory, write](commands::Env&) { return write(*directory); });
    leaf->add_option("DIR", *directory, "where to write them")->required();
  };
  add("man", "the pages of the manual",
      [&tree, &root](const std::string& directory) { return write_manual(tree, root, directory); });
  add("completions", "scripts for bash, zsh and fish",
      [](const std::string& directory) { return write_completions(directory); });
  add("systemd", "the unit of the agent, as a package installs it",
      [](const std::string& directory) { return write_units(directory); });
}

}  // namespace zx::cli
