#include "cli/app.h"

#include "cli/complete.h"
#include "cli/generate.h"
#include "cli/help.h"
#include "cli/parse.h"
#include "cli/screen.h"
#include "cli/version.h"
#include "cli/walk.h"
#include "lib/base/log.h"

namespace zx::cli {
namespace {

constexpr int kNagiosUnknown = 3;

log::Level level_of(const commands::Shared& shared) {
  if (shared.quiet) return log::Level::error;
  if (shared.verbose >= 2) return log::Level::debug;
  return shared.verbose == 1 ? log::Level::info : log::Level::warning;
}

commands::Format format_named(const std::string& name) {
  if (name == "json") return commands::Format::json;
  return name == "nagios" ? commands::Format::nagios : commands::Format::table;
}

// What an error that comes before the flags are understood is printed with.
commands::Shared guess_shared(const std::vector<std::string>& words) {
  commands::Shared guess;
  for (std::size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
    const auto& word = words[i];
    const bool is_output = word == "-o" || word == "--output";
    if (word == "-ojson" || word == "--output=json" ||
        (is_output && i + 1 < words.size() && words[i + 1] == "json"))
      guess.format = commands::Format::json;
    if (word == "--no-color") guess.no_color = true;
  }
  return guess;
}

}  // namespace

Application::Application()
    : root_("watch, fail over and repair the servers of a platform", "zx"), tree_(root_) {
  screen_ = std::make_unique<TerminalScreen>(shared_);
  root_.set_help_flag("-h,--help", "show what the command does and its flags");
  commands::add_all(tree_);
  add_generate(tree_, root_);
  share_flags(root_);
  root_.add_flag("--version")
      ->description("show the version of zx and of its libraries")
      ->group(kGlobalSection);
  share_flags_below(root_);
}

Application::~Application() = default;

void Application::share_flags(CLI::App& app) {
  const auto last = CLI::MultiOptionPolicy::TakeLast;
  const auto* doc = tree_.doc(&app);
  const bool nagios = doc != nullptr && doc->nagios;
  std::vector<std::string> formats{"table", "json"};
  if (nagios) formats.emplace_back("nagios");
  auto* config = app.add_option_function<std::string>(
      "-c,--config", [this](const std::string& path) { shared_.config = path; },
      "the configuration; else $ZX_CONFIG, ./zx.toml, ~/.config/zx/zx.toml, /etc/zx/zx.toml");
  config->type_name("FILE")->multi_option_policy(last)->group(kGlobalSection);
  tree_.complete(config, commands::Complete::file);
  app.add_option_function<std::string>(
         "-o,--output", [this](const std::string& name) { shared_.format = format_named(name); },
         nagios ? "tables for people, JSON for programs, or a line for Nagios"
                : "tables for people, or JSON for programs")
      ->check(CLI::IsMember(formats))
      ->multi_option_policy(last)
      ->group(kGlobalSection);
  app.add_flag("-v,--verbose", shared_.verbose, "log what is done; twice for every detail")
      ->group(kGlobalSection);
  app.add_flag("-q,--quiet", shared_.quiet, "no notes and no progress, only results and errors")
      ->group(kGlobalSection);
  app.add_flag("--no-color", shared_.no_color, "no colours, as with $NO_COLOR")
      ->group(kGlobalSection);
  app.add_option_function<std::string>(
         "--timeout", [this](const std::string& text) { shared_.timeout = parse_duration(text); },
         "give up after this time, such as 30s or 2m")
      ->type_name("DURATION")
      ->check([](const std::string& text) {
        const auto span = parse_duration(text);
        return span && span->count() > 0
                   ? std::string()
                   : "takes a duration such as 500ms, 30s or 2m, not \"" + text + "\"";
      })
      ->multi_option_policy(last)
      ->group(kGlobalSection);
}

void Application::share_flags_below(CLI::App& app) {
  if (app.get_help_ptr() != nullptr) app.get_help_ptr()->group(kGlobalSection);
  for (auto* child : app.get_subcommands([](CLI::App* c) { return !c->get_name().empty(); })) {
    if (tree_.handler(child) != nullptr) share_flags(*child);
    share_flags_below(*child);
  }
}

int Application::run(const std::vector<std::string>& words) {
  // Its words are those of an unfinished command line: nothing of them may be parsed here.
  if (!words.empty() && words.front() == kCompleteCommand) {
    complete(tree_, root_, {words.begin() + 1, words.end()});
    return 0;
  }
  shared_ = guess_shared(words);
  log::start(log::Level::warning);
  Result<int> status = 0;
  try {
    status = dispatch(words);
  } catch (const std::exception& error) {
    status = fail(Code::internal, error.what());
  }
  if (!status) screen_->error(status.error());
  int exit = status ? *status : info(status.error().code).exit;
  if (!status && shared_.format == commands::Format::nagios) exit = kNagiosUnknown;
  if (const auto written = screen_->finish(); !written) {
    auto error = written.error();
    if (has_acted_) error.hint = "the run has ended all the same: zx runs list";
    screen_->error(error);
    if (exit == 0 && !has_acted_) exit = info(error.code).exit;
  }
  return exit;
}

Result<int> Application::dispatch(const std::vector<std::string>& words) {
  auto found = walk(tree_, root_, words);
  auto& place = found.place;
  if (!found.unknown_flag.empty())
    return fail(unknown_front_flag(tree_, root_, place, found.unknown_flag));
  if (!found.unknown_word.empty()) return fail(unknown_command(place, found.unknown_word));
  if (found.waiting != nullptr) return fail(needs_value(*found.waiting));
  if (found.version) {
    if (screen_->is_json())
      screen_->json(version_json());
    else
      screen_->raw(version_text());
    return 0;
  }
  if (found.help) {
    screen_->raw(help_text(tree_, place));
    return 0;
  }
  if (const auto* leaf = tree_.default_of(place.app); leaf != nullptr) {
    place.app = leaf;
    place.words.push_back(leaf->get_name());
  }
  const auto* handler = tree_.handler(place.app);
  if (handler == nullptr) {
    if (screen_->is_json()) return fail(Code::usage, "no command given", place.name() + " --help");
    screen_->help_on_stderr(short_help(tree_, place));
    return info(Code::usage).exit;
  }

  auto* leaf = &root_;
  for (const auto& word : place.words) leaf = leaf->get_subcommand(word);
  auto all = found.front;
  all.insert(all.end(), found.rest.begin(), found.rest.end());
  const auto guess = std::exchange(shared_, commands::Shared{});
  auto parsed = parse_leaf(tree_, place, *leaf, all);
  if (!parsed) {
    shared_ = guess;
    return fail(std::move(parsed).error());
  }
  if (*parsed == Parsed::help) {
    screen_->raw(help_text(tree_, place));
    return 0;
  }
  log::start(level_of(shared_));
  shared_.version = version();
  commands::Env env(shared_, *screen_);
  auto status = (*handler)(env);
  has_acted_ = env.has_acted;
  return status;
}

}  // namespace zx::cli
