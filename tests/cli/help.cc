// Help of every place in the tree, found by walking the help itself.
#include "tests/support.h"

namespace zx::test {
namespace {

// "Commands:" and the lines below it, up to an empty one.
std::vector<std::string> section(const std::string& help, const std::string& name) {
  std::vector<std::string> found;
  bool inside = false;
  for (const auto& line : lines_of(help)) {
    if (inside && line.empty()) return found;
    if (inside) found.push_back(line);
    if (line == name + ":") inside = true;
  }
  return found;
}

using Words = std::vector<std::string>;

std::vector<Words> children(const Words& place, const std::string& help) {
  std::vector<Words> found;
  for (const auto& line : section(help, "Commands")) {
    if (!line.starts_with("  ") || line[2] == ' ') continue;  // the rest of a summary
    auto words = place;
    words.push_back(line.substr(2, line.find(' ', 2) - 2));
    found.push_back(words);
  }
  return found;
}

struct Visited {
  Words words;
  std::string help;
  bool is_leaf;
};

void visit(const Words& place, std::vector<Visited>& out) {
  auto asked = place;
  asked.push_back("--help");
  const auto result = run_zx(asked);
  INFO("zx " << join(asked, " ") << "\n" << result.err);
  REQUIRE(result.exit == 0);
  CHECK(result.err.empty());
  const auto below = children(place, result.out);
  const bool is_leaf =
      result.out.find("Usage: zx " + join(place, " ") + " COMMAND") == std::string::npos &&
      !place.empty();
  out.push_back({place, result.out, is_leaf});
  for (const auto& child : below) visit(child, out);
}

const std::vector<Visited>& everything() {
  static const auto all = [] {
    std::vector<Visited> found;
    visit({}, found);
    return found;
  }();
  return all;
}

}  // namespace

TEST_CASE("the tree has the commands of the toolkit") {
  std::vector<std::string> names;
  for (const auto& place : everything()) names.push_back(join(place.words, " "));
  for (const std::string name :
       {"status", "failover pg", "switchover pg", "rejoin pg", "config check"}) {
    INFO(name);
    CHECK(std::find(names.begin(), names.end(), name) != names.end());
  }
}

TEST_CASE("no line of help is wider than 80 columns or ends with a space") {
  for (const auto& place : everything()) {
    for (const auto& line : lines_of(place.help)) {
      INFO("zx " << join(place.words, " ") << ": " << line);
      CHECK(display_width(line) <= 80);
      CHECK(!line.ends_with(" "));
    }
  }
}

TEST_CASE("help says what a command does and how it is called") {
  for (const auto& place : everything()) {
    INFO("zx " << join(place.words, " "));
    const auto name = place.words.empty() ? "zx" : "zx " + join(place.words, " ");
    CHECK(place.help.starts_with(name + " - "));
    CHECK(place.help.find("\nUsage: " + name) != std::string::npos);
    if (!place.is_leaf) continue;
    const auto global = join(section(place.help, "Global flags"), "\n");
    for (const std::string flag :
         {"--help", "--config", "--output", "--verbose", "--quiet", "--no-color", "--timeout"})
      CHECK(global.find(flag) != std::string::npos);
  }
}

TEST_CASE("every command has an example that begins with it") {
  for (const auto& place : everything()) {
    if (!place.is_leaf) continue;
    INFO("zx " << join(place.words, " "));
    const auto examples = section(place.help, "Examples");
    CHECK(!examples.empty());
    bool is_named = false;
    for (const auto& line : examples)
      is_named = is_named || line.find("zx " + join(place.words, " ")) != std::string::npos;
    CHECK(is_named);
  }
}

TEST_CASE("`zx help COMMAND` is `zx COMMAND --help` is `zx --help COMMAND`") {
  for (const auto& place : everything()) {
    INFO("zx " << join(place.words, " "));
    auto first = place.words;
    first.insert(first.begin(), "help");
    CHECK(run_zx(first).out == place.help);
    first.front() = "-h";
    CHECK(run_zx(first).out == place.help);
  }
}

TEST_CASE("hidden commands are in no help") {
  for (const auto& place : everything()) {
    CHECK(place.help.find("__complete") == std::string::npos);
    CHECK(place.help.find("__generate") == std::string::npos);
  }
}

TEST_CASE("the man page of each command exists, of nothing else") {
  Directory pages;
  REQUIRE(run_zx({"__generate", "man", pages.path()}).exit == 0);
  std::vector<std::string> wanted{"zx.1", "zx.toml.5"};
  for (const auto& place : everything())
    if (place.is_leaf) wanted.push_back("zx-" + join(place.words, "-") + ".1");
  std::vector<std::string> made;
  for (const auto& entry : std::filesystem::directory_iterator(pages.path()))
    made.push_back(entry.path().filename());
  std::sort(wanted.begin(), wanted.end());
  std::sort(made.begin(), made.end());
  CHECK(made == wanted);
}

}  // namespace zx::test
