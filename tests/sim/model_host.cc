#include "tests/sim/model_host.h"

#include <fmt/format.h>

#include "lib/pg/conninfo.h"

namespace zx::sim {
namespace {

Micros between(Random& random, int low, int high) { return random.between(low, high) * kMs; }

}  // namespace

void ModelHosts::later(const ModelNode& node, Micros span, std::function<void()> then) {
  scheduler_.after(span, [this, host = node.index, then = std::move(then)] {
    if (!network_.is_down(host)) then();
  });
}

void ModelHosts::put_fence(ModelNode& node, const std::string& run) {
  if (!node.fence) node.fence = FenceRecord{run, !node.standby_signal};
  node.standby_signal = true;
}

void ModelHosts::fence(ModelNode& node, const std::string& run, Done done) {
  const bool was_fenced = node.fence.has_value();
  const bool ran = node.process != Process::down;
  const bool killed = node.frozen;
  const Json report{{"ended", ran ? 5 : 0},
                    {"killed", killed},
                    {"was_fenced", was_fenced},
                    {"control_mark", std::to_string(node.starts)}};
  if (drops_fence) return done(report);
  put_fence(node, run);
  if (!ran) return done(report);
  later(node, killed ? between(random_, 5, 30) : between(random_, 5, 400),
        [this, &node, report, done] {
          cluster_.end(node, "");
          done(report);
        });
}

void ModelHosts::stop(ModelNode& node, Done done) {
  node.kept_down = true;
  if (node.process == Process::down) return done(Json::object());
  const bool clean = !node.frozen && !node.primary;
  later(node, between(random_, 10, 500), [this, &node, clean, done] {
    cluster_.end(node, clean ? "shut down in recovery" : "");
    done(Json::object());
  });
}

void ModelHosts::start(ModelNode& node, Done done) {
  node.kept_down = false;
  const auto says = [done, &node](bool runs) {
    if (runs)
      done(Json::object());
    else
      done(fail(Code::failed, node.name + " did not start"));
  };
  if (node.interrupted_rewind)
    return done(fail(Code::partial, node.name + ": a rewind was interrupted"));
  if (node.process != Process::down) {
    later(node, 200 * kMs, [&node, says] { says(node.process == Process::running); });
    return;
  }
  cluster_.start(node, says);
}

void ModelHosts::settle(ModelNode& node, Done done) {
  stop(node, [this, &node, done](const Result<Json>&) {
    if (node.control == "shut down") return done(Json::object());
    if (!node.standby_signal)
      return done(fail(Code::internal, node.name + " has no standby.signal"));
    later(node, between(random_, 50, 500), [&node, done] {
      node.control = "shut down in recovery";
      done(Json::object());
    });
  });
}

// pg_rewind and pg_basebackup: from a primary that this host reaches, all the while.
void ModelHosts::copy(const std::string& op, ModelNode& node, const Json& request, Done done) {
  const bool rebuilds = op == "pg-rebuild";
  const auto run = get_string(request, "run");
  if (rebuilds && !run.empty() && node.rebuilt_by == run) return done(Json::object());
  const auto where = pg::upstream_of(get_string(get_object(request, "source"), "conninfo"));
  auto* source = where ? cluster_.at(where->host, where->port) : nullptr;
  const auto reaches = [this, &node, source] {
    return source != nullptr && source->serves() && source->primary &&
           network_.both_ways(node.index, source->index) && !network_.is_down(source->index);
  };
  if (node.process != Process::down)
    return done(fail(Code::failed, node.name + ": the server must be shut down"));
  if (!reaches()) return done(fail(Code::failed, op + ": cannot reach the source"));
  if (!rebuilds) {
    node.unsealed = false;  // recovered as the primary that it was
    if (node.control != "shut down" && node.control != "shut down in recovery")
      return done(fail(Code::failed, "target server must be shut down cleanly"));
    // It compares the names of timelines, not what is on them.
    auto own = cluster_.lineage(node), theirs = cluster_.lineage(*source);
    own.mark.reset();
    const auto relation = pg::can_follow(own, node.end(), theirs);
    if (relation.kin == pg::Kin::same_line)
      return done(fail(Code::failed, "pg_rewind says that no rewind is required"));
    if (const auto kept = (relation.fork.value - lsn_after(0).value) / 128;
        kept > 0 && (kept > source->wal.size() || node.wal[kept - 1] != source->wal[kept - 1]))
      cluster_.rewound_wrongly(node, *source);
    node.interrupted_rewind = true;
  }
  const auto lasts = rebuilds ? between(random_, 300, 2500) : between(random_, 100, 900);
  later(node, lasts, [&node, source, reaches, rebuilds, run, done, this] {
    if (!reaches())
      return done(rebuilds ? fail(Code::failed, "pg_basebackup: the connection is lost")
                           : fail(Code::partial, "pg_rewind broke off"));
    if (node.process != Process::down)
      return done(fail(Code::failed, node.name + " was started meanwhile"));
    cluster_.copy_wal(node, *source);
    node.interrupted_rewind = false;
    node.standby_signal = true;
    node.control = "in archive recovery";
    if (rebuilds) {
      node.rebuilt_by = run;
      node.fence.reset();
      node.slots.clear();
    }
    done(Json{{"said", "Done!"}});
  });
}

void ModelHosts::run(const std::string& op, ModelNode& node, const Json& request, Done done) {
  const auto run = get_string(request, "run");
  const auto check = [&]() -> bool {
    if (!node.interrupted_rewind) return true;
    done(fail(Code::partial, node.name + ": a rewind was interrupted; it must never be started"));
    return false;
  };
  if (op == "pg-inspect")
    return done(pg::to_json(cluster_.local_facts(node, request.contains("wal_from"))));
  if (op == "pg-fence") return check() ? fence(node, run, std::move(done)) : void();
  if (op == "pg-stop") return stop(node, std::move(done));
  if (op == "pg-start") return start(node, std::move(done));
  if (op == "pg-settle") return settle(node, std::move(done));
  if (op == "pg-rewind" || op == "pg-rebuild") return copy(op, node, request, std::move(done));
  if (op == "pg-unfence") {
    if (node.fence && node.fence->run == run) {
      if (node.fence->made_signal) node.standby_signal = false;
      node.fence.reset();
    }
    return done(Json::object());
  }
  if (op == "pg-forget-fence") {
    node.fence.reset();
    return done(Json::object());
  }
  if (op == "pg-stop-clean") {
    if (!check()) return;
    put_fence(node, run);
    node.kept_down = true;
    const auto stopped = [this, &node, done] {
      if (network_.is_down(node.index)) return;
      done(Json{{"control_state", node.control},
                {"checkpoint", to_string(lsn_after(node.wal.empty() ? 0 : node.wal.size() - 1))}});
    };
    return cluster_.stop_clean(node, stopped);
  }
  if (op == "pg-keep-wal") {
    const auto from = parse_lsn(get_string(request, "from")).value_or(Lsn{});
    const auto bytes = bytes_ahead(node.end(), from);
    return done(Json{{"from", to_string(from)},
                     {"end", to_string(node.end())},
                     {"bytes", bytes},
                     {"commits", bytes / 128},
                     {"directory", bytes > 0 ? "kept" : ""}});
  }
  if (op == "pg-undo-rebuild" || op == "pg-drop-old") {
    node.rebuilt_by.clear();
    return done(Json::object());
  }
  if (op == "pg-own-upstream")
    return done(Json{{"conninfo", node.conninfo}, {"had_password", false}});
  if (op == "pg-configure-standby") {
    if (!check()) return;
    node.conninfo = get_string(request, "conninfo");
    node.slot = get_string(request, "slot");
    node.standby_signal = true;
    return done(Json::object());
  }
  done(fail(Code::usage, "the model knows no node operation " + op));
}

}  // namespace zx::sim
