#include "lib/backup/services.h"

#include <algorithm>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/net/http_client.h"
#include "lib/net/tcp.h"
#include "lib/os/process.h"

namespace zx::backup {
namespace {

constexpr Millis kLook{100};
constexpr Millis kAct{60'000};

Result<Json> op_run(const Json& request) {
  const auto argv = get_strings(request, "argv");
  if (argv.empty()) return fail(Code::usage, "the request has no argv");
  os::ProcessOptions options;
  options.deadline = Millis(get_int(request, "deadline_ms", kAct.count()));
  ZX_TRY(os::run_ok(argv, options));
  return Json::object();
}

std::vector<std::string> argv_of(const config::Service& service, const Instance& instance,
                                 bool is_start) {
  if (!service.service.empty()) return {"systemctl", is_start ? "start" : "stop", service.service};
  return argv_for(is_start ? service.start : service.stop, instance);
}

Status act(const config::Config& config, const config::Service& service, const Instance& instance,
           bool is_start, Deadline deadline) {
  const auto* host = config.host(instance.host);
  if (host == nullptr) return fail(Code::config, "unknown host " + instance.host);
  const auto done = config::on_host(*host, service_ops(), "service-run",
                                    Json{{"argv", argv_of(service, instance, is_start)}},
                                    deadline.at_most(kAct).left());
  if (!done)
    return fail_while(done.error(), (is_start ? "starting " : "stopping ") + instance.name());
  return {};
}

bool accepts(const Instance& instance, Millis span) {
  return net::try_tcp(instance.address, instance.port, Deadline::after(span)) == net::Tcp::accepted;
}

// `one` for each instance at once; the first error, and how many more.
Status each_at_once(const std::vector<Instance>& instances,
                    const std::function<Status(const Instance&)>& one) {
  std::mutex mutex;
  std::vector<Error> errors;
  std::vector<std::thread> threads;
  for (const auto& instance : instances)
    threads.emplace_back([&, instance] {
      const auto done = one(instance);
      if (done) return;
      const std::lock_guard lock(mutex);
      errors.push_back(done.error());
    });
  for (auto& thread : threads) thread.join();
  if (errors.empty()) return {};
  auto error = errors.front();
  if (errors.size() > 1) error.message += fmt::format(", and {} more", errors.size() - 1);
  return fail(std::move(error));
}

Status stop_one(const config::Config& config, const config::Service& service,
                const Instance& instance, Deadline deadline) {
  ZX_TRY(act(config, service, instance, false, deadline));
  const auto until = deadline.at_most(kAct);
  while (accepts(instance, service.health_deadline)) {
    if (until.passed())
      return fail(Code::failed,
                  fmt::format("{} still accepts connections after it was stopped", instance.name()),
                  "does its stop command wait for its end?");
    pause_for(kLook);
  }
  return {};
}

Status start_one(const config::Config& config, const config::Service& service,
                 const Instance& instance, Deadline deadline) {
  ZX_TRY(act(config, service, instance, true, deadline));
  const auto until = deadline.at_most(service.health_within);
  while (true) {
    const auto why = why_unhealthy(service, instance);
    if (why.empty()) return {};
    if (until.passed())
      return fail(Code::failed,
                  fmt::format("{} is not healthy {} after its start: {}", instance.name(),
                              format_duration(service.health_within), why));
    pause_for(std::min(service.health_interval, until.left()));
  }
}

}  // namespace

const config::NodeOps& service_ops() {
  static const config::NodeOps ops{{"service-run",
                                    "run the command that starts or stops an application",
                                    op_run,
                                    config::NodeOp::Kind::act,
                                    {}}};
  return ops;
}

std::vector<std::string> argv_for(const std::vector<std::string>& argv, const Instance& instance) {
  auto words = argv;
  for (auto& word : words)
    for (const auto& [name, value] : {std::pair<std::string, std::string>("{host}", instance.host),
                                      {"{port}", std::to_string(instance.port)}})
      for (auto at = word.find(name); at != std::string::npos;
           at = word.find(name, at + value.size()))
        word.replace(at, name.size(), value);
  return words;
}

std::vector<Instance> instances_of(const config::Config& config, const config::Service& service) {
  std::vector<Instance> all;
  for (const auto& text : service.instances) {
    const auto endpoint = config::endpoint_of(config, text);
    all.push_back({service.name, text.substr(0, text.rfind(':')), endpoint.address, endpoint.port});
  }
  return all;
}

Status can_reach_services(const config::Config& config) {
  for (const auto& service : config.services)
    for (const auto& instance : instances_of(config, service)) {
      const auto* host = config.host(instance.host);
      if (host != nullptr && host->remote) continue;
      return fail(Code::config,
                  fmt::format("{} cannot be stopped: hosts.{} has no remote", instance.name(),
                              instance.host),
                  "say how that host is reached; [] is this host");
    }
  return {};
}

Status stop_services(const config::Config& config, Deadline deadline) {
  for (auto service = config.services.rbegin(); service != config.services.rend(); ++service)
    ZX_TRY(each_at_once(instances_of(config, *service), [&](const Instance& instance) {
      return stop_one(config, *service, instance, deadline);
    }));
  return {};
}

Status start_services(const config::Config& config, Deadline deadline) {
  std::vector<std::string> problems;
  for (const auto& service : config.services) {
    const auto done = each_at_once(instances_of(config, service), [&](const Instance& instance) {
      return start_one(config, service, instance, deadline);
    });
    if (!done) problems.push_back(fmt::format("{}: {}", service.name, done.error().message));
  }
  if (problems.empty()) return {};
  return fail(Code::failed, join(problems, "; "), "look at its own log, then start it");
}

std::string why_unhealthy(const config::Service& service, const Instance& instance) {
  if (service.health_http.empty())
    return accepts(instance, service.health_deadline) ? "" : "it accepts no connection";
  const bool is_six = instance.address.find(':') != std::string::npos;
  net::HttpFetch request;
  request.url = fmt::format("http://{}{}{}:{}{}", is_six ? "[" : "", instance.address,
                            is_six ? "]" : "", instance.port, service.health_http);
  request.connect_timeout = request.timeout = service.health_deadline;
  const auto answer = net::HttpClient().fetch(request);
  if (!answer) return answer.error().message;
  if (answer->status == service.health_expect) return {};
  return fmt::format("{} answers {} instead of {}", service.health_http, answer->status,
                     service.health_expect);
}

}  // namespace zx::backup
