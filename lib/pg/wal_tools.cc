#include "lib/pg/wal_tools.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/pg/lineage.h"

namespace zx::pg {
namespace {

Result<os::ProcessOptions> quiet_options(const DataDir& dir) {
  os::ProcessOptions options;
  ZX_ASSIGN(options.user, owner_of(dir));
  options.environment = {{"LC_ALL", "C"}};
  options.directory = "/";
  options.deadline = Millis(30'000);
  return options;
}

struct Segments {
  std::uint64_t size = 0;
  Lsn end;  // where the segments that follow each other from the asked one end
};

bool is_unwritten(const std::string& segment) {
  std::ifstream file(segment, std::ios::binary);
  std::array<char, 40> header{};  // XLogLongPageHeaderData
  return file.read(header.data(), header.size()) &&
         std::all_of(header.begin(), header.end(), [](char byte) { return byte == 0; });
}

// pg_waldump waits five seconds for a segment that does not exist, and WAL that ends with a segment
// (after pg_switch_wal, say) has no next one: it is told where to stop. All segments are of one
// size.
Result<Segments> segments_from(const DataDir& dir, std::uint32_t timeline, Lsn from) {
  const auto pg_wal = dir.path + "/pg_wal";
  Segments segments;
  std::string newest;
  std::error_code code;
  const auto prefix = fmt::format("{:08X}", timeline);
  for (const auto& entry : std::filesystem::directory_iterator(pg_wal, code)) {
    const auto name = entry.path().filename().string();
    if (name.size() != 24 || name.find_first_not_of("0123456789ABCDEF") != std::string::npos)
      continue;
    if (segments.size == 0) segments.size = entry.file_size(code);
    if (name.starts_with(prefix)) newest = std::max(newest, name);
  }
  // The sizes that initdb allows.
  if (code || segments.size < (1u << 20) || segments.size > (1u << 30) ||
      !std::has_single_bit(segments.size))
    return fail(Code::failed,
                fmt::format("the WAL of {} could not be read: no segment in {}", dir.node, pg_wal));
  const auto first = segment_name(timeline, from, segments.size);
  if (newest > first && !std::filesystem::exists(pg_wal + "/" + first, code))
    return fail(Code::failed, fmt::format("the WAL of {} could not be read from {}: no segment {}",
                                          dir.node, to_string(from), first));
  // Made in advance, and never written: pg_waldump takes it for one of size 0.
  if (is_unwritten(pg_wal + "/" + first)) {
    segments.end = from;
    return segments;
  }
  segments.end = Lsn{from.value / segments.size * segments.size};
  while (std::filesystem::exists(pg_wal + "/" + segment_name(timeline, segments.end, segments.size),
                                 code))
    segments.end = Lsn{segments.end.value + segments.size};
  segments.end = std::max(segments.end, from);  // or it never came so far
  return segments;
}

// With the names of the segments: without, it asks the first file that it finds for their size,
// which may be one that was only made in advance.
std::vector<std::string> waldump(const DataDir& dir, std::uint32_t timeline, Lsn from,
                                 const Segments& segments, const std::vector<std::string>& more) {
  std::vector<std::string> argv{
      program(dir, "pg_waldump"), "--path",  dir.path + "/pg_wal", "--timeline",
      std::to_string(timeline),   "--start", to_string(from),      "--end",
      to_string(segments.end)};
  argv.insert(argv.end(), more.begin(), more.end());
  argv.push_back(segment_name(timeline, from, segments.size));
  argv.push_back(segment_name(timeline, Lsn{segments.end.value - segments.size}, segments.size));
  return argv;
}

}  // namespace

Result<std::map<std::string, std::string>> control_data(const DataDir& dir) {
  ZX_ASSIGN(const auto options, quiet_options(dir));
  auto result = os::run_ok({program(dir, "pg_controldata"), "-D", dir.path}, options);
  if (!result) return fail_while(result.error(), "reading the control file of " + dir.node);
  std::map<std::string, std::string> fields;
  for (const auto& line : split(result->out, '\n')) {
    const auto colon = line.find(':');
    if (colon != std::string::npos)
      fields[std::string(trim(line.substr(0, colon)))] = std::string(trim(line.substr(colon + 1)));
  }
  return fields;
}

Result<std::string> setting_of(const DataDir& dir, const std::string& name) {
  ZX_ASSIGN(const auto options, quiet_options(dir));
  std::vector<std::string> argv{program(dir, "postgres"), "-D", dir.path};
  if (!dir.config_file.empty()) {
    argv.emplace_back("-c");
    argv.push_back("config_file=" + dir.config_file);
  }
  argv.emplace_back("-C");
  argv.push_back(name);
  ZX_ASSIGN(const auto result, os::run_ok(argv, options));
  return std::string(trim(result.out));
}

std::optional<Lsn> end_in_words(std::string_view words, Lsn from) {
  if (words.find("could not find a valid record after") != std::string_view::npos) return from;
  // The reader names the position at which it met no valid record; the page-level errors name a
  // segment and an offset instead, which does not tell where the last record ended.
  for (const std::string_view phrase :
       {"invalid record length at ", "invalid record offset at ", "invalid resource manager ID ",
        "record with incorrect prev-link ", "record length "}) {
    const auto at = words.find(phrase);
    if (at == std::string_view::npos) continue;
    auto rest = words.substr(at + phrase.size());
    if (!phrase.ends_with("at ")) {
      const auto position = rest.find(" at ");
      if (position == std::string_view::npos) continue;
      rest = rest.substr(position + 4);
    }
    const auto end = rest.find_first_not_of("0123456789ABCDEF/");
    if (const auto lsn = parse_lsn(rest.substr(0, end))) return std::max(*lsn, from);
  }
  return std::nullopt;
}

Result<Lsn> wal_end(const DataDir& dir, std::uint32_t timeline, Lsn from) {
  ZX_ASSIGN(const auto options, quiet_options(dir));
  ZX_ASSIGN(const auto segments, segments_from(dir, timeline, from));
  if (segments.end == from) return from;
  ZX_ASSIGN(const auto result,
            os::run(waldump(dir, timeline, from, segments, {"--quiet"}), options));
  if (result.ok()) return segments.end;  // valid records up to the end of the last segment
  if (const auto end = end_in_words(result.err, from)) return *end;
  // The last record's own start, and its length from a second look at it alone.
  constexpr std::string_view kLast = "error in WAL record at ";
  const auto at = result.err.find(kLast);
  if (at == std::string::npos)
    return fail(Code::failed, fmt::format("the end of the WAL of {} could not be read: {}",
                                          dir.node, first_line(result.err)));
  const auto rest = std::string_view(result.err).substr(at + kLast.size());
  const auto last = parse_lsn(rest.substr(0, rest.find(':')));
  if (!last)
    return fail(Code::failed, "pg_waldump's words are not understood: " + first_line(result.err));
  ZX_ASSIGN(const auto record,
            os::run(waldump(dir, timeline, *last, segments, {"--limit", "1"}), options));
  constexpr std::string_view kLength = "len (rec/tot):";
  const auto length = record.out.find(kLength);
  if (length == std::string::npos) return std::max(*last, from);
  const auto tail = std::string_view(record.out).substr(length + kLength.size());
  const auto slash = tail.find('/');
  if (slash == std::string_view::npos) return std::max(*last, from);
  const auto digits = trim(tail.substr(slash + 1, tail.find(',') - slash - 1));
  std::uint64_t total = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), total);
  return std::max(Lsn{last->value + ((total + 7) & ~std::uint64_t{7})}, from);
}

Result<std::uint64_t> commits_after(const DataDir& dir, std::uint32_t timeline, Lsn from) {
  ZX_ASSIGN(auto options, quiet_options(dir));
  options.output_limit = 256u << 20;
  ZX_ASSIGN(const auto segments, segments_from(dir, timeline, from));
  if (segments.end == from) return 0;
  ZX_ASSIGN(const auto result,
            os::run(waldump(dir, timeline, from, segments, {"--rmgr", "Transaction"}), options));
  std::uint64_t commits = 0;
  for (auto at = result.out.find("desc: COMMIT"); at != std::string::npos;
       at = result.out.find("desc: COMMIT", at + 1))
    ++commits;
  return commits;
}

}  // namespace zx::pg
