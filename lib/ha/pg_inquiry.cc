#include "lib/ha/pg_inquiry.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/ha/pg_directory.h"

namespace zx::ha {

void look_on_host(PgWorld& world, pg::NodeFacts& facts, const std::optional<Lsn>& wal_from,
                  Millis deadline) {
  Json request = Json::object();
  if (wal_from) request["wal_from"] = to_string(*wal_from);
  const auto answer = world.on_host_of(facts.name, "pg-inspect", request, deadline);
  if (answer)
    facts.local = pg::local_from_json(*answer);
  else
    facts.local_error = answer.error().message;
}

void look_at_old_primary(PgWorld& world, const pg::Snapshot& snapshot, pg::NodeFacts& old,
                         Millis deadline) {
  // How far the furthest standby is, is where reading the old primary's WAL begins.
  Lsn furthest;
  for (const auto& facts : snapshot.nodes)
    if (facts.answered()) furthest = std::max(furthest, facts.position());
  look_on_host(world, old, furthest, deadline);
  // A fence there would prove nothing, and its WAL is another's.
  auto seen = snapshot;
  for (auto& facts : seen.nodes)
    if (facts.name == old.name) facts = old;
  const auto why_wrong = wrong_directory(seen, old.name);
  if (why_wrong.empty()) return;
  const auto* node = world.cluster().node(old.name);
  old.local = pg::LocalFacts{};
  old.local->problem = fmt::format("{} ({})", why_wrong, node != nullptr ? node->data_dir : "");
}

Inquiry inquire(PgWorld& world, const pg::Snapshot& snapshot, const std::string& node,
                Millis deadline) {
  Inquiry inquiry;
  inquiry.node = node;
  inquiry.began = monotonic_now();
  if (const auto* facts = snapshot.node(node)) inquiry.old = *facts;
  const std::string own_host = "own host", others = "others";
  const auto parts = all_at_once<Inquiry>({own_host, others}, [&](const std::string& whom) {
    auto part = inquiry;
    if (whom == own_host)
      look_at_old_primary(world, snapshot, part.old, deadline);
    else
      part.testimonies = world.ask_around(node, deadline);
    return part;
  });
  inquiry.old = parts.front().old;
  inquiry.testimonies = parts.back().testimonies;
  return inquiry;
}

void add(pg::Snapshot& snapshot, const Inquiry& inquiry) {
  snapshot.testimonies.insert(snapshot.testimonies.end(), inquiry.testimonies.begin(),
                              inquiry.testimonies.end());
  for (auto& facts : snapshot.nodes) {
    if (facts.name != inquiry.node) continue;
    facts.local = inquiry.old.local;
    facts.local_error = inquiry.old.local_error;
  }
}

}  // namespace zx::ha
