// zx agent: the long-lived process, and what may be asked of it on its host.
#include "lib/agent/agent.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "commands/agent/status.h"
#include "commands/pg_cluster.h"
#include "commands/times.h"
#include "lib/agent/control.h"
#include "lib/agent/recorder.h"
#include "lib/base/log.h"
#include "lib/base/text.h"

namespace zx::commands {
namespace {

struct Options {
  std::string cluster, span, why;
  int most = 50;
};
using Given = std::shared_ptr<Options>;

Result<int> run_agent(Env& env, const Options&) {
  ZX_ASSIGN(const auto* config, env.config());
  // A reader of stderr that hangs must not keep the agent from acting; events are stored elsewhere.
  log::start(env.shared.verbose >= 2 ? log::Level::debug : log::Level::info, log::WhenFull::drop);
  agent::Options options;
  options.config_path = config->path;
  options.version = env.shared.version;
  options.say = log::write;
  ZX_TRY(agent::run(options));
  return 0;
}

Result<int> run_status(Env& env, const Options&) { return show_agent_status(env); }

// --- events ---------------------------------------------------------------------------------

constexpr std::size_t kColumns = 80;
constexpr std::size_t kLeastForText = 24;

// `all` gives the columns one width through all days. What was said goes on below itself.
template <class Iterator>
Table events_of_a_day(Iterator first, Iterator end, const std::vector<store::Event>& all) {
  const auto took_of = [](const store::Event& event) {
    return event.took ? format_duration(*event.took) : std::string();
  };
  std::size_t kind = 5, node = 4, took = 4;
  for (const auto& event : all) {
    kind = std::max(kind, display_width(event.kind));
    node = std::max(node, display_width(event.node));
    took = std::max(took, display_width(took_of(event)));
  }
  const auto used = 2 + 8 + 2 + kind + 2 + node + 2 + took + 2;
  const auto width = std::max(kLeastForText, kColumns - std::min(kColumns, used));
  const auto padded = [](std::string text, std::size_t to) {
    return text + std::string(to - std::min(to, display_width(text)), ' ');
  };
  Table table;
  table.head = {"AT", padded("EVENT", kind), padded("NODE", node), padded("TOOK", took), "WHAT"};
  for (; first != end; ++first) {
    auto what = first_line(first->text);
    if (!first->run.empty() && what.find(first->run) == std::string::npos)
      what += (what.empty() ? "run " : ", run ") + first->run;
    bool is_first = true;
    for (const auto& line : split(wrap(what, width, ""), '\n')) {
      if (std::exchange(is_first, false))
        table.rows.push_back({time_of(first->at), first->kind, first->node, took_of(*first), line});
      else
        table.rows.push_back({"", "", "", "", line});
    }
  }
  return table;
}

Result<int> run_events(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  // From the file: also when no agent runs.
  ZX_ASSIGN(const auto events, store::Events::open_existing(agent::events_path(*config)));
  std::vector<store::Event> found;
  if (events) {
    ZX_ASSIGN(found, events->newest(static_cast<std::size_t>(given.most), given.cluster));
  }
  Json list = Json::array();
  for (const auto& event : found) list.push_back(to_json(event));
  if (found.empty()) env.screen.line("no events");
  for (auto first = found.begin(); first != found.end();) {
    const auto day = day_of(first->at);
    const auto end = std::find_if(first, found.end(),
                                  [&](const auto& event) { return day_of(event.at) != day; });
    env.screen.line(day);
    env.screen.table(events_of_a_day(first, end, found));
    first = end;
  }
  env.screen.json(Json{{"events", std::move(list)}});
  return 0;
}

// What agents watch: a record of its own each.
void add_watched_flag(Tree& tree, CLI::App* leaf, std::string& cluster) {
  tree.complete(leaf->add_option("--cluster", cluster,
                                 "only this PostgreSQL cluster, or redis.NAME for a Redis "
                                 "deployment; else all"),
                Complete::pg_cluster);
}

// --- what changes something -----------------------------------------------------------------

Result<int> run_reload(Env& env, const Options&) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto done, agent::ask_agent(*config, "POST", "/reload", Json::object()));
  env.screen.line("reloaded " + get_string(done, "reloaded"));
  env.screen.json(done);
  return 0;
}

Result<int> run_pause(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  const auto span = parse_duration(given.span).value_or(Millis(0));
  ZX_ASSIGN(const auto done,
            agent::ask_agent(
                *config, "POST", "/pause",
                Json{{"cluster", given.cluster}, {"for_ms", span.count()}, {"why", given.why}}));
  env.screen.line(fmt::format("paused {} until {}", join(get_strings(done, "clusters"), ", "),
                              get_string(done, "until")));
  env.screen.line("end it earlier: " + env.typed("agent resume"));
  env.screen.json(done);
  return 0;
}

Result<int> run_resume(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto done,
            agent::ask_agent(*config, "POST", "/resume", Json{{"cluster", given.cluster}}));
  const auto clusters = get_strings(done, "clusters");
  env.screen.line(clusters.empty() ? "nothing was paused"
                                   : "acts again on " + join(clusters, ", "));
  env.screen.json(done);
  return 0;
}

Result<int> run_ack(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto done,
            agent::ask_agent(*config, "POST", "/ack", Json{{"cluster", given.cluster}}));
  const auto& acknowledged = get_object(done, "acknowledged");
  for (const auto& one : acknowledged)
    env.screen.line(fmt::format(
        "acknowledged: {}, {} to {}, run {}", agent::table_of(get_string(one, "cluster")),
        get_string(one, "from"), get_string(one, "to"), get_string(one, "run")));
  if (acknowledged.empty()) env.screen.line("there is no failover to acknowledge");
  env.screen.json(done);
  return 0;
}

CLI::App* add(Tree& tree, const char* name, const char* summary, LeafDoc doc, const Given& given,
              Result<int> (*run)(Env&, const Options&)) {
  return tree.leaf(tree.group("agent", "the long-lived process that watches and acts"), name,
                   summary, std::move(doc), [given, run](Env& env) { return run(env, *given); });
}

}  // namespace

void add_agent(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* run = add(
      tree, "run", "watch, and fail over by itself",
      {.description =
           "Runs in the foreground until SIGTERM. Holds a connection to every server, so that its "
           "end and the reason for it are known at once; confirms with what the standbys see; and "
           "does then what zx failover pg does, with the same checks, fence and journal. "
           "Afterwards it brings the old primary back, as policy.rejoin says.\n\n"
           "A server that was told to stop has policy.planned_restart_grace to come back. After a "
           "failover the next one within policy.flap_window waits for zx failover ack. An "
           "interrupted run of an agent is resumed by the next one.\n\n"
           "HTTP on agent.listen: /healthz, /readyz, /metrics, /status, and for load balancers "
           "/pg/primary, /pg/replica?lag=SIZE, /pg/NODE/primary and /pg/NODE/replica, which answer "
           "200 or 503, and the same of Redis: /redis/master, /redis/replica?lag=SIZE, "
           "/redis/NODE/master and /redis/NODE/replica. SIGHUP reads zx.toml again; a wrong file "
           "is refused whole. /readyz is 503, with the reason, while it cannot do its work, "
           "such as with a full disk under state_dir.\n\n"
           "A Redis deployment that no Sentinel watches is failed over in the same way, as zx "
           "failover redis does it; one that Sentinels watch is left to them.",
       .examples = {{"zx agent", "the same as zx agent run"},
                    {"ZX__AGENT__NAME=b ZX__AGENT__LISTEN=127.0.0.1:9181 zx agent",
                     "a second one on this host, which takes over when the first is gone"}},
       .exits = {Code::locked, Code::config, Code::auth}},
      given, run_agent);
  tree.stands_for(run->get_parent(), run);
  add(tree, "status", "what the agent of this host sees and does",
      {.description =
           "Asks the agent through its socket, and reads what the journals and events of this host "
           "say: how each cluster is, what was done last and what it cost, what stands open, and, "
           "when a person is needed, what to type next. zx status looks at the servers itself.",
       .examples = {{"zx agent status", "now"},
                    {"zx agent status -o json", "the same facts, and all of each server"}},
       .exits = {Code::config, Code::unreachable, Code::auth}},
      given, run_status);
  auto* events = add(
      tree, "events", "what happened, with times",
      {.description = "Detected, confirmed, decided, fenced, promoted, first write, repointed, "
                      "rejoined, and what was refused or blocked, from state_dir/events.sqlite.",
       .examples = {{"zx agent events --most 200", "more of them"}},
       .exits = {Code::config}},
      given, run_events);
  events->add_option("--most", given->most, "how many of the newest (50)")
      ->check(CLI::Range(1, 100000))
      ->option_text("N");
  add_cluster_flag(tree, events, given->cluster);
  add(tree, "reload", "read zx.toml again",
      {.description = "As SIGHUP does, and says what is wrong with the file.",
       .examples = {{"zx agent reload", "after a change of zx.toml"}},
       .exits = {Code::refused, Code::config, Code::unreachable, Code::auth}},
      given, run_reload);
  auto* pause =
      add(tree, "pause", "no automatic action for a while",
          {.description = "For maintenance. Every agent of the platform goes on watching and does "
                          "nothing to the cluster until the time is over, or zx agent resume.",
           .examples = {{"zx agent pause --for 30m --why 'kernel update'", "half an hour"}},
           .exits = {Code::config, Code::unreachable, Code::auth}},
          given, run_pause);
  pause->add_option("--for", given->span, "how long, such as 30m")
      ->required()
      ->type_name("DURATION")
      ->check([](const std::string& text) {
        const auto span = parse_duration(text);
        return span && span->count() > 0 ? std::string()
                                         : "takes a duration such as 30m, not \"" + text + "\"";
      });
  pause->add_option("--why", given->why, "what for, in one line; shown by status")
      ->type_name("TEXT")
      ->check([](const std::string& text) {
        return text.find('\n') == std::string::npos ? std::string() : "takes one line";
      });
  add_watched_flag(tree, pause, given->cluster);
  auto* resume = add(tree, "resume", "end a pause",
                     {.description = "Agents act again at once.",
                      .examples = {{"zx agent resume", "on every cluster"}},
                      .exits = {Code::config, Code::unreachable, Code::auth}},
                     given, run_resume);
  add_watched_flag(tree, resume, given->cluster);
}

void add_failover_ack(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("failover", "make a standby the primary when the primary is gone"), "ack",
      "acknowledge the agent's last failover",
      {.description = "After a failover an agent makes no second one within policy.flap_window: "
                      "what failed twice in a short time should be looked at by a person. This "
                      "says that you have, and allows the next one.",
       .examples = {{"zx failover ack", "on every cluster"}},
       .exits = {Code::config, Code::unreachable, Code::auth}},
      [given](Env& env) { return run_ack(env, *given); });
  add_watched_flag(tree, leaf, given->cluster);
}

}  // namespace zx::commands
