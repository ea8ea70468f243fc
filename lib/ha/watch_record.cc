#include "lib/ha/watch_record.h"

#include <algorithm>

namespace zx::ha {

const WatchRecord::Owed* WatchRecord::owes(const std::string& node) const {
  for (const auto& one : owed)
    if (one.node == node) return &one;
  return nullptr;
}

void WatchRecord::forgive(const std::string& node) {
  std::erase_if(owed, [&](const auto& one) { return one.node == node; });
}

void WatchRecord::owe(const Owed& one) {
  if (one.node.empty()) return;
  forgive(one.node);
  owed.push_back(one);
}

void WatchRecord::begin(const Begun& now) {
  // An earlier one whose end nobody told: whom it was promoting may come back as a primary, and
  // whom it gave up stays in doubt when this one promotes nobody.
  if (begun) {
    if (begun->to != now.to) owe({begun->to, "of " + begun->agent, "not known", now.at});
    owe({begun->from, "of " + begun->agent, begun->proof, begun->at, begun->to});
  }
  forgive(now.to);
  begun = now;
}

void WatchRecord::promote(const std::string& who, const Failover& done, const std::string& proof,
                          const std::optional<std::string>& after) {
  const bool is_same = begun && begun->from == done.from && begun->to == done.to;
  if (begun && begun->agent != who && !is_same) return;
  begun.reset();
  if (last && last->run == done.run) return;
  if (after && *after != (last ? last->run : std::string())) return;
  last = done;
  forgive(done.to);
  owe({done.from, done.run, proof, done.at});
}

std::string watch_key(const std::string& cluster) { return "watch/pg." + cluster; }

Json to_json(const WatchRecord& record) {
  Json json = Json::object();
  if (record.last)
    json["last_failover"] = {{"at", format_utc(record.last->at)},
                             {"run", record.last->run},
                             {"from", record.last->from},
                             {"to", record.last->to},
                             {"acknowledged", record.last->is_acknowledged},
                             {"timeline", record.last->timeline},
                             {"by_hand", record.last->by_hand}};
  if (record.begun)
    json["begun_failover"] = {{"agent", record.begun->agent},
                              {"from", record.begun->from},
                              {"to", record.begun->to},
                              {"proof", record.begun->proof},
                              {"at", format_utc(record.begun->at)}};
  if (record.pause)
    json["pause"] = {{"id", record.pause->id},
                     {"at", format_utc(record.pause->at)},
                     {"for_ms", record.pause->span.count()},
                     {"why", record.pause->why}};
  json["owed"] = Json::array();
  for (const auto& one : record.owed)
    json["owed"].push_back({{"node", one.node},
                            {"run", one.run},
                            {"proof", one.proof},
                            {"since", format_utc(one.since)},
                            {"to", one.to}});
  if (record.sync_owed)
    json["sync_owed"] = {{"wanted", record.sync_owed->wanted},
                         {"reduced", record.sync_owed->reduced},
                         {"run", record.sync_owed->run}};
  return json;
}

Result<WatchRecord> watch_record_from(const std::string& text) {
  WatchRecord record;
  if (text.empty()) return record;
  ZX_ASSIGN(const auto json, parse_json(text, "the record of a cluster"));
  if (const auto& last = get_object(json, "last_failover"); last.is_object())
    record.last = WatchRecord::Failover{
        parse_utc(get_string(last, "at")), get_string(last, "run"),
        get_string(last, "from"),          get_string(last, "to"),
        get_bool(last, "acknowledged"),    static_cast<std::uint32_t>(get_int(last, "timeline")),
        get_bool(last, "by_hand")};
  if (const auto& begun = get_object(json, "begun_failover"); begun.is_object())
    record.begun = WatchRecord::Begun{get_string(begun, "agent"), get_string(begun, "from"),
                                      get_string(begun, "to"), get_string(begun, "proof"),
                                      parse_utc(get_string(begun, "at"))};
  if (const auto& pause = get_object(json, "pause"); pause.is_object())
    record.pause =
        WatchRecord::Pause{get_string(pause, "id"), parse_utc(get_string(pause, "at")),
                           std::clamp(Millis(get_int(pause, "for_ms")), Millis(0), kLongestPause),
                           get_string(pause, "why")};
  for (const auto& one : get_object(json, "owed"))
    if (!get_string(one, "node").empty())
      record.owed.push_back({get_string(one, "node"), get_string(one, "run"),
                             get_string(one, "proof"), parse_utc(get_string(one, "since")),
                             get_string(one, "to")});
  if (const auto& debt = get_object(json, "sync_owed"); !get_string(debt, "wanted").empty())
    record.sync_owed =
        SyncDebt{get_string(debt, "wanted"), get_string(debt, "reduced"), get_string(debt, "run")};
  return record;
}

}  // namespace zx::ha
