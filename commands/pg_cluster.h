// Which PostgreSQL cluster a command is about, and what its looks have in common.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "commands/command.h"
#include "lib/ha/pg_chain.h"

namespace zx::commands {

// `--cluster`, needed only when zx.toml has several.
void add_cluster_flag(Tree& tree, CLI::App* leaf, std::string& cluster);
[[nodiscard]] Result<const config::PgCluster*> pick_cluster(const config::Config& config,
                                                            const std::string& name);

[[nodiscard]] Json to_json(const ha::PgVerdict& verdict);
[[nodiscard]] Json to_json(const ha::Choice& choice);

// With -v: what was seen, and what follows from it.
void log_evidence(const ha::View& view);

// The lock of the cluster, or, for a dry run, nothing but the refusal that take_turn() would give.
[[nodiscard]] Result<std::unique_ptr<coord::Lease>> begin_turn(
    ha::PgWorld& world, const std::string& command, bool dry_run,
    const std::function<bool(const run::Record&)>& supersedes = {});

// A run that was not begun: {"run": null, "outcome": "refused", …} and the error itself.
[[nodiscard]] Result<int> not_begun(Env& env, const std::string& command, const Error& error,
                                    const ha::Prepared* why);

// Carries the plan out, line by line, and concludes.
[[nodiscard]] Result<int> carry_out(Env& env, ha::PgWorld& world, const ha::Prepared& prepared,
                                    coord::Lease& lease, std::optional<Millis> looked = {});

}  // namespace zx::commands
