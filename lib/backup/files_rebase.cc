#include "lib/backup/files_rebase.h"

#include <algorithm>
#include <iterator>
#include <tuple>

namespace zx::backup {
namespace {

constexpr std::size_t kKept = kMostArchives / 2;
constexpr std::uint64_t kTiny = 1 << 20;
constexpr std::uint64_t kDeadParts = 4;
// Of a member beside its content: its header and one of pax with its own.
constexpr std::uint64_t kHeaders = 1536;
constexpr std::uint64_t kBlock = 512;

bool needs_less(const ArchiveNeed& one, const ArchiveNeed& other) {
  return std::tie(one.needed, one.set) < std::tie(other.needed, other.set);
}

// How many of these, the smallest first, go into one.
std::size_t count_to_merge(const std::vector<ArchiveNeed>& archives) {
  if (archives.size() < kMostArchives) return 0;
  const auto least = archives.size() - kKept;
  std::size_t count = 0;
  std::uint64_t sum = 0;
  while (count < archives.size() && (count < least || archives[count].needed <= sum))
    sum += archives[count++].needed;
  return count;
}

}  // namespace

Result<std::map<std::string, std::uint64_t>> needed_of(IndexReader& index) {
  std::map<std::string, std::uint64_t> needed;
  auto* last = &*needed.try_emplace(std::string()).first;  // neighbours mostly lie in the same one
  IndexEntry entry;
  while (true) {
    ZX_ASSIGN(const bool has_entry, index.next(entry));
    if (!has_entry) break;
    if (last->first != entry.set) last = &*needed.try_emplace(entry.set).first;
    last->second += kHeaders + (entry.size + kBlock - 1) / kBlock * kBlock;
  }
  needed.erase(std::string());
  return needed;
}

bool may_give_up(const std::vector<ArchiveNeed>& archives, std::uint64_t files,
                 std::uint64_t bytes) {
  if (archives.size() >= kMostArchives) return true;
  std::uint64_t total = 0;
  for (const auto& archive : archives) total += archive.total;
  const auto needed = bytes + files * (kHeaders + kBlock / 2);
  const auto dead = total > needed ? total - needed : 0;
  return std::any_of(archives.begin(), archives.end(), [&](ArchiveNeed archive) {
    archive.needed = archive.total - std::min(archive.total, dead);
    return is_mostly_dead(archive);
  });
}

bool is_mostly_dead(const ArchiveNeed& archive) {
  return archive.total >= kTiny && archive.needed < archive.total / kDeadParts;
}

std::vector<std::string> archives_to_give_up(std::vector<ArchiveNeed> archives,
                                             std::uint64_t room) {
  std::sort(archives.begin(), archives.end(), needs_less);
  const auto alive = std::stable_partition(archives.begin(), archives.end(), is_mostly_dead);
  std::vector<std::string> sets;
  const auto give_up = [&](auto from, auto to) {
    for (; from != to && from->needed <= room; ++from) {
      room -= from->needed;
      sets.push_back(from->set);
    }
  };
  give_up(archives.begin(), alive);
  const std::vector<ArchiveNeed> rest(alive, archives.end());
  const auto dead = sets.size();
  give_up(rest.begin(), std::next(rest.begin(), static_cast<std::ptrdiff_t>(count_to_merge(rest))));
  if (dead == 0 && sets.size() == 1) sets.clear();  // it would be one again
  return sets;
}

}  // namespace zx::backup
