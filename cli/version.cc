#include "cli/version.h"

#include <fmt/format.h>
#include <libpq-fe.h>
#include <spdlog/version.h>
#include <toml++/impl/version.h>

#include <CLI/Version.hpp>
#include <boost/version.hpp>

#include "zx_version.h"

namespace zx::cli {
namespace {

std::string dotted(int major, int minor, int patch) {
  return fmt::format("{}.{}.{}", major, minor, patch);
}

}  // namespace

std::string_view version() { return ZX_VERSION; }

Json version_json() {
  const int libpq = PQlibVersion();  // of the library that is loaded, not of the header
  return Json{
      {"version", ZX_VERSION},
      {"commit", ZX_COMMIT},
      {"compiler", "g++ " __VERSION__},
      {"libraries",
       {{"libpq", fmt::format("{}.{}", libpq / 10000, libpq % 10000)},
        {"Boost", dotted(BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100)},
        {"fmt", dotted(FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
        {"spdlog", dotted(SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH)},
        {"CLI11", CLI11_VERSION},
        {"toml++", dotted(TOML_LIB_MAJOR, TOML_LIB_MINOR, TOML_LIB_PATCH)},
        {"nlohmann_json", dotted(NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                                 NLOHMANN_JSON_VERSION_PATCH)}}}};
}

std::string version_text() {
  const auto json = version_json();
  auto out =
      fmt::format("zx {} (commit {}, {})\n", ZX_VERSION, ZX_COMMIT, get_string(json, "compiler"));
  for (const auto& [name, version] : get_object(json, "libraries").items())
    out += fmt::format("  {:<13}  {}\n", name, version.get<std::string>());
  return out;
}

}  // namespace zx::cli
