#include "lib/backup/dump_left_out.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "lib/backup/dump_script.h"
#include "lib/backup/object.h"
#include "lib/base/text.h"
#include "lib/os/stream.h"

namespace zx::backup {
namespace {

constexpr std::size_t kLongestList = 256u << 20;
constexpr std::string_view kMakes = "CREATE SUBSCRIPTION ";

// What pg_restore writes, which ends well before the rows of the dump come.
Result<os::ProcessResult> ask(const Repository& repository, const Object& dump,
                              const os::Argv& argv, const os::Take& take, Deadline until) {
  ZX_ASSIGN(auto reader, ObjectReader::open(repository, dump));
  os::ProcessOptions running;
  running.output_limit = 64u << 10;
  running.environment = {{"LC_ALL", "C.UTF-8"}};
  running.deadline = until.left();
  return os::run_through(
      argv, running, [&] { return reader.next(); }, take);
}

// A file without a name, which children open as zx's own.
Result<os::Descriptor> in_memory(std::string_view text) {
  os::Descriptor file(memfd_create("pg_restore-list", MFD_CLOEXEC));
  std::size_t at = 0;
  while (file && at < text.size()) {
    const auto put = pwrite(file.get(), text.data() + at, text.size() - at, static_cast<off_t>(at));
    if (put <= 0) break;
    at += static_cast<std::size_t>(put);
  }
  if (!file || at < text.size())
    return fail(errno_error(Code::io, "cannot make a list in memory", errno));
  return file;
}
std::string use(const os::Descriptor& list) {
  return fmt::format("--use-list=/proc/{}/fd/{}", getpid(), list.get());
}

// The name at the beginning, as it is spelled.
std::string name_at(std::string_view sql) {
  if (!sql.starts_with('"')) return std::string(sql.substr(0, sql.find(' ')));
  std::string name;
  for (std::size_t i = 1; i < sql.size(); ++i) {
    if (sql[i] == '"' && (i + 1 == sql.size() || sql[++i] != '"')) break;
    name += sql[i];
  }
  return name;
}

bool is_of_subscription(std::string_view line) {
  // "3344; 6100 16394 SUBSCRIPTION - NAME OWNER"
  const auto id = line.find("; ");
  if (id == std::string_view::npos || id == 0) return false;
  line.remove_prefix(id + 2);
  for (int word = 0; word < 2; ++word) {
    const auto space = line.find(' ');
    if (space == std::string_view::npos) return false;
    line.remove_prefix(space + 1);
  }
  for (const char* kind :
       {"SUBSCRIPTION ", "COMMENT - SUBSCRIPTION ", "SECURITY LABEL - SUBSCRIPTION "})
    if (line.starts_with(kind)) return true;
  return false;
}

}  // namespace

DumpLines lines_of_dump(std::string_view list) {
  DumpLines lines;
  while (!list.empty()) {
    const auto line = list.substr(0, list.find('\n'));
    list.remove_prefix(std::min(line.size() + 1, list.size()));
    auto& into = is_of_subscription(line) ? lines.of_subscriptions : lines.others;
    into.append(line).append("\n");
  }
  return lines;
}

Result<DumpLeftOut> DumpLeftOut::read(const Repository& repository, const Object& dump,
                                      const std::string& bin_dir, Deadline until) {
  DumpLeftOut left_out;
  const auto program = bin_dir + "/pg_restore";
  std::string list;
  const auto listed = ask(
      repository, dump, {program, "--format=custom", "--list"},
      [&](std::string_view piece) -> Status {
        list += piece;
        if (list.size() <= kLongestList) return {};
        return fail(Code::failed, shown(dump) + " has an endless table of contents");
      },
      until);
  if (!listed) return fail(listed.error());
  if (!listed->ok()) return left_out;
  const auto lines = lines_of_dump(list);
  if (lines.of_subscriptions.empty()) return left_out;
  // In the list a name and its owner's are not told apart; in a statement they are.
  ZX_ASSIGN(const auto only, in_memory(lines.of_subscriptions));
  DumpScript script(
      {[&](const std::string& sql) -> Status {
         if (sql.starts_with(kMakes))
           left_out.names_.push_back(name_at(std::string_view(sql).substr(kMakes.size())));
         return {};
       },
       [](const std::string&) { return Status{}; }, [](std::string_view) { return Status{}; },
       [] { return Status{}; }});
  ZX_ASSIGN(const auto told,
            ask(
                repository, dump, {program, "--format=custom", "--file=-", use(only)},
                [&](std::string_view piece) { return script.feed(piece); }, until));
  if (!told.ok()) return left_out;
  ZX_TRY(script.finish());
  ZX_ASSIGN(left_out.list_, in_memory(lines.others));
  left_out.argv_.push_back(use(left_out.list_));
  return left_out;
}

}  // namespace zx::backup
