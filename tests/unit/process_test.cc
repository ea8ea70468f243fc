#include "lib/os/process.h"

#include <sys/stat.h>
#include <unistd.h>

#include "tests/support.h"

namespace zx {
namespace {

Error why_not(const os::Argv& argv, const os::ProcessOptions& options) {
  const auto result = os::run(argv, options);
  REQUIRE_FALSE(result.has_value());
  return result.error();
}

TEST_CASE("a program that does not start is told with what kept it: itself, or its directory") {
  const test::Directory directory;
  os::ProcessOptions options;
  const auto absent = why_not({directory / "absent"}, options);
  CHECK(absent.code == Code::not_found);
  CHECK(absent.message == "cannot run " + (directory / "absent") + ": no such program");

  test::write(directory / "data", "not a program");
  const auto denied = why_not({directory / "data"}, options);
  CHECK(denied.code == Code::auth);
  CHECK(denied.message == "cannot run " + (directory / "data") + ": Permission denied");

  options.directory = directory / "nowhere";
  CHECK(why_not({"/bin/true"}, options).message ==
        "cannot run /bin/true in " + options.directory + ": No such file or directory");
}

TEST_CASE("a directory that the user of a program may not enter is named with the user") {
  if (geteuid() != 0) return;  // becomes another
  const test::Directory directory;
  os::ProcessOptions options;
  options.directory = directory.path();  // 0700
  const auto nobody = os::user_named("nobody");
  REQUIRE(nobody.has_value());
  options.user = *nobody;
  const auto error = why_not({"/bin/true"}, options);
  CHECK(error.code == Code::auth);
  CHECK(error.message ==
        "cannot run /bin/true in " + directory.path() + " as nobody: Permission denied");
}

}  // namespace
}  // namespace zx
