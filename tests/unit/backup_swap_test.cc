#include <doctest/doctest.h>

#include "lib/backup/pg_swap.h"
#include "lib/backup/restore.h"

namespace zx::backup {
namespace {

using Names = std::map<std::string, SwapNames>;

std::string words(const Result<std::vector<Rename>>& renames) {
  if (!renames) return renames.error().message;
  std::string text;
  for (const auto& [from, to] : *renames) text += from + " to " + to + "; ";
  return text;
}

TEST_CASE("a database goes aside before another takes its name") {
  CHECK(words(renames_in(Names{{"shop", {true, true, false}}}, {})) ==
        "shop to shop_zxold; shop_zxnew to shop; ");
  CHECK(words(renames_in(Names{{"shop", {false, true, false}}}, {})) == "shop_zxnew to shop; ");
  CHECK(words(renames_in(Names{{"shop", {true, false, true}}}, {})) == "");  // swapped already
  CHECK(words(renames_in(Names{{"shop", {true, true, true}}}, {})) ==
        "there are both shop and shop_zxold");
  CHECK(words(renames_in(Names{{"shop", {false, false, false}}}, {})) ==
        "neither shop nor shop_zxnew is there");
}

TEST_CASE("without what was loaded nothing is taken for swapped") {
  constexpr const char* kGone = "shop_zxnew is not there any more, and shop is not what was loaded";
  CHECK(words(renames_in(Names{{"shop", {true, false, false}}}, {})) == kGone);
  const Oids loaded{{"shop", 7}};
  CHECK(words(renames_in(Names{{"shop", {true, false, false, 7, 0}}}, loaded)) == "");
  CHECK(words(renames_in(Names{{"shop", {true, false, true, 7, 0}}}, loaded)) == "");
  CHECK(words(renames_in(Names{{"shop", {true, false, true, 5, 0}}}, loaded)) == kGone);
  CHECK(words(renames_in(Names{{"shop", {true, true, false, 5, 7}}}, loaded)) ==
        "shop to shop_zxold; shop_zxnew to shop; ");
  CHECK(words(renames_in(Names{{"shop", {true, true, false, 5, 8}}}, loaded)) ==
        "shop_zxnew is not what was loaded");
  const auto refused = renames_in(Names{{"shop", {true, false, false, 5, 0}}}, loaded);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::refused);
  // What somebody has made since keeps its name.
  CHECK(words(renames_back(Names{{"shop", {true, false, false, 5, 0}}}, {}, loaded)) == "");
  CHECK(words(renames_back(Names{{"shop", {true, false, false, 7, 0}}}, {}, loaded)) ==
        "shop to shop_zxnew; ");
}

TEST_CASE("the way back is the same at every point where it may have stopped") {
  const std::vector<std::string> had{"shop"};
  CHECK(words(renames_back(Names{{"shop", {true, false, true}}}, had)) ==
        "shop to shop_zxnew; shop_zxold to shop; ");
  // Before the swap, and after the way back.
  CHECK(words(renames_back(Names{{"shop", {true, true, false}}}, had)) == "");
  CHECK(words(renames_back(Names{{"shop", {true, false, false}}}, had)) == "");
  // Somebody has dropped what was restored.
  CHECK(words(renames_back(Names{{"shop", {false, false, true}}}, had)) == "shop_zxold to shop; ");
  // There was none before.
  CHECK(words(renames_back(Names{{"shop", {true, false, false}}}, {})) == "shop to shop_zxnew; ");
  CHECK(words(renames_back(Names{{"shop", {true, true, false}}}, {})) == "");
  CHECK(words(renames_back(Names{{"shop", {false, true, false}}}, {})) == "");
}

std::string steps_of(const run::Plan& plan) {
  std::string text;
  for (const auto& step : plan.steps) text += step.name + (step.optional ? "?" : "") + " ";
  return text;
}

TEST_CASE("all is loaded before anybody is stopped, and only what is wanted") {
  RestoreFacts facts;
  facts.set = "20261124T020000-7c51";
  facts.databases = {"shop"};
  facts.missing_roles = {"app"};
  facts.trees = {"/app/uploads"};
  facts.redis_deployment = "cache";
  facts.with_services = true;
  facts.services = {"order"};
  CHECK(steps_of(plan_restore(kRestoreFull, facts)) ==
        "files aside roles load rows analyze stop files databases redis receipt start? ");
  RestoreFacts one;
  one.trees = {"/app/uploads"};
  CHECK(steps_of(plan_restore("restore files", one)) == "files aside files receipt ");
}

TEST_CASE("what was restored is taken back in the reverse order") {
  Kept kept;
  kept.run = kept.set = "20261124T020000-7c51";
  kept.databases = kept.had_database = {"shop"};
  kept.trees = {"/app/uploads"};
  kept.redis_deployment = "cache";
  kept.with_services = true;
  CHECK(steps_of(plan_undo(kept)) == "stop databases files redis clear start? ");
}

}  // namespace
}  // namespace zx::backup
