// A file on its way to another host: behind a request on stdin.
#include <unistd.h>

#include "lib/config/on_host.h"
#include "lib/os/files.h"
#include "lib/redis/place_rdb.h"
#include "tests/support.h"

namespace zx {
namespace {

std::string much() {
  std::string text;
  for (int i = 0; text.size() < 3'000'000; ++i) text += "杯 " + std::to_string(i);
  return text;
}

TEST_CASE("a child gets a text and then all of a file, however large") {
  const test::Directory directory;
  const auto file = much();
  test::write(directory / "file", file);
  os::ProcessOptions options;
  options.input = "first\n";
  options.input_file = directory / "file";
  CHECK(test::run_program({"cat"}, options).out == "first\n" + file);
  options.input.clear();
  CHECK(test::run_program({"cat"}, options).out == file);
  test::write(directory / "file", "");
  CHECK(test::run_program({"cat"}, options).out.empty());
}

TEST_CASE("a child that ends before it has read its file is no failure of zx") {
  const test::Directory directory;
  test::write(directory / "file", much());
  os::ProcessOptions options;
  options.input_file = directory / "file";
  CHECK(test::run_program({"head", "-c", "6"}, options).out == much().substr(0, 6));
  options.input_file = directory / "none";
  const auto result = os::run({"cat"}, options);
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().code == Code::not_found);
}

TEST_CASE("what an operation carries follows its request to another host") {
  const test::Directory directory;
  const config::NodeOps ops{{"keep", "keeps a file", nullptr, config::NodeOp::Kind::act, "file"}};
  config::Host host;
  host.name = "far";
  host.remote = {"/bin/sh", "-c",
                 "cat > " + (directory / "got") + "; echo '{\"ok\": true, \"result\": {\"n\": 1}}'",
                 "far"};
  const auto file = much();
  test::write(directory / "file", file);
  const auto answer =
      config::on_host(host, ops, "keep", Json{{"file", directory / "file"}}, Millis(20'000));
  REQUIRE_MESSAGE(answer.has_value(), answer.error().message);
  CHECK((*answer)["n"] == 1);
  const auto got = test::read(directory / "got");
  const auto line = got.find('\n');
  const auto request = parse_json(got.substr(0, line), "the request");
  REQUIRE(request.has_value());
  CHECK(get_int(*request, "carried_bytes") == static_cast<std::int64_t>(file.size()));
  CHECK(got.substr(line + 1) == file);

  const auto none =
      config::on_host(host, ops, "keep", Json{{"file", directory / "none"}}, Millis(20'000));
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().code == Code::not_found);
}

struct Pipe {
  os::Descriptor read, write;
  explicit Pipe(const std::string& text) {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    read = os::Descriptor(ends[0]);
    write = os::Descriptor(ends[1]);
    REQUIRE(::write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
};

Result<redis::Pulled> take(const Pipe& pipe, std::uint64_t bytes, std::string& out,
                           Millis patience = Millis(20'000)) {
  return redis::carried_file(pipe.read.get(), bytes, Deadline::after(patience))(
      {}, [&](std::string_view part) -> Status {
        out += part;
        return {};
      });
}

TEST_CASE("of what is carried so many bytes are taken as were announced, no more and no less") {
  std::string out;
  const Pipe more("REDIS0010 and what follows");
  CHECK(take(more, 9, out)->bytes == 9);
  CHECK(out == "REDIS0010");
  Pipe less("REDIS");
  less.write.close();
  const auto cut = take(less, 9, out);
  REQUIRE_FALSE(cut.has_value());
  CHECK(cut.error().message == "of the 9 bytes of the copy 5 came");
  const Pipe stalled("REDIS");
  const auto late = take(stalled, 9, out, Millis(20));
  REQUIRE_FALSE(late.has_value());
  CHECK(late.error().code == Code::timeout);
}

}  // namespace
}  // namespace zx
