// zx node: what another zx asks of this host. The request is JSON on stdin, so that neither a
// password nor a path passes a remote shell; the answer is one line of JSON on stdout.
#include <unistd.h>

#include <cerrno>
#include <memory>

#include <fmt/format.h>

#include "commands/command.h"
#include "lib/backup/services.h"
#include "lib/config/on_host.h"
#include "lib/pg/node_ops.h"
#include "lib/redis/node_ops.h"

namespace zx::commands {
namespace {

constexpr std::size_t kMostBytes = 1u << 20;

const config::NodeOps& all_ops() {
  static const config::NodeOps ops = [] {
    auto all = pg::node_ops();
    const auto& redis = redis::node_ops();
    all.insert(all.end(), redis.begin(), redis.end());
    const auto& services = backup::service_ops();
    all.insert(all.end(), services.begin(), services.end());
    return all;
  }();
  return ops;
}

// Byte by byte where a file follows the line: that is for the operation to read.
Result<std::string> read_stdin(bool is_followed) {
  std::string text;
  char buffer[4096];
  while (true) {
    const auto count = ::read(0, buffer, is_followed ? 1 : sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(errno_error(Code::io, "cannot read the request from stdin", errno));
    if (count == 0 || (is_followed && buffer[0] == '\n')) return text;
    text.append(buffer, static_cast<std::size_t>(count));
    if (text.size() > kMostBytes)
      return fail(Code::usage, fmt::format("the request is longer than {} bytes", kMostBytes));
  }
}

Result<Json> answer(const std::string& op) {
  if (::isatty(0) == 1)
    return fail(Code::usage, "zx node wants a request as JSON on stdin",
                "it is for zx itself; zx help lists the commands for people");
  const auto* known = config::find_op(all_ops(), op);
  ZX_ASSIGN(const auto text, read_stdin(known != nullptr && !known->carries.empty()));
  ZX_ASSIGN(const auto request, parse_json(text, "the request"));
  return config::run_node_op(all_ops(), op, request);
}

}  // namespace

void add_node(Tree& tree) {
  const auto op = std::make_shared<std::string>();
  std::string ops;
  for (const auto& one : all_ops()) ops += fmt::format("\n{}: {}", one.name, one.summary);
  auto* leaf = tree.leaf(
      &tree.root(), "node", "what another zx asks of this host",
      {.description = "Plumbing, run through `remote` of a host. The request is a JSON object on "
                      "stdin, the answer one line of JSON on stdout. Operations:" +
                      ops,
       .examples = {},
       .exits = {}},
      [op](Env& env) -> Result<int> {
        const auto result = answer(*op);
        // Errors too: the zx that asked reads them from here.
        env.screen.raw(config::answer_line(result) + "\n");
        return result ? 0 : info(result.error().code).exit;
      });
  leaf->add_option("OP", *op, "the operation")->required();
  leaf->group("");  // not for people: hidden from help, man pages and completions
}

}  // namespace zx::commands
