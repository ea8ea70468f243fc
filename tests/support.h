// What tests of several directories need.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "lib/base/json.h"
#include "lib/base/text.h"
#include "lib/os/process.h"

namespace zx::test {

// A directory that is gone at the end, with all that is in it.
class Directory {
 public:
  explicit Directory(const std::filesystem::path& base = std::filesystem::temp_directory_path()) {
    std::string pattern = base / "zx-test-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline void write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Replaces the first `most` places of `from` in a file by `to`; there must be one.
inline void edit(const std::string& path, const std::string& from, const std::string& to,
                 std::size_t most = 1) {
  auto text = read(path);
  auto at = text.find(from);
  REQUIRE_MESSAGE(at != std::string::npos, (from + "\nis not in\n" + text));
  for (; at != std::string::npos && most > 0; --most, at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  write(path, text);
}

inline std::vector<std::string> lines_of(const std::string& text) {
  auto lines = split(text, '\n');
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  return lines;
}

// Runs any program to its end.
inline os::ProcessResult run_program(const os::Argv& argv, const os::ProcessOptions& options = {}) {
  const auto result = os::run(argv, options);
  REQUIRE_MESSAGE(result.has_value(), (result ? std::string() : result.error().message));
  return *result;
}

#ifdef ZX_BINARY
// Runs the built zx in the directory /, where no zx.toml lies, with a home of its own.
inline os::ProcessResult run_zx(std::vector<std::string> words, os::ProcessOptions options = {}) {
  words.insert(words.begin(), ZX_BINARY);
  if (options.directory.empty()) options.directory = "/";
  options.environment.insert(options.environment.begin(), {"HOME", "/nonexistent"});
  return run_program(words, options);
}

inline Json json_of(const os::ProcessResult& result) {
  const auto json = parse_json(result.out, "stdout");
  REQUIRE_MESSAGE(json.has_value(), result.out);
  return *json;
}
#endif

// Two nodes that nothing listens on; a file that `zx config check` accepts.
inline std::string two_nodes(const std::string& state_dir) {
  return "[platform]\nname = \"shop\"\nstate_dir = \"" + state_dir +
         "\"\n\n"
         "[hosts.here]\naddress = \"127.0.0.1\"\nremote = []\n\n"
         "[pg.main]\ndatabases = [\"shop\"]\n\n"
         "[pg.main.nodes.pg-left]\nhost = \"here\"\nport = 1\ndata_dir = \"/nonexistent/left\"\n\n"
         "[pg.main.nodes.pg-right]\nhost = \"here\"\nport = 2\ndata_dir = \"/nonexistent/right\"\n";
}

}  // namespace zx::test
