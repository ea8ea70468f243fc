// The list of the files of a set.
#include "lib/backup/files_index.h"

#include <algorithm>

#include "tests/support.h"

namespace zx::backup {
namespace {

const std::string kSet = "20261126T120000-a1f3";
const std::string kSum(64, 'a');

IndexEntry directory(const std::string& path) {
  IndexEntry entry;
  entry.type = 'd';
  entry.mode = 0755;
  entry.set = kSet;
  entry.path = path;
  return entry;
}
IndexEntry file(const std::string& path) {
  auto entry = directory(path);
  entry.type = 'f';
  entry.mode = 04644;
  entry.uid = 4294967295u;
  entry.gid = 33;
  entry.size = 18446744073709551615u;
  entry.mtime = -1;
  entry.ctime = 1764158400123456789;
  entry.inode = 7;
  entry.sha256 = kSum;
  return entry;
}

std::string index_text(const std::vector<IndexEntry>& entries) {
  auto text = index_head(5);
  for (const auto& entry : entries) append_line(text, entry);
  return text;
}

// In pieces of `size` bytes.
Result<std::vector<IndexEntry>> read_index(const std::string& text, std::size_t size) {
  std::size_t at = 0;
  IndexReader reader([&]() -> Result<std::string_view> {
    const auto piece = std::string_view(text).substr(at, size);
    at += piece.size();
    return piece;
  });
  std::vector<IndexEntry> entries;
  IndexEntry entry;
  while (true) {
    ZX_ASSIGN(const bool has, reader.next(entry));
    if (!has) break;
    entries.push_back(entry);
  }
  CHECK(reader.begun_ns() == 5);
  return entries;
}

TEST_CASE("an index is read as it was written, whatever the names are and however it comes") {
  auto link = directory("图片/\xff\xfe");
  link.type = 'l';
  link.target = "../away\tand\\back\n";
  const std::vector<IndexEntry> entries{directory("."),
                                        file("-x"),
                                        file("a\tb\nc\\d"),
                                        directory("图片"),
                                        file("图片/商品 1.png"),
                                        file("图片/目录\r"),
                                        link};
  const auto text = index_text(entries);
  for (const std::size_t size : {std::size_t{1}, std::size_t{7}, std::size_t{100}, text.size()}) {
    const auto again = read_index(text, size);
    REQUIRE_MESSAGE(again.has_value(), again.error().message);
    CHECK((*again == entries));
  }
}

TEST_CASE("a line is what the manual says") {
  std::string text;
  append_line(text, file("a\tb"));
  CHECK(text == "f\t4644\t4294967295\t33\t18446744073709551615\t-1\t1764158400123456789\t7\t" +
                    kSum + "\t" + kSet + "\ta\\tb\n");
}

TEST_CASE("what is in a directory comes right after it") {
  std::vector<std::string> paths{"a.b",   "a/b",   "a",    "a-b", ".",
                                 "a/b/c", "a/b.c", "\xff", "A",   ".a"};
  std::sort(paths.begin(), paths.end(),
            [](const std::string& a, const std::string& b) { return comes_before(a, b); });
  CHECK((paths == std::vector<std::string>{".", ".a", "A", "a", "a/b", "a/b/c", "a/b.c", "a-b",
                                           "a.b", "\xff"}));
  CHECK_FALSE(comes_before("a", "a"));
  CHECK_FALSE(comes_before(".", "."));
}

TEST_CASE("a path that leads out of the tree is none") {
  for (const char* path : {".", "a", "...", "..a/b", "a/ /b", "-"}) CHECK(is_tree_path(path));
  for (const char* path :
       {"", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/..", "./a", "a/."})
    CHECK_FALSE_MESSAGE(is_tree_path(path), path);
  CHECK_FALSE(is_tree_path(std::string_view("a\0b", 3)));
}

TEST_CASE("what is no index is refused") {
  const auto good = index_text({directory("."), file("a")});
  const auto with = [&](const std::string& from, const std::string& to) {
    auto text = good;
    const auto at = text.rfind(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
  };
  const std::vector<std::string> bad{
      "",
      "\n",
      "zx-files\t1\t5\n",
      good.substr(0, good.size() - 1),
      with("\ta\n", "\t../a\n"),
      with("\ta\n", "\t/a\n"),
      with("\ta\n", "\ta\\x\n"),
      with("\ta\n", "\ta\\\n"),
      with("\ta\n", "\ta\tb\n"),
      with("\ta\n", "\t.\n"),
      with("\ta\n", "\tb/a\n"),
      with("\ta\n", "\n"),
      with("f\t4644", "x\t4644"),
      with("f\t4644", "f\t14644"),
      with("f\t4644", "f\t04644"),
      with("\t33\t", "\t-33\t"),
      with("\t33\t", "\t033\t"),
      with("\t33\t", "\t\t"),
      with("\t33\t", "\t4294967296\t"),
      with(kSum, kSum.substr(1)),
      with(kSum, "-"),
      with(kSum, std::string(64, 'A')),
      with(kSet, "20261126"),
      with(kSet, "../../../../x/y/z/w"),
      with("zx-files\t1", "zx-files\t0"),
      with("zx-files\t1", "files\t1"),
      good + "\n",
      good + good,
      index_text({file("a")}),
      index_text({directory("."), file("a"), file("a")}),
      index_text({directory("."), file("b"), file("a")}),
      index_text({directory("."), file("a"), file("a/b")}),
      index_text({directory("."), directory("a"), directory("b"), file("a/c")}),
      index_text({directory("."), file(std::string(300'000, 'a'))}),
  };
  for (const auto& text : bad) {
    const auto read = read_index(text, 64);
    REQUIRE_FALSE_MESSAGE(read.has_value(), text.substr(0, 500));
    CHECK(read.error().code == Code::failed);
    CHECK(read.error().message.starts_with("no index of files: "));
  }
  const auto newer = read_index(with("zx-files\t1", "zx-files\t2"), 64);
  REQUIRE_FALSE(newer.has_value());
  CHECK(newer.error().code == Code::refused);
}

TEST_CASE("a pattern is compared with the last part of a path, or with all of it") {
  const Patterns patterns({"*.tmp", "cache/*", "/top", "logs/", "[ab]"});
  for (const char* path : {"x.tmp", "a/b/x.tmp", "cache/x", "cache/x/y", "top", "logs", "z/a", "b"})
    CHECK_MESSAGE(patterns.match(path), path);
  for (const char* path : {"x.tmpl", "cache", "a/cache/x", "a/top", "a/logs", "c"})
    CHECK_FALSE_MESSAGE(patterns.match(path), path);
  CHECK(Patterns({}).empty());
  CHECK_FALSE(Patterns({}).match("a"));
}

}  // namespace
}  // namespace zx::backup
