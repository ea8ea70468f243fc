#include "cli/complete.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "cli/walk.h"
#include "lib/base/text.h"
#include "lib/run/journal.h"

namespace zx::cli {
namespace {

constexpr std::size_t kMostRuns = 50;

struct Candidate {
  std::string word;
  std::string says;
};
using Candidates = std::vector<Candidate>;

void end_after_limit() {
  double seconds = 0.25;
  if (const auto* text = std::getenv("ZX_COMPLETE_TIMEOUT")) {
    const auto wanted = std::atof(text);
    if (std::isfinite(wanted) && wanted > 0 && wanted < 3600) seconds = wanted;
  }
  // The names may stand in a file that blocks (a pipe, a dead NFS server).
  signal(SIGALRM, [](int) { _exit(0); });
  // The shell ends it with these; the handlers of a command would only take note.
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  itimerval timer{};
  timer.it_value.tv_sec = static_cast<time_t>(seconds);
  timer.it_value.tv_usec = static_cast<suseconds_t>((seconds - std::floor(seconds)) * 1e6);
  setitimer(ITIMER_REAL, &timer, nullptr);
}

// What is known about the words in front of the one to complete.
struct Context {
  const commands::Tree& tree;
  Walk walk;
  std::string current;
  std::set<std::string> used;  // names of the flags that are there
  std::vector<std::string> positionals;
  std::map<std::string, std::string> values;  // of flags, by name
  const CLI::Option* waiting = nullptr;       // the flag whose value is completed
  bool only_positionals = false;              // after --
  bool lost = false;                          // a wrong word: nothing sensible can follow
};

void read_flags(const CLI::App& app, const std::vector<std::string>& words, Context& out) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto& word = words[i];
    if (word == "--" && !out.only_positionals) {
      out.only_positionals = true;
      continue;
    }
    if (out.only_positionals || !is_flag_word(word)) {
      out.positionals.push_back(word);
      continue;
    }
    const auto flag = read_flag(app, word);
    for (const auto* option : flag.options) out.used.insert(option->get_name());
    if (flag.option == nullptr) continue;
    out.values[flag.option->get_name()] = flag.value;
    if (!flag.wants_next) continue;
    if (i + 1 == words.size())
      out.waiting = flag.option;
    else
      out.values[flag.option->get_name()] = words[++i];
  }
}

Context context_of(const commands::Tree& tree, const CLI::App& root,
                   std::vector<std::string> words) {
  Context out{tree, {}, {}, {}, {}, {}, nullptr, false, false};
  if (!words.empty()) {
    out.current = words.back();
    words.pop_back();
  }
  out.walk = walk(tree, root, words);
  out.lost = !out.walk.unknown_word.empty() || !out.walk.unknown_flag.empty();
  read_flags(root, out.walk.front, out);
  if (tree.handler(out.walk.place.app) != nullptr)
    read_flags(*out.walk.place.app, out.walk.rest, out);
  return out;
}

// --- names from the configuration ------------------------------------------------------------

std::optional<config::Config> load_config(const Context& context) {
  std::optional<std::string> path;
  if (const auto given = context.values.find("--config"); given != context.values.end()) {
    path = given->second;
    const auto* home = std::getenv("HOME");
    if (path->starts_with("~/") && home != nullptr) path = home + path->substr(1);
  }
  const auto found = config::find_file(path);
  if (!found) return std::nullopt;
  auto config = config::load(*found);
  if (!config) return std::nullopt;
  return *std::move(config);
}

// What the words in front name of that kind, so that only its nodes are offered.
std::set<std::string> named_in(const Context& context, commands::Complete kind) {
  std::set<std::string> named;
  std::size_t position = 0;
  for (const auto& argument : arguments_of(context.tree, *context.walk.place.app)) {
    std::string value;
    if (argument.positional) {
      if (position < context.positionals.size()) value = context.positionals[position];
      ++position;
    } else if (const auto found = context.values.find(argument.name());
               found != context.values.end()) {
      value = found->second;
    }
    if (argument.completes == kind && !value.empty()) named.insert(value);
  }
  return named;
}

Candidates nodes(const Context& context, const config::Config& config) {
  auto wanted = named_in(context, commands::Complete::pg_cluster);
  std::erase_if(wanted, [&](const auto& name) { return config.cluster(name) == nullptr; });
  Candidates out;
  for (const auto& cluster : config.pg) {
    if (!wanted.empty() && !wanted.contains(cluster.name)) continue;
    for (const auto& node : cluster.nodes)
      out.push_back(
          {node.name, fmt::format("{} on {}, port {}", cluster.name, node.host, node.port)});
  }
  return out;
}

Candidates clusters(const config::Config& config) {
  Candidates out;
  for (const auto& cluster : config.pg)
    out.push_back({cluster.name, fmt::format("PostgreSQL, {} nodes", cluster.nodes.size())});
  return out;
}

Candidates redis_nodes(const Context& context, const config::Config& config) {
  auto wanted = named_in(context, commands::Complete::redis_deployment);
  std::erase_if(wanted, [&](const auto& name) { return config.deployment(name) == nullptr; });
  Candidates out;
  for (const auto& deployment : config.redis) {
    if (!wanted.empty() && !wanted.contains(deployment.name)) continue;
    for (const auto& node : deployment.nodes)
      out.push_back(
          {node.name, fmt::format("{} on {}, port {}", deployment.name, node.host, node.port)});
  }
  return out;
}

Candidates deployments(const config::Config& config) {
  Candidates out;
  for (const auto& deployment : config.redis)
    out.push_back({deployment.name, fmt::format("Redis, {} nodes", deployment.nodes.size())});
  return out;
}

Candidates runs(const config::Config& config, bool only_unfinished) {
  namespace fs = std::filesystem;
  std::vector<std::string> ids;
  std::error_code failed;
  for (fs::directory_iterator entry(config.platform.state_dir + "/runs", failed), end;
       !failed && entry != end; entry.increment(failed))
    if (entry->path().extension() == ".jsonl") ids.push_back(entry->path().stem().string());
  std::sort(ids.rbegin(), ids.rend());  // an id begins with its time: newest first
  ids.resize(std::min(ids.size(), kMostRuns));
  Candidates out;
  for (const auto& id : ids) {
    if (!only_unfinished) {
      out.push_back({id, {}});
      continue;
    }
    const auto record = run::read_run(config.platform.state_dir, id);
    if (record && !record->outcome) out.push_back({id, record->plan.command});
  }
  return out;
}

Candidates values_of(const Context& context, const Argument& argument) {
  using commands::Complete;
  Candidates out;
  for (const auto& choice : argument.choices) out.push_back({choice, {}});
  if (!out.empty()) return out;
  switch (argument.completes) {
    case Complete::none: return {};
    case Complete::file: return {{":file", {}}};
    case Complete::directory: return {{":dir", {}}};
    case Complete::pg_node:
    case Complete::pg_cluster:
    case Complete::redis_node:
    case Complete::redis_deployment:
    case Complete::run_id:
    case Complete::unfinished_run: break;
  }
  const auto config = load_config(context);
  if (!config) return {};
  if (argument.completes == Complete::pg_node) return nodes(context, *config);
  if (argument.completes == Complete::pg_cluster) return clusters(*config);
  if (argument.completes == Complete::redis_node) return redis_nodes(context, *config);
  if (argument.completes == Complete::redis_deployment) return deployments(*config);
  return runs(*config, argument.completes == Complete::unfinished_run);
}

// --- what fits where ---------------------------------------------------------------------------

Candidates commands_below(const Context& context) {
  Candidates out;
  for (const auto* child : children_of(*context.walk.place.app))
    out.push_back({child->get_name(), child->get_description()});
  if (context.walk.place.words.empty() && !context.walk.help)
    out.push_back({"help", "says more about a command"});
  return out;
}

bool is_excluded(const Context& context, const Argument& argument) {
  for (const auto* other : argument.option->get_excludes())
    if (context.used.contains(other->get_name())) return true;
  return false;
}

Candidates flags(const Context& context, const std::vector<Argument>& arguments) {
  Candidates out;
  for (const auto& argument : arguments) {
    if (argument.positional || is_excluded(context, argument)) continue;
    if (context.used.contains(argument.name()) && !argument.repeatable) continue;
    out.push_back({argument.name(), argument.says});
  }
  return out;
}

Candidates positional(const Context& context, const std::vector<Argument>& arguments) {
  std::size_t position = 0;
  for (const auto& argument : arguments) {
    if (!argument.positional) continue;
    if (position == context.positionals.size() || argument.repeatable)
      return values_of(context, argument);
    ++position;
  }
  return {};
}

Candidates candidates(const Context& context, const CLI::App& root) {
  if (context.lost) return {};
  const auto& app = *context.walk.place.app;
  const bool is_leaf = context.tree.handler(&app) != nullptr;
  const auto arguments = arguments_of(context.tree, is_leaf ? app : root);
  const auto argument_of = [&](const CLI::Option* option) {
    // A flag in front is the root's own object; the leaf has one of the same name.
    return std::find_if(arguments.begin(), arguments.end(), [&](const Argument& argument) {
      return argument.option == option || argument.name() == option->get_name();
    });
  };
  if (context.waiting != nullptr) {
    const auto found = argument_of(context.waiting);
    return found == arguments.end() ? Candidates{} : values_of(context, *found);
  }
  const auto& current = context.current;
  const bool is_flag = !context.only_positionals && current.starts_with("-");
  if (const auto equals = current.find('='); is_flag && equals != std::string::npos) {
    const auto flag = read_flag(is_leaf ? app : root, current);
    if (flag.option == nullptr || !takes_value(*flag.option)) return {};
    const auto found = argument_of(flag.option);
    if (found == arguments.end()) return {};
    auto out = values_of(context, *found);
    for (auto& candidate : out)
      if (!candidate.word.starts_with(":")) candidate.word.insert(0, current.substr(0, equals + 1));
    return out;
  }
  if (is_flag) return flags(context, arguments);
  auto out = is_leaf ? positional(context, arguments) : Candidates{};
  if (context.positionals.empty() && !context.only_positionals) {
    const auto below = is_leaf && children_of(app).empty() ? Candidates{} : commands_below(context);
    out.insert(out.begin(), below.begin(), below.end());
  }
  // Nothing to name here: an empty word then means "what could I add".
  if (out.empty() && current.empty() && is_leaf && !context.only_positionals)
    return flags(context, arguments);
  return out;
}

}  // namespace

void complete(const commands::Tree& tree, const CLI::App& root, std::vector<std::string> words) {
  end_after_limit();
  if (!words.empty() && words.front() == "--") words.erase(words.begin());
  std::string text;
  try {
    const auto context = context_of(tree, root, std::move(words));
    for (const auto& [word, says] : candidates(context, root)) {
      const bool is_for_shell = word == ":file" || word == ":dir";
      if (!is_for_shell && !word.starts_with(context.current)) continue;
      text += word + (says.empty() ? "" : "\t" + first_line(says)) + "\n";
    }
  } catch (const std::exception&) {
    return;  // no candidates; a message would land in the middle of what is being typed
  }
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto written = ::write(1, rest.data(), rest.size());
    if (written <= 0) return;
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

std::string bash_completion() {
  return R"--(# bash completion of zx, made by zx itself. It asks `zx __complete` for the candidates.
# Wants bash 4; $ZX_COMPLETE_TIMEOUT is the longest wait in seconds.

_zx() {
    local line=${COMP_LINE:0:COMP_POINT} current value prefix= i
    local -a words lines limit
    # COMP_WORDS is broken at = and :, zx wants the words whole.
    read -a words <<< "$line"
    [[ $line == *[[:space:]] && $line != *\\[[:space:]] ]] && words+=('')
    for i in "${!words[@]}"; do
        words[i]=${words[i]#[\"\']}
        words[i]=${words[i]%[\"\']}
    done
    current=${words[-1]}

    command -v timeout > /dev/null && limit=(timeout "${ZX_COMPLETE_TIMEOUT:-0.3}")
    mapfile -t lines < <("${limit[@]}" zx __complete -- "${words[@]:1}" 2> /dev/null)

    # Where = breaks words, readline replaces only what follows it.
    value=$current
    if [[ $current == --*=* ]]; then
        value=${current#*=}
        prefix=${current%%=*}=
        lines=("${lines[@]#"$prefix"}")
        [[ $COMP_WORDBREAKS == *=* ]] && prefix=
    fi

    COMPREPLY=()
    case ${lines[0]-} in
        :file)
            compopt -o filenames 2> /dev/null
            mapfile -t lines < <(compgen -f -- "$value")
            ;;
        :dir)
            compopt -o filenames 2> /dev/null
            mapfile -t lines < <(compgen -d -- "$value")
            ;;
        *)
            compopt -o nosort 2> /dev/null
            ;;
    esac
    for line in "${lines[@]}"; do
        [[ -n $line ]] && COMPREPLY+=("$prefix${line%%$'\t'*}")
    done
}

complete -F _zx zx
)--";
}

std::string zsh_completion() {
  return R"--(#compdef zx
# zsh completion of zx, made by zx itself. It asks `zx __complete` for the candidates.
# $ZX_COMPLETE_TIMEOUT is the longest wait in seconds.

_zx() {
    local line
    local -a limit lines entries
    (( $+commands[timeout] )) && limit=(timeout "${ZX_COMPLETE_TIMEOUT:-0.3}")
    lines=("${(@f)$($limit zx __complete -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2> /dev/null)}")

    case $lines[1] in
        :file | :dir)
            [[ $PREFIX == --*=* ]] && compset -P '*='
            if [[ $lines[1] == :dir ]]; then
                _files -/
            else
                _files
            fi
            return
            ;;
    esac
    for line in $lines; do
        # _describe separates the word from what it is by a colon.
        if [[ $line == *$'\t'* ]]; then
            entries+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        else
            entries+=("${line//:/\\:}")
        fi
    done
    (( $#entries )) && _describe -V zx entries
}

if [[ $funcstack[1] == _zx ]]; then
    _zx "$@"
else
    compdef _zx zx
fi
)--";
}

std::string fish_completion() {
  return R"--(# fish completion of zx, made by zx itself. It asks `zx __complete` for the candidates.
# $ZX_COMPLETE_TIMEOUT is the longest wait in seconds.

function __zx_complete
    set -l words (commandline -opc)
    set -e words[1]
    set -l current (commandline -ct)
    set -l lines
    if command -q timeout
        set -l limit 0.3
        set -q ZX_COMPLETE_TIMEOUT; and set limit $ZX_COMPLETE_TIMEOUT
        set lines (timeout $limit zx __complete -- $words "$current" 2>/dev/null)
    else
        set lines (zx __complete -- $words "$current" 2>/dev/null)
    end
    set -q lines[1]; or return

    set -l prefix (string match -r -- '^--[^=]*=' "$current")
    set -l value (string replace -r -- '^--[^=]*=' '' "$current")
    switch $lines[1]
        case :file
            for path in (__fish_complete_path "$value")
                echo "$prefix$path"
            end
        case :dir
            for path in (__fish_complete_directories "$value")
                echo "$prefix$path"
            end
        case '*'
            string join \n -- $lines
    end
end

complete -c zx -f -k -a '(__zx_complete)'
)--";
}

}  // namespace zx::cli
