#include "lib/redis/node_ops.h"

#include <algorithm>

#include "lib/base/units.h"
#include "lib/redis/connection.h"
#include "lib/redis/place_rdb.h"

namespace zx::redis {
namespace {

Result<Json> nothing_more(const Status& status) {
  if (!status) return fail(status.error());
  return Json::object();
}

Result<Json> op_inspect(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return to_json(inspect(dir));
}

Result<Json> op_fence(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  const auto& to = get_object(request, "to");
  const Follows follows{get_string(to, "host"), static_cast<int>(get_int(to, "port"))};
  if (follows.host.empty() || follows.port < 1 || follows.port > 65535)
    return fail(Code::usage, "the request does not say whom the server is to follow");
  ZX_ASSIGN(const auto report,
            fence(dir, follows, get_string(request, "run"), deadline_of(request)));
  return Json{
      {"ended", report.ended}, {"was_fenced", report.was_fenced}, {"returns_as", "replica"}};
}

Result<Json> op_unfence(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(unfence(dir, get_string(request, "run")));
}

Result<Json> op_forget_fence(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(forget_fence(dir));
}

Result<Json> op_stop(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  ZX_ASSIGN(const bool orderly, stop(dir, deadline_of(request)));
  return Json{{"orderly", orderly}};
}

// Looks at another node from this host: the second opinion on a master that the first cannot reach.
Result<Json> op_probe(const Json& request) {
  Target target;
  target.name = get_string(request, "name");
  target.address = get_string(request, "address");
  target.port = static_cast<int>(get_int(request, "port"));
  target.user = get_string(request, "user");
  target.password = get_string(request, "password");
  if (target.address.empty() || target.port < 1 || target.port > 65535)
    return fail(Code::usage, "the request names no address and port");
  const auto deadline = deadline_of(request);
  auto client = Client::open(target, deadline);
  auto failure = client ? Failure::none : client.error().why;
  if (client)
    if (const auto pong = client->command({"PING"}, deadline); !pong) failure = pong.error().why;
  return Json{{"failure", name_of(failure)}};
}

Result<Json> op_start(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(start(dir, deadline_of(request)));
}

Result<Json> op_place(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  const auto carried = get_int(request, "carried_bytes", -1);
  const auto source =
      carried >= 0 ? carried_file(0, static_cast<std::uint64_t>(carried), deadline_of(request))
                   : saved_file(get_string(request, "file"));
  ZX_ASSIGN(const auto placed,
            place_rdb(dir, source, get_string(request, "sha256"), get_string(request, "run")));
  return Json{{"aof", placed.aof}, {"path", placed.path}, {"kept", placed.kept}};
}

Result<Json> op_unplace(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(unplace_rdb(dir, get_string(request, "run")));
}

Result<Json> op_forget_placed(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  ZX_ASSIGN(const auto removed, forget_placed(dir, get_string(request, "run")));
  return Json{{"removed", removed}};
}

}  // namespace

Deadline deadline_of(const Json& request) {
  return Deadline::after(
      Millis(std::max<std::int64_t>(1, get_int(request, "deadline_ms", 30'000))));
}

Result<ServerDir> dir_of(const Json& request) {
  return server_dir_from_json(get_object(request, "dir"));
}

const config::NodeOps& node_ops() {
  using enum config::NodeOp::Kind;
  static const config::NodeOps ops{
      {"redis-inspect", "what its host knows of the server", op_inspect, question},
      {"redis-probe", "looks at another node from this host", op_probe, question},
      {"redis-fence", "ends the server at once and keeps it from being a master again", op_fence},
      {"redis-unfence", "takes back the files of a fence", op_unfence},
      {"redis-forget-fence", "removes the record of a fence", op_forget_fence},
      {"redis-stop", "stops the server, which saves as it is configured to", op_stop},
      {"redis-start", "starts the server and waits until it accepts connections", op_start},
      {"redis-place",
       "puts a copy where the stopped server finds it; on another host it follows "
       "the request",
       op_place, long_work, "file"},
      {"redis-unplace", "puts back what that copy replaced", op_unplace},
      {"redis-forget-placed", "removes what that copy replaced", op_forget_placed},
  };
  return ops;
}

Result<Json> on_host(const config::Host& host, const std::string& op, const Json& request,
                     Millis deadline) {
  return config::on_host(host, node_ops(), op, request, deadline);
}

}  // namespace zx::redis
