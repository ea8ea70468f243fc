// zx agent unit: the systemd unit with which the agent runs.
#include "commands/agent/unit.h"

#include <memory>

#include <fmt/format.h>

#include "commands/command.h"
#include "lib/os/process.h"

namespace zx::commands {
namespace {

// What it needs beside its own files depends on `remote` and on whether servers run on its host:
// zx stops and starts them, so it keeps the rights of root there and gives up all others.
constexpr const char* kUnit = R"(# zx agent unit > /etc/systemd/system/zx-agent.service
[Unit]
Description=zx agent: watches the databases and fails them over
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} -c {config} agent run
ExecReload={program} -c {config} agent reload
Restart=always
RestartSec=1s
WatchdogSec=30s
TimeoutStartSec=30s
TimeoutStopSec=90s
# A run that is going on ends by itself; its tools must not be killed before it.
KillMode=mixed

StateDirectory=zx
StateDirectoryMode=0700
UMask=0077
LimitNOFILE=65536
OOMScoreAdjust=-900

NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
ProtectSystem=strict
ReadWritePaths={writable}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
)";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

// A path in a unit: a percent sign and a space mean something there.
std::string unit_word(const std::string& path) {
  auto out = replaced(replaced(path, "%", "%%"), "\\", "\\\\");
  if (out.find_first_of(" \"'") == std::string::npos) return out;
  return "\"" + replaced(out, "\"", "\\\"") + "\"";
}

std::string unit_text(const std::string& program, const std::string& config,
                      const std::string& writable, bool has_servers) {
  auto text = replaced(kUnit, "{program}", program);
  text = replaced(text, "{config}", config);
  text = replaced(text, "{capabilities}",
                  has_servers ? "CAP_SETUID CAP_SETGID CAP_KILL CAP_CHOWN CAP_FOWNER "
                                "CAP_DAC_OVERRIDE CAP_SYS_PTRACE"
                              : "");
  return replaced(text, "{writable}", writable);
}

Result<int> run(Env& env) {
  ZX_ASSIGN(const auto* config, env.config());
  // The servers of this host: their directories are written to when one is fenced or rewound.
  std::string writable = unit_word(config->platform.state_dir);
  bool has_servers = false;
  for (const auto& cluster : config->pg)
    for (const auto& node : cluster.nodes) {
      const auto* host = config->host(node.host);
      if (host == nullptr || !host->remote || !host->remote->empty()) continue;
      has_servers = true;
      // A rebuild puts a new directory in the place of the old one, beside it.
      const auto parent = node.data_dir.substr(0, node.data_dir.rfind('/'));
      writable += " -" + unit_word(parent.empty() ? "/" : parent);
      if (!node.config_file.empty())
        writable += " -" + unit_word(node.config_file.substr(0, node.config_file.rfind('/')));
    }
  env.screen.raw(
      unit_text(unit_word(os::self_path()), unit_word(config->path), writable, has_servers));
  return 0;
}

}  // namespace

std::string usual_agent_unit() {
  return unit_text("/usr/bin/zx", "/etc/zx/zx.toml", "/var/lib/zx", false);
}

void add_agent_unit(Tree& tree) {
  tree.leaf(
      tree.group("agent", "the long-lived process that watches and acts"), "unit",
      "print the systemd unit of the agent",
      {.description = "A unit for this zx and this zx.toml: Type=notify with a watchdog, restarted "
                      "whenever it ends, and with no more rights than it needs.",
       .examples =
           {{"zx agent unit > /etc/systemd/system/zx-agent.service", "install it"},
            {"zx agent unit > zx-agent.service && systemd-analyze verify ./zx-agent.service",
             "check it"}},
       .exits = {Code::config}},
      run);
}

}  // namespace zx::commands
