#include "lib/base/error.h"

#include <array>
#include <cstring>

namespace zx {
namespace {

constexpr std::array kCodes{
    CodeInfo{Code::internal, "internal", 1, "a defect of zx; please report it"},
    CodeInfo{Code::failed, "failed", 1, "failed; nothing changed, or all undone"},
    CodeInfo{Code::usage, "usage", 2, "unknown command or flag, or a value of the wrong form"},
    CodeInfo{Code::refused, "refused", 3, "a guard says it is not safe; nothing changed"},
    CodeInfo{Code::partial, "partial", 4, "partly applied; resume or abort the run that is named"},
    CodeInfo{Code::locked, "locked", 5, "another run holds the lock"},
    CodeInfo{Code::config, "config", 6, "the configuration is missing or wrong"},
    CodeInfo{Code::unreachable, "unreachable", 7, "a server or host cannot be reached"},
    CodeInfo{Code::timeout, "timeout", 7, "a deadline passed without an answer"},
    CodeInfo{Code::auth, "auth", 8, "authentication or permission"},
    CodeInfo{Code::declined, "declined", 9, "the operator declined, or could not be asked"},
    CodeInfo{Code::findings, "findings", 10, "differences or findings exist"},
    CodeInfo{Code::older_set, "older_set", 11,
             "restored, but of an older set: the newest is damaged"},
    CodeInfo{Code::io, "io", 1, "a file could not be read or written"},
    CodeInfo{Code::disk_full, "disk_full", 3,
             "no space for the journal, or for what is to be written; nothing changed"},
    CodeInfo{Code::not_found, "not_found", 2, "a name that does not exist: a file, node or run"},
    CodeInfo{Code::not_a_data_directory, "not_a_data_directory", 6,
             "the configured directory is not a PostgreSQL data directory"},
    CodeInfo{Code::starting_up, "starting_up", 7,
             "the server is starting and takes no connections"},
    CodeInfo{Code::shutting_down, "shutting_down", 7, "the server is shutting down"},
    CodeInfo{Code::too_many_connections, "too_many_connections", 7,
             "the server has no free connection"},
    CodeInfo{Code::server, "server", 1, "the server answered with an error"},
    CodeInfo{Code::interrupted, "interrupted", 130, "interrupted (SIGINT)"},
    CodeInfo{Code::terminated, "terminated", 143, "terminated (SIGTERM, SIGHUP)"},
};

}  // namespace

const CodeInfo& info(Code code) {
  for (const auto& entry : kCodes)
    if (entry.code == code) return entry;
  return kCodes.front();
}

std::span<const CodeInfo> all_codes() { return kCodes; }

Code code_from_name(std::string_view name) {
  for (const auto& entry : kCodes)
    if (entry.name == name) return entry.code;
  return Code::internal;
}

Error errno_error(Code code, std::string_view what, int number) {
  return Error{code, std::string(what) + ": " + std::strerror(number), {}, {}, false};
}

}  // namespace zx
