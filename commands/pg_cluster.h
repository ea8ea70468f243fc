// Which PostgreSQL cluster a command is about, and what its looks have in common.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "commands/command.h"
#include "lib/ha/pg_chain.h"
#include "lib/ha/pg_told.h"

namespace zx::commands {

// `--cluster`, needed only when zx.toml has several.
void add_cluster_flag(Tree& tree, CLI::App* leaf, std::string& cluster);
[[nodiscard]] Result<const config::PgCluster*> pick_cluster(const config::Config& config,
                                                            const std::string& name);

[[nodiscard]] Json to_json(const ha::PgVerdict& verdict);
[[nodiscard]] Json to_json(const ha::Choice& choice);

// With -v: what was seen, and what follows from it.
void log_evidence(const ha::View& view);

// A person's hand on a cluster.
struct Hand {
  std::unique_ptr<coord::Shared> shared;  // with the agents and other persons
  std::unique_ptr<ha::PgWorld> world;
};
// Both must outlive it.
[[nodiscard]] Result<Hand> hand_on(const config::Config& config, const config::PgCluster& cluster);

// `--assume-alone`
void add_alone_flag(CLI::App* leaf, bool& alone);

// The turn of the cluster. For a dry run, or when a question is asked first, nothing but the
// refusal that take_turn() would give: an open question must not keep an agent from a failover.
[[nodiscard]] Result<std::unique_ptr<coord::Lease>> begin_turn(Hand& hand, const ha::TurnWish& wish,
                                                               bool only_look);
// After the question, and with the turn: takes the plan as it is now in the place of the one that
// was agreed to. Code::refused when it would do something else.
[[nodiscard]] Status still_agreed(ha::Prepared& prepared, Result<ha::Prepared> now);

// A run that was not begun: {"run": null, "outcome": "refused", …} and the error itself.
[[nodiscard]] Result<int> not_begun(Env& env, const std::string& command, const Error& error,
                                    const ha::Prepared* why);

// Carries the plan out, line by line, tells the agents, and concludes.
[[nodiscard]] Result<int> carry_out(Env& env, Hand& hand, const ha::Prepared& prepared,
                                    coord::Lease& lease, std::optional<Millis> looked = {});
// Why a run about a standby was interrupted, if another wanted its turn.
void note_given_way(Env& env, const coord::Lease& lease, const run::RunReport& report);
// What a run did, as it ended, and what it owes. An Error: the agents do not know.
[[nodiscard]] Status tell_agents(const Hand& hand, ha::ToldByHand& told,
                                 const run::RunReport& report);
// What the agents could not be told.
void note_untold(Env& env, const Status& told);

}  // namespace zx::commands
