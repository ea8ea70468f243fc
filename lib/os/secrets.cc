#include "lib/os/secrets.h"

#include <sys/stat.h>

#include <cstdlib>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/files.h"

namespace zx::os {

Result<std::string> read_secret_file(const std::string& path, const std::string& base) {
  std::string full = path;
  if (!path.starts_with('/')) {
    const char* credentials = std::getenv("CREDENTIALS_DIRECTORY");
    full = (credentials != nullptr ? std::string(credentials) : base) + "/" + path;
  }
  struct stat found {};
  const bool is_there = stat(full.c_str(), &found) == 0;
  // A pipe would be waited for, for ever.
  if (is_there && !S_ISREG(found.st_mode))
    return fail(Code::config, "the password file " + full + " is not a regular file");
  if (is_there && (found.st_mode & 0077) != 0)
    return fail(Code::config,
                fmt::format("the password file {} can be read by others (mode {:04o})", full,
                            found.st_mode & 07777),
                "chmod 600 " + full);
  ZX_ASSIGN(auto content, read_file(full, 65536));
  auto line = std::string(content.substr(0, content.find('\n')));
  if (line.ends_with('\r')) line.pop_back();
  if (line.empty()) return fail(Code::config, "the password file " + full + " is empty");
  return line;
}

Result<std::string> expand_environment(const std::string& text) {
  if (!text.starts_with("${") || !text.ends_with('}')) return text;
  const auto name = text.substr(2, text.size() - 3);
  const char* value = std::getenv(name.c_str());
  if (value == nullptr)
    return fail(Code::config, "the environment variable " + name + " is not set");
  return std::string(value);
}

}  // namespace zx::os
