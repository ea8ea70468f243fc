// zx agent unit: the systemd unit with which the agent runs.
#include "commands/agent/unit.h"

#include <filesystem>

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

// PrivateTmp=yes gives the agent directories of its own in their place. Without it the unit would
// work, and root would run what stands in a directory that everybody may write to.
Status not_hidden(const std::string& what, const std::string& path) {
  const auto plain = std::filesystem::path(path).lexically_normal().string();
  for (const std::string hidden : {"/tmp/", "/var/tmp/"})
    if (plain.starts_with(hidden))
      return fail(
          Code::refused,
          fmt::format("{} is {}, which the agent would not see: its unit has PrivateTmp=yes", what,
                      path),
          "move it, such as to /etc/zx or /var/lib/zx, and make the unit again");
  return {};
}

Status all_seen(const config::Config& config) {
  ZX_TRY(not_hidden("zx itself", os::self_path()));
  ZX_TRY(not_hidden("the configuration", config.path));
  ZX_TRY(not_hidden("platform.state_dir", config.platform.state_dir));
  const auto& agent = config.agent;
  const auto base = std::filesystem::path(config.path).parent_path();
  const auto seen = [&](const std::string& key, const std::string& path) -> Status {
    return path.empty() ? Status{} : not_hidden(key, base / path);
  };
  ZX_TRY(seen("agent.etcd_password_file", agent.etcd_password_file));
  ZX_TRY(seen("agent.etcd_ca_file", agent.etcd_ca_file));
  ZX_TRY(seen("agent.etcd_cert_file", agent.etcd_cert_file));
  ZX_TRY(seen("agent.etcd_key_file", agent.etcd_key_file));
  for (const auto& cluster : config.pg) {
    const auto table = "pg." + cluster.name + ".";
    ZX_TRY(seen(table + "password_file", cluster.password_file));
    ZX_TRY(seen(table + "replication_password_file", cluster.replication_password_file));
    ZX_TRY(seen(table + "sslrootcert", cluster.sslrootcert));
    for (const auto& node : cluster.nodes) {
      const auto* host = config.host(node.host);
      if (host == nullptr || !host->remote || !host->remote->empty()) continue;
      ZX_TRY(seen(table + "nodes." + node.name + ".data_dir", node.data_dir));
      ZX_TRY(seen(table + "nodes." + node.name + ".config_file", node.config_file));
    }
  }
  return {};
}

Result<int> run(Env& env) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_TRY(all_seen(*config));
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
                      "whenever it ends, and with no more rights than it needs. Files under /tmp "
                      "and /var/tmp are not seen by it, so one that it needs there is refused.",
       .examples =
           {{"zx agent unit > /etc/systemd/system/zx-agent.service", "install it"},
            {"zx agent unit > zx-agent.service && systemd-analyze verify ./zx-agent.service",
             "check it"}},
       .exits = {Code::refused, Code::config}},
      run);
}

}  // namespace zx::commands
