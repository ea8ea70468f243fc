// How many archives a tree lies in after many runs, and what is stored anew for that.
#include "lib/backup/files_rebase.h"

#include <sys/resource.h>

#include <numeric>
#include <random>

#include "lib/backup/files_names.h"
#include "tests/unit/backup_files_scene.h"

namespace zx::backup {
namespace {

using test::FilesScene;

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kRoom = UINT64_MAX;

ArchiveNeed archive(int number, std::uint64_t total, std::uint64_t needed) {
  return {FilesScene::id(number), total, needed};
}

// `count` small ones, the higher their number the larger.
std::vector<ArchiveNeed> small_ones(int count) {
  std::vector<ArchiveNeed> archives;
  for (int i = 0; i < count; ++i)
    archives.push_back(archive(i, 100'000, 10'000 + static_cast<std::uint64_t>(i)));
  return archives;
}

TEST_CASE("few archives, of which much is needed, stay") {
  CHECK(archives_to_give_up({}, kRoom).empty());
  CHECK(archives_to_give_up({archive(1, 900 * kMiB, 225 * kMiB), archive(2, 500, 500)}, kRoom)
            .empty());
  CHECK(archives_to_give_up(small_ones(59), kRoom).empty());
}

TEST_CASE("an archive that is mostly dead is given up, a tiny one is not") {
  const std::vector<ArchiveNeed> archives{archive(1, 900 * kMiB, 200 * kMiB),
                                          archive(2, kMiB - 1, 1), archive(3, kMiB, kMiB / 4 - 1),
                                          archive(4, 8 * kMiB, 2 * kMiB)};
  const std::vector<std::string> both{FilesScene::id(3), FilesScene::id(1)};
  CHECK(archives_to_give_up(archives, kRoom) == both);
  // What would not fit stays.
  CHECK(archives_to_give_up(archives, 200 * kMiB) == std::vector<std::string>{FilesScene::id(3)});
  CHECK(archives_to_give_up(archives, 1).empty());
}

TEST_CASE(
    "of many archives the smallest are given up, and those that are no larger than all these") {
  auto archives = small_ones(59);
  archives.push_back(archive(90, 5000 * kMiB, 5000 * kMiB));
  auto given_up = archives_to_give_up(archives, kRoom);
  CHECK(given_up.size() == 59);
  CHECK(std::count(given_up.begin(), given_up.end(), FilesScene::id(90)) == 0);

  // 30 of them are 1 MiB together; each of the others is larger than that.
  for (std::size_t i = 30; i < 59; ++i) archives[i].needed = (2 + i) * kMiB;
  given_up = archives_to_give_up(archives, kRoom);
  CHECK(given_up.size() == 30);
  CHECK(std::count(given_up.begin(), given_up.end(), FilesScene::id(30)) == 0);
  std::reverse(archives.begin(), archives.end());
  CHECK(archives_to_give_up(archives, kRoom) == given_up);
  CHECK(archives_to_give_up(archives, 10'000).empty());  // one alone
  CHECK(archives_to_give_up(archives, 50'000).size() == 4);
}

TEST_CASE("an index is read for it only when it may tell of something to give up") {
  const std::vector<ArchiveNeed> archives{archive(1, 100 * kMiB, 0), archive(2, 4 * kMiB, 0)};
  CHECK_FALSE(may_give_up({}, 0, 0));
  CHECK_FALSE(may_give_up(archives, 1000, 102 * kMiB));
  CHECK(may_give_up(archives, 1000, 99 * kMiB));
  // What is dead may be the second one, not the first.
  CHECK_FALSE(may_give_up({archive(1, 100 * kMiB, 0)}, 1000, 30 * kMiB));
  CHECK(may_give_up({archive(1, 100 * kMiB, 0)}, 1000, 20 * kMiB));
  CHECK_FALSE(may_give_up(small_ones(59), 1'000'000, 0));
  CHECK(may_give_up(small_ones(60), 1'000'000, 1 << 30));
}

// A tree of files whose sizes alone are known, and the archives that a set of it refers to.
class Model {
 public:
  explicit Model(std::vector<std::uint64_t> sizes) : sizes_(std::move(sizes)) {
    where_.assign(sizes_.size(), 0);
    run({});
    changed_ = moved_ = 0;
  }
  // A run before which these files were changed, or are new, and have this size. 0: it is gone.
  void run(const std::vector<std::pair<std::size_t, std::uint64_t>>& changes) {
    const int me = ++run_;
    for (const auto& id : archives_to_give_up(archives(), kRoom)) move(numbers_.at(id), me);
    if (run_ == 1) std::fill(where_.begin(), where_.end(), 1);
    for (const auto& [file, size] : changes) {
      if (file == sizes_.size()) {
        sizes_.push_back(0);
        where_.push_back(0);
      } else if (where_[file] == me) {
        moved_ -= sizes_[file];
      }
      sizes_[file] = size;
      where_[file] = me;
      changed_ += size;
    }
    auto& total = totals_[me];
    for (std::size_t i = 0; i < sizes_.size(); ++i)
      if (where_[i] == me) total += sizes_[i];
    numbers_[FilesScene::id(me)] = me;
  }
  [[nodiscard]] std::vector<ArchiveNeed> archives() const {
    std::map<int, std::uint64_t> needed;
    for (std::size_t i = 0; i < sizes_.size(); ++i)
      if (sizes_[i] > 0 && where_[i] > 0) needed[where_[i]] += sizes_[i];
    std::vector<ArchiveNeed> all;
    for (const auto& [number, bytes] : needed)
      all.push_back(archive(number, totals_.at(number), bytes));
    return all;
  }
  [[nodiscard]] std::uint64_t live() const {
    return std::accumulate(sizes_.begin(), sizes_.end(), std::uint64_t{0});
  }
  [[nodiscard]] std::size_t files() const { return sizes_.size(); }
  [[nodiscard]] std::uint64_t changed() const { return changed_; }  // bytes, since the first run
  [[nodiscard]] std::uint64_t moved() const { return moved_; }      // stored anew for nothing else
  [[nodiscard]] bool is_in_first(std::size_t file) const { return where_[file] == 1; }

 private:
  void move(int from, int to) {
    for (std::size_t i = 0; i < sizes_.size(); ++i)
      if (where_[i] == from && sizes_[i] > 0) {
        where_[i] = to;
        moved_ += sizes_[i];
      }
  }
  std::vector<std::uint64_t> sizes_;
  std::vector<int> where_;  // the number of a run
  std::map<int, std::uint64_t> totals_;
  std::map<std::string, int> numbers_;
  int run_ = 0;
  std::uint64_t changed_ = 0, moved_ = 0;
};

void check_bounds(const Model& model) {
  const auto archives = model.archives();
  REQUIRE(archives.size() <= kMostArchives + 1);
  std::uint64_t total = 0;
  for (const auto& one : archives) total += one.total;
  // Of what one run has let die the next one takes notice.
  REQUIRE(total <= 6 * model.live() + kMostArchives * kMiB);
}

TEST_CASE("over a thousand runs the archives stay few, and little is stored for that") {
  std::mt19937_64 chance(7);
  const auto any = [&](std::uint64_t below) { return chance() % below; };
  const std::vector<std::uint64_t> tree(3000, 100'000);
  const std::string kinds[] = {"any file",   "the same file", "few files",
                               "a new file", "any sizes",     "files come and go"};
  for (int kind = 0; kind < 6; ++kind) {
    CAPTURE(kinds[kind]);
    Model model(tree);
    for (int i = 0; i < 1000; ++i) {
      const auto file = any(model.files());
      switch (kind) {
        case 0: model.run({{file, 100'000}}); break;
        case 1: model.run({{7, 100'000}}); break;
        case 2: model.run({{any(80), 100'000}}); break;
        case 3: model.run({{model.files(), 100'000}}); break;
        case 4: model.run({{file, 1000ULL << any(14)}, {any(50), 5000}}); break;
        default: model.run({{file, 0}, {model.files(), 1 + any(200'000)}}); break;
      }
      check_bounds(model);
    }
    CHECK(model.moved() <= 4 * model.changed());
    // Nothing changes any more: that comes to an end at once.
    model.run({});
    CHECK(archives_to_give_up(model.archives(), kRoom).empty());
  }
  // A little that changes never moves the large rest.
  Model model(tree);
  for (std::size_t i = 0; i < 1000; ++i) model.run({{i % 300, 100'000}});
  for (std::size_t i = 300; i < tree.size(); ++i) REQUIRE(model.is_in_first(i));
}

TEST_CASE("names of many archives come back in their order, however many there are") {
  const FilesScene scene;
  NameLists lists(scene.directory / "beside");
  std::map<std::string, std::string> expected;
  const auto open = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = open();
  for (int i = 0; i < 60'000; ++i) {
    // Most of them in the first; the last has few.
    const auto set = FilesScene::id(i % 3 > 0 ? 0 : i % 200);
    const auto name = fmt::format("{}{}", std::string(200, 'n'), i) + '\0';
    expected[set] += name;
    REQUIRE(lists.add(set, name).has_value());
  }
  const auto few = FilesScene::id(300);
  expected[few] = std::string("a\0b\0", 4);
  REQUIRE(lists.add(few, expected[few]).has_value());
  CHECK(lists.size() == expected.size());
  CHECK(lists.has(few));
  CHECK_FALSE(lists.has(FilesScene::id(301)));
  CHECK(open() <= before + 1);
  CHECK_FALSE(std::filesystem::exists(scene.directory / "beside.names"));
  for (const auto& one : expected) {
    const auto path = "archives/" + one.first;
    const auto object = lists.store(one.first, scene.repository.path() + "/" + path, path, 1);
    REQUIRE_MESSAGE(object.has_value(), object.error().message);
    const auto text = read_object(scene.repository, *object, 64 * kMiB);
    REQUIRE_MESSAGE(text.has_value(), text.error().message);
    REQUIRE((*text == one.second));
  }
}

// Of this process, until the end.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t more) {
    const auto open = std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before_) == 0);
    const rlimit few{static_cast<rlim_t>(open) + more, before_.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
  }
  ~FewDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;

 private:
  rlimit before_{};
};

TEST_CASE("a tree in which every run finds something new needs few archives and descriptors") {
  constexpr std::size_t kRuns = 80;
  FilesScene scene;
  for (std::size_t i = 0; i < kRuns; ++i)
    scene.write(fmt::format("f{:02}", i), fmt::format("{}", i));
  scene.settle();
  std::uint64_t stored = 0;
  std::size_t most = 0;
  {
    const FewDescriptors few(24);
    for (std::size_t i = 0; i < kRuns; ++i) {
      // What was not wanted before is new.
      scene.what.include.push_back(fmt::format("f{:02}", i));
      const auto part = scene.back_up();
      REQUIRE_MESSAGE(part.has_value(), part.error().message);
      CHECK_MESSAGE(part->warnings.empty(), join(part->warnings, "\n"));
      REQUIRE(part->files == i + 2);
      most = std::max(most, part->archives.size());
      stored += part->stored_files;
    }
  }
  CHECK(most > 40);
  CHECK(most <= kMostArchives + 1);
  CHECK(stored <= 2 * kRuns);
  const auto last = scene.back_up();
  REQUIRE_MESSAGE(last.has_value(), last.error().message);
  CHECK(last->stored_files == 0);
  scene.check_comes_back(*last, "back");
}

TEST_CASE("what little is needed of a large archive is stored anew, once") {
  FilesScene scene;
  std::string noise(3 * kMiB, '\0');
  std::mt19937 chance(1);
  for (auto& letter : noise) letter = static_cast<char>(chance());
  scene.write("d/large", noise);
  scene.write("d/small", "stays");
  const auto first = scene.backed_up();
  std::filesystem::remove(scene.tree + "/d/large");
  const auto second = scene.backed_up();
  CHECK(second.archives.size() == 2);
  const auto third = scene.backed_up();
  CHECK(third.stored_files == 2);  // "." and d/small
  for (const auto& one : third.archives) CHECK(one.path != first.archives.front().path);
  CHECK(scene.backed_up().stored_files == 0);
  scene.check_comes_back(third, "back");
  scene.check_comes_back(*scene.back_up(), "again");
}

TEST_CASE("a tree whose names take more than its files is not stored again and again") {
  FilesScene scene;
  auto deep = scene.tree;
  for (int i = 0; i < 14; ++i) deep += "/" + std::string(250, 'd');
  std::filesystem::create_directories(deep);
  for (int i = 0; i < 250; ++i)
    std::filesystem::create_symlink(std::string(4000, 't'),
                                    fmt::format("{}/{:03}{}", deep, i, std::string(247, 'n')));
  scene.write("a", "1");
  const auto first = scene.backed_up();
  CHECK(first.archives.front().raw > 4 * 2 * 250 * 1024);
  scene.write("a", "2");
  const auto second = scene.backed_up();
  CHECK(second.stored_files == 1);
  REQUIRE(second.archives.size() == 2);
  const auto third = scene.backed_up();
  CHECK(third.stored_files == 0);
  CHECK(third.archives == second.archives);
}

}  // namespace
}  // namespace zx::backup
