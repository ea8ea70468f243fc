#include "lib/backup/known_repository.h"

#include <fmt/format.h>

#include "lib/base/clock.h"
#include "lib/base/ids.h"
#include "lib/base/json.h"
#include "lib/os/files.h"

namespace zx::backup {
namespace {

constexpr const char* kHint =
    "mount its file system; zx backup run --new-repository if another is to be used from now on";

std::string file_in(const std::string& state_dir) { return state_dir + "/repository.json"; }

Result<Json> read(const std::string& state_dir) {
  const auto text = os::read_file(file_in(state_dir));
  if (!text && text.error().code == Code::not_found) return Json{{"repositories", Json::object()}};
  if (!text) return fail(text.error());
  ZX_ASSIGN(auto json, parse_json(*text, file_in(state_dir)));
  if (!json.is_object() || !get_object(json, "repositories").is_object())
    return fail(Code::failed, file_in(state_dir) + " names no repositories",
                "zx backup run --new-repository writes it anew");
  return json;
}

}  // namespace

Result<std::optional<std::string>> known_repository(const std::string& state_dir,
                                                    const std::string& path) {
  ZX_ASSIGN(const auto json, read(state_dir));
  const auto id = get_string(get_object(json, "repositories"), path.c_str());
  return id.empty() ? std::optional<std::string>() : id;
}

Result<std::string> know_repository(const std::string& state_dir, const std::string& path,
                                    const std::string& id) {
  std::string aside;
  const auto text = os::read_file(file_in(state_dir));
  if (!text && text.error().code != Code::not_found) return fail(text.error());
  auto json = read(state_dir);
  if (!json) {
    aside = file_in(state_dir) + ".bad-" + make_run_id(wall_now());
    ZX_TRY(os::rename_new(file_in(state_dir), aside));
    json = Json{{"repositories", Json::object()}};
  }
  (*json)["repositories"][path] = id;
  ZX_TRY(os::make_directories(state_dir));
  ZX_TRY(os::write_file(file_in(state_dir), dump_pretty(*json) + "\n"));
  return aside;
}

Status is_expected(const std::string& path, const std::optional<std::string>& known,
                   const std::optional<std::string>& found) {
  if (!known || known == found) return {};
  if (!found)
    return fail(Code::refused,
                fmt::format("there is no repository in {}, where backups were made before", path),
                kHint);
  return fail(Code::refused,
              fmt::format("{} holds another repository ({}) than the one where backups were made "
                          "before ({})",
                          path, *found, *known),
              kHint);
}

}  // namespace zx::backup
