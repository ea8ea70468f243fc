// The names of what goes wrong, and what an error reply means.
#include <array>

#include <fmt/format.h>

#include "lib/redis/connection.h"

namespace zx::redis {
namespace {

struct FailureName {
  Failure failure;
  const char* name;
  const char* says;
};

constexpr std::array kFailures{
    FailureName{Failure::none, "none", "answers"},
    FailureName{Failure::refused, "refused", "connection refused"},
    FailureName{Failure::no_route, "no_route", "no route to the host"},
    FailureName{Failure::no_answer, "no_answer", "no answer from the host"},
    FailureName{Failure::silent, "silent", "accepts connections but does not answer"},
    FailureName{Failure::resolve, "resolve", "its name cannot be resolved"},
    FailureName{Failure::auth, "auth", "authentication failed"},
    FailureName{Failure::permission, "permission", "the user may not do what zx needs"},
    FailureName{Failure::protected_mode, "protected_mode",
                "protected mode: it takes no clients of other hosts"},
    FailureName{Failure::too_many_clients, "too_many_clients", "no free connection"},
    FailureName{Failure::loading, "loading", "loading its data set into memory"},
    FailureName{Failure::master_down, "master_down",
                "a replica without its master that serves no stale data"},
    FailureName{Failure::read_only, "read_only", "it is a replica and takes no writes"},
    FailureName{Failure::misconf, "misconf", "it cannot save to disk and takes no writes"},
    FailureName{Failure::out_of_memory, "out_of_memory", "maxmemory is reached"},
    FailureName{Failure::no_replicas, "no_replicas",
                "fewer good replicas than min-replicas-to-write"},
    FailureName{Failure::busy, "busy", "busy with a script"},
    FailureName{Failure::broken, "broken", "the connection broke"},
    FailureName{Failure::not_redis, "not_redis", "something that is not Redis answers"},
    FailureName{Failure::error, "error", "failed"},
};

const FailureName& entry_of(Failure failure) {
  for (const auto& entry : kFailures)
    if (entry.failure == failure) return entry;
  return kFailures.back();
}

struct Prefix {
  std::string_view text;
  Failure failure;
};

// The first word of an error reply is its kind; only ERR needs to be read further (server.c,
// networking.c, acl.c of Redis 7).
constexpr std::array kPrefixes{
    Prefix{"NOAUTH", Failure::auth},
    Prefix{"WRONGPASS", Failure::auth},
    Prefix{"NOPERM", Failure::permission},
    Prefix{"DENIED", Failure::protected_mode},
    Prefix{"LOADING", Failure::loading},
    Prefix{"MASTERDOWN", Failure::master_down},
    Prefix{"READONLY", Failure::read_only},
    Prefix{"MISCONF", Failure::misconf},
    Prefix{"OOM", Failure::out_of_memory},
    Prefix{"NOREPLICAS", Failure::no_replicas},
    Prefix{"BUSY", Failure::busy},
    Prefix{"ERR max number of clients", Failure::too_many_clients},
    Prefix{"ERR AUTH <password> called without any password", Failure::auth},
    Prefix{"ERR Client sent AUTH, but no password is set", Failure::auth},
    Prefix{"ERR invalid password", Failure::auth},
};

}  // namespace

const char* name_of(Failure failure) { return entry_of(failure).name; }
const char* says(Failure failure) { return entry_of(failure).says; }

bool proves_life(Failure failure) {
  switch (failure) {
    case Failure::refused:
    case Failure::no_route:
    case Failure::no_answer:
    case Failure::silent:
    case Failure::resolve:
    case Failure::broken:
    case Failure::not_redis:
    case Failure::error: return false;
    default: return true;
  }
}

Failure failure_named(std::string_view name) {
  for (const auto& entry : kFailures)
    if (entry.name == name) return entry.failure;
  return Failure::error;
}

Failure classify(std::string_view error_reply) {
  for (const auto& [prefix, failure] : kPrefixes) {
    if (!error_reply.starts_with(prefix)) continue;
    // BUSYGROUP and BUSYKEY are of other kinds than BUSY.
    const auto rest = error_reply.substr(prefix.size());
    const bool is_whole_word = rest.empty() || rest.front() == ' ' || prefix.starts_with("ERR ");
    if (is_whole_word) return failure;
  }
  return Failure::error;
}

Error error_of(const Target& target, const Failed& failed) {
  Error error = failed.error;
  const bool is_unix = target.address.starts_with('/');
  error.message =
      fmt::format("{} ({}): {}", target.name,
                  is_unix ? target.address : fmt::format("{}:{}", target.address, target.port),
                  error.message.empty() ? says(failed.why) : error.message);
  return error;
}

}  // namespace zx::redis
