#include "lib/backup/metrics.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "lib/backup/retention.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

double seconds(Wall at) { return std::chrono::duration<double>(at.time_since_epoch()).count(); }
double seconds(Millis span) { return static_cast<double>(span.count()) / 1000; }

// Quoted as the format wants it.
std::string label(const std::string& value) {
  std::string out = "\"";
  for (const char c : clean_utf8(value)) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

class Text {
 public:
  void family(const char* name, const char* help) {
    name_ = name;
    out_ += fmt::format("# HELP {} {}\n# TYPE {} gauge\n", name, help, name);
  }
  // `labels`: as in braces, or nothing.
  void value(double value, const std::string& labels = {}) {
    out_ += labels.empty() ? fmt::format("{} {:.15g}\n", name_, value)
                           : fmt::format("{}{{{}}} {:.15g}\n", name_, labels, value);
  }
  void value(std::uint64_t count) { out_ += fmt::format("{} {}\n", name_, count); }
  [[nodiscard]] const std::string& text() const { return out_; }

 private:
  std::string name_, out_;
};

// When a check of each level last passed, of whatever set.
std::map<Level, Wall> last_checks(const std::vector<Entry>& entries) {
  std::map<Level, Wall> last{{Level::checksum, {}}, {Level::decode, {}}, {Level::restore, {}}};
  for (const auto& entry : entries)
    for (const auto& check : entry.checks)
      if (check.ok) last[check.level] = std::max(last[check.level], check.at);
  return last;
}

// The newest rehearsal that worked: what a restore takes.
std::optional<Millis> measured_rto(const std::vector<Entry>& entries) {
  const Check* newest = nullptr;
  for (const auto& entry : entries)
    for (const auto& check : entry.checks)
      if (check.ok && check.restore_ms && (newest == nullptr || check.at > newest->at))
        newest = &check;
  if (newest == nullptr) return std::nullopt;
  return Millis(*newest->restore_ms);
}

void add_points(Text& text, const std::vector<const Entry*>& good) {
  std::map<std::pair<std::string, std::string>, Wall> points;  // of part and name
  for (const auto* entry : good) {
    const auto& set = *entry->set;
    if (set.pg) points.emplace(std::pair("pg", set.pg->cluster), set.pg->at);
    if (set.redis) points.emplace(std::pair("redis", set.redis->deployment), set.redis->at);
    for (const auto& part : set.files) points.emplace(std::pair("files", part.name), part.at);
  }
  text.family("zx_backup_point_timestamp_seconds",
              "The moment that a restore of the newest good set of a part goes back to.");
  for (const auto& [part, at] : points)
    text.value(seconds(at), fmt::format("part={},name={}", label(part.first), label(part.second)));
}

void add_trust(Text& text, const std::vector<Entry>& entries) {
  text.family("zx_backup_trust", "How far the newest set is known to be good: 1 is what holds.");
  const auto newest = std::find_if(entries.begin(), entries.end(),
                                   [](const Entry& entry) { return entry.set.has_value(); });
  if (newest == entries.end()) return;
  const auto held = believed(*newest->set, newest->checks).trust;
  for (const auto trust : {Trust::checksummed, Trust::decoded, Trust::restored, Trust::corrupt})
    text.value(trust == held ? 1 : 0,
               fmt::format("set={},trust={}", label(newest->id), label(name_of(trust))));
}

}  // namespace

std::vector<const Entry*> good_sets(const std::vector<Entry>& entries, Wall now) {
  std::vector<const Entry*> good;
  for (const auto& entry : entries) {
    const auto one = candidate_of(entry);
    if (one.standing == Standing::good && !one.parts.empty() && !is_ahead(one.begun, now))
      good.push_back(&entry);
  }
  std::sort(good.begin(), good.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->set->begun, a->id) > std::pair(b->set->begun, b->id);
  });
  return good;
}

std::uint64_t stored_bytes(const std::vector<Entry>& entries) {
  std::map<std::string, std::uint64_t> objects;
  for (const auto& entry : entries) {
    if (!entry.set) continue;
    for (const auto& object : entry.set->objects()) objects[object.path] = object.bytes;
  }
  std::uint64_t sum = 0;
  for (const auto& [path, bytes] : objects) sum += bytes;
  return sum;
}

std::string metrics_text(const std::vector<Entry>& entries, const config::Backup& policy,
                         Wall now) {
  const auto good = good_sets(entries, now);
  Text text;
  text.family("zx_backup_last_success_timestamp_seconds",
              "When the newest good set was finished; 0: there is none.");
  text.value(good.empty() ? 0 : seconds(good.front()->set->ended));
  add_points(text, good);
  text.family("zx_backup_sets", "Sets in the repository.");
  text.value(static_cast<std::uint64_t>(entries.size()));
  text.family("zx_backup_good_sets", "Sets in the repository that count as good.");
  text.value(static_cast<std::uint64_t>(good.size()));
  text.family("zx_backup_bytes", "Bytes of all sets, each object once.");
  text.value(stored_bytes(entries));
  add_trust(text, entries);
  text.family("zx_backup_last_verify_timestamp_seconds",
              "When a verification of a level last passed; 0: never.");
  for (const auto& [level, at] : last_checks(entries))
    text.value(at == Wall{} ? 0 : seconds(at), "level=" + label(name_of(level)));
  if (const auto rto = measured_rto(entries)) {
    text.family("zx_backup_rto_seconds", "How long the newest rehearsal of a restore took.");
    text.value(seconds(*rto));
  }
  text.family("zx_backup_rto_target_seconds", "How long a restore may take.");
  text.value(seconds(policy.rto));
  text.family("zx_backup_rpo_target_seconds", "How old the newest good set may be.");
  text.value(seconds(policy.rpo));
  return text.text();
}

Status write_metrics(const Repository& repository, const config::Backup& policy, Wall now) {
  if (policy.metrics_file.empty()) return {};
  ZX_ASSIGN(const auto entries, repository.sets());
  os::WriteOptions options;
  options.mode = 0644;
  return os::write_file(policy.metrics_file, metrics_text(entries, policy, now), options);
}

}  // namespace zx::backup
