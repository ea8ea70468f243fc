// A value that is empty, as of a script's variable that is not set, is refused: it must not mean
// the newest set, or everything.
#include <map>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "tests/backup_sets.h"

namespace zx::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

// A tree and a set of before, in a directory of which nothing may change.
struct Scene {
  Directory directory;
  std::string toml = directory / "zx.toml", tree = directory / "上传";

  Scene() {
    write(tree + "/茶", "茶");
    write(toml, two_nodes(directory / "state") +
                    fmt::format("\n[backup]\nrepository = \"{}\"\nspare = \"1 KiB\"\n"
                                "[backup.files.上传]\npath = \"{}\"\n",
                                directory / "backups", tree));
    const auto repository = make_repository(directory / "backups");
    const auto now = wall_now();
    put_set(repository, {.id = make_run_id(now), .begun = now});
  }
  [[nodiscard]] std::map<std::string, std::string> all() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(directory.path()))
      files[entry.path()] = entry.is_regular_file() ? read(entry.path()) : "";
    return files;
  }
  // `flag` with nothing behind it; empty: the argument itself. Both ways to write it.
  void refuses(const Words& command, const std::string& flag, const std::string& named) const {
    const auto before = all();
    REQUIRE(before.size() > 5);
    std::vector<Words> ways{flag.empty() ? Words{""} : Words{flag, ""}};
    if (!flag.empty()) ways.push_back({flag + "="});
    for (const auto& way : ways) {
      Words words{"-c", toml};
      words.insert(words.end(), command.begin(), command.end());
      words.insert(words.end(), way.begin(), way.end());
      const auto said = "\"" + join(words, "\" \"") + "\"";
      CAPTURE(said);
      const auto result = run_zx(words);
      CHECK_MESSAGE(result.exit == 2, (result.out + result.err));
      CHECK_MESSAGE(result.err.find(named) != std::string::npos, result.err);
      CHECK(result.out == "");
    }
    CHECK(all() == before);
  }
};

}  // namespace

TEST_CASE("what to restore, and of when, is not left empty") {
  const Scene scene;
  const Words full{"restore", "full", "--confirm", "shop"};
  const Words pg{"restore", "pg", "--confirm", "main"};
  const Words files{"restore", "files", "--confirm", "shop"};
  for (const auto* kind : {"full", "pg", "redis", "files"})
    for (const std::string flag : {"--set", "--at"})
      scene.refuses({"restore", kind, "--confirm", "shop"}, flag, flag);
  scene.refuses(pg, "--db", "--db");
  scene.refuses({"restore", "pg", "--db", "shop", "--confirm", "main"}, "--table", "--table");
  scene.refuses(files, "--path", "--path");
  scene.refuses({"restore", "files", "--path", scene.tree}, "--into", "--into");
  // One of several, too.
  scene.refuses({"restore", "pg", "--confirm", "main", "--db", "shop"}, "--db", "--db");
  // No command has a flag of another.
  scene.refuses(full, "--db", "--db");
}

TEST_CASE("what to back up is not left empty") {
  const Scene scene;
  scene.refuses({"backup", "run"}, "--only", "--only");
}

TEST_CASE("neither the set to verify nor a label is left empty") {
  const Scene scene;
  scene.refuses({"backup", "verify"}, "", "SET");
  scene.refuses({"backup", "verify", "--level", "decode"}, "", "SET");
  scene.refuses({"backup", "run", "--only", "files"}, "--label", "--label");
}

}  // namespace zx::test
