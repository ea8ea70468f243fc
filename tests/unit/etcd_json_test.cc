// What the gateway of etcd says and wants to hear, and what is believed of it.
#include <doctest/doctest.h>

#include "lib/coord/etcd_client.h"
#include "lib/coord/etcd_coordinator.h"
#include "lib/coord/guard_lease.h"
#include "lib/coord/vote_book.h"

namespace zx::coord {
namespace {

TEST_CASE("base64 goes both ways") {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  for (std::size_t size = 0; size <= all.size(); ++size) {
    const auto back = from_base64(to_base64(std::string_view(all).substr(0, size)));
    REQUIRE(back.has_value());
    CHECK(*back == all.substr(0, size));
  }
  CHECK(to_base64("") == "");
  CHECK(to_base64("f") == "Zg==");
  CHECK(to_base64("fo") == "Zm8=");
  CHECK(to_base64("foo") == "Zm9v");
  CHECK(to_base64("\xff\xfe\xfd") == "//79");
}

TEST_CASE("what is no base64 is refused") {
  for (const std::string text :
       {"Z", "Zg", "Zg=", "Zg===", "====", "=", "Z===", "Zm9v=", "Zm9=v", "Zg==Zg==", "Zm 9",
        "Zm9\n", "Zm-_", "Zh==", "Zm9=", "Z\xc3\xa9g"}) {
    CAPTURE(text);
    CHECK_FALSE(from_base64(text).has_value());
  }
  CHECK_FALSE(from_base64(std::string_view("Zm9\0", 4)).has_value());
}

TEST_CASE("a number may be a string, left out, or nonsense") {
  const Json json{{"string", "9223372036854775807"}, {"number", 5},       {"less", "-3"},
                  {"big", "9223372036854775808"},    {"tail", "12x"},     {"empty", ""},
                  {"list", Json::array({"1"})},      {"fraction", "1.5"}, {"null", nullptr}};
  CHECK(etcd_int(json, "string") == 9223372036854775807);
  CHECK(etcd_int(json, "number") == 5);
  CHECK(etcd_int(json, "less") == -3);
  for (const char* key : {"big", "tail", "empty", "list", "fraction", "null", "absent"})
    CHECK(etcd_int(json, key) == 0);
  CHECK(etcd_int(Json("text"), "key") == 0);
}

Error error_of(int status, const std::string& body) {
  const auto answer = read_etcd_answer(status, body);
  REQUIRE_FALSE(answer.has_value());
  return answer.error();
}

TEST_CASE("an error is understood in each of its shapes") {
  const auto plain = [](int code, const std::string& text) {
    return Json{{"error", text}, {"message", text}, {"code", code}}.dump();
  };
  CHECK(error_of(404, plain(5, "etcdserver: requested lease not found")).code == Code::not_found);
  CHECK(error_of(401, plain(16, "etcdserver: invalid auth token")).code == Code::auth);
  CHECK(error_of(403, plain(7, "etcdserver: permission denied")).code == Code::auth);
  CHECK(error_of(400, plain(3, "etcdserver: user name is empty")).code == Code::auth);
  CHECK(error_of(412, plain(9, "etcdserver: authentication is not enabled")).code == Code::refused);
  const auto full = error_of(429, plain(8, "etcdserver: mvcc: database space exceeded"));
  CHECK(full.code == Code::disk_full);
  CHECK(full.message.find("NOSPACE") != std::string::npos);
  CHECK_FALSE(full.retryable);
  const auto away = error_of(503, plain(14, "etcdserver: no leader"));
  CHECK(away.code == Code::unreachable);
  CHECK(away.retryable);
  CHECK(error_of(400, plain(3, "etcdserver: key is not provided")).code == Code::server);
  CHECK(error_of(200, R"({"error":{"grpc_code":14,"http_code":503,"message":"no leader",
"http_status":"Service Unavailable"}})")
            .code == Code::server);  // broken into lines: no answer of a stream
  const auto stream = error_of(
      200, R"({"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}})");
  CHECK(stream.code == Code::unreachable);
  CHECK(stream.message == "etcd: etcdserver: no leader");
  CHECK(error_of(404, "Not Found\n").message.find("HTTP 404") != std::string::npos);
  for (const std::string body : {"", "[]", "5", "{", "<html>", "\x00\xff", R"({"a":1} trailing)"})
    CHECK(error_of(200, body).code == Code::server);
  CHECK(error_of(500, "{}").code == Code::server);
  CHECK(error_of(200, R"({"error":""})").code == Code::server);
  CHECK(error_of(200, R"({"error":[1]})").code == Code::server);
}

TEST_CASE("of a stream the first answer counts") {
  const auto answer = read_etcd_answer(
      200, "{\"result\":{\"ID\":\"7\",\"TTL\":\"5\"}}\n{\"result\":{\"ID\":\"8\"}}\n");
  REQUIRE(answer.has_value());
  CHECK(etcd_int(*answer, "ID") == 7);
  CHECK(etcd_int(*answer, "TTL") == 5);
}

TEST_CASE("requests have the gateway's form") {
  CHECK(etcd_put("a", "b").dump() == R"({"request_put":{"key":"YQ==","value":"Yg=="}})");
  CHECK(etcd_put("a", "", 7).dump() == R"({"request_put":{"key":"YQ==","value":"","lease":"7"}})");
  CHECK(etcd_range("a").dump() == R"({"request_range":{"key":"YQ=="}})");
  CHECK(etcd_range_under("a/").dump() == R"({"request_range":{"key":"YS8=","range_end":"YTA="}})");
  CHECK(etcd_delete("a").dump() == R"({"request_delete_range":{"key":"YQ=="}})");
  CHECK(etcd_created_at("a", 0).dump() ==
        R"({"target":"CREATE","result":"EQUAL","create_revision":"0","key":"YQ=="})");
  CHECK(etcd_exists("a").dump() ==
        R"({"target":"CREATE","result":"GREATER","create_revision":"0","key":"YQ=="})");
  CHECK(etcd_modified_at("a", 5).dump() ==
        R"({"target":"MOD","result":"EQUAL","mod_revision":"5","key":"YQ=="})");
}

TEST_CASE("the ranges of a transaction are read in their order") {
  const auto read = [](const std::string& text) { return read_txn(Json::parse(text)); };
  const auto result = read(
      R"({"header":{"revision":"9"},"succeeded":true,"responses":[{"response_put":{}},
      {"response_range":{"kvs":[{"key":"YQ==","value":"Yg==","create_revision":"2",
      "mod_revision":"4","lease":"7"}],"count":"1"}},{"response_range":{}}]})");
  REQUIRE(result.has_value());
  CHECK(result->succeeded);
  CHECK(result->revision == 9);
  REQUIRE(result->ranges.size() == 2);
  REQUIRE(result->ranges[0].size() == 1);
  CHECK(result->ranges[0][0].key == "a");
  CHECK(result->ranges[0][0].value == "b");
  CHECK(result->ranges[0][0].create_revision == 2);
  CHECK(result->ranges[0][0].lease == 7);
  CHECK(result->ranges[1].empty());

  CHECK(read("{}")->ranges.empty());
  CHECK_FALSE(read("{}")->succeeded);
  CHECK(read(R"({"responses":5})").has_value());
  CHECK_FALSE(read(R"({"responses":[{"response_range":{"kvs":[{"key":"YQ=="}]}}]})").has_value());
  CHECK_FALSE(read(R"({"responses":[{"response_range":{"kvs":[{"key":"!","create_revision":"2",
      "mod_revision":"2"}]}}]})")
                  .has_value());
}

Json header(const std::string& cluster, int revision, int term) {
  return {{"header",
           {{"cluster_id", cluster},
            {"revision", std::to_string(revision)},
            {"raft_term", std::to_string(term)}}}};
}

TEST_CASE("an answer that is older than what was seen before it was asked for is refused") {
  EtcdSeen seen;
  CHECK(seen.accept(seen.newest(), header("1", 10, 3), true).has_value());
  const auto before = seen.newest();
  CHECK(seen.accept(before, header("1", 12, 3), true).has_value());
  // Under way at the same time, and answered in another order.
  CHECK(seen.accept(before, header("1", 11, 3), true).has_value());
  CHECK(seen.newest().revision == 12);
  CHECK_FALSE(seen.accept(seen.newest(), header("1", 11, 3), true).has_value());
  CHECK_FALSE(seen.accept(seen.newest(), header("1", 13, 2), true).has_value());
  const auto other = seen.accept(seen.newest(), header("2", 99, 9), true);
  CHECK(other.error().code == Code::unreachable);
  CHECK(other.error().retryable);
  // Leases are kept by the leader whatever the member that passes it on has heard.
  CHECK(seen.accept(seen.newest(), header("1", 5, 2), false).has_value());
  CHECK_FALSE(seen.accept(seen.newest(), header("2", 99, 9), false).has_value());
  CHECK_FALSE(seen.accept(seen.newest(), Json::object(), true).has_value());
  CHECK(seen.newest().revision == 12);
}

VoteBook::Entry entry(const std::string& agent, const std::string& stamp) {
  return {{agent, "east", Json{{"stamp", stamp}}}, stamp};
}

TEST_CASE("a vote is fresh for a while after we saw it change") {
  constexpr Millis kSpan{1'000};
  VoteBook book;
  book.note({entry("a", "1/1"), entry("b", "2/7")}, Millis(5'000));
  CHECK(book.fresh(Millis(5'000), kSpan).empty());  // of any age
  book.note({entry("a", "1/2"), entry("b", "2/7")}, Millis(5'500));
  auto votes = book.fresh(Millis(5'500), kSpan);
  REQUIRE(votes.size() == 1);
  CHECK(votes[0].agent == "a");
  CHECK(votes[0].saw["stamp"] == "1/2");
  book.note({entry("a", "1/2"), entry("b", "3/7")}, Millis(6'400));  // b was started again
  CHECK(book.fresh(Millis(6'499), kSpan).size() == 2);
  votes = book.fresh(Millis(6'500), kSpan);
  REQUIRE(votes.size() == 1);
  CHECK(votes[0].agent == "b");
  book.note({}, Millis(6'500));
  CHECK(book.fresh(Millis(6'500), kSpan).empty());
  book.note({entry("b", "3/8")}, Millis(6'600));  // gone and back: of any age again
  CHECK(book.fresh(Millis(6'600), kSpan).empty());
}

TEST_CASE("a vote is read back, and what is none is passed over") {
  const auto text = write_vote({"a", "east", Json{{"pg-a", "up"}}}, 3);
  const auto read = read_vote(text, 9);
  REQUIRE(read.has_value());
  CHECK(read->vote.agent == "a");
  CHECK(read->vote.region == "east");
  CHECK(read->vote.saw["pg-a"] == "up");
  CHECK(read->stamp == "9/3");
  CHECK_FALSE(
      read_vote(write_vote({"a", "east", nullptr}, 0), 9).has_value());  // has not looked yet
  for (const std::string bad : {"", "x", "5", "[]", "{}", R"({"agent":5,"serial":1})"})
    CHECK_FALSE(read_vote(bad, 9).has_value());
}

TEST_CASE("a guard is proof only when barred, and gone for more than its ttl") {
  GuardState state{
      GuardState::Kind::run_out, Millis(5'050), Millis(5'000), Millis(1'000), Millis(2'500), true};
  CHECK(state.is_proof());
  state.since = Millis(5'049);
  CHECK_FALSE(state.is_proof());
  state.since = Millis(60'000);
  state.barred = false;
  CHECK_FALSE(state.is_proof());
  state.barred = true;
  state.kind = GuardState::Kind::held;
  CHECK_FALSE(state.is_proof());
  state.kind = GuardState::Kind::unguarded;
  CHECK_FALSE(state.is_proof());
}

TEST_CASE("options that cannot work are refused") {
  EtcdOptions good;
  good.endpoints = {"http://127.0.0.1:2379"};
  CHECK(check_etcd_options(good, Millis(2'000)).has_value());
  CHECK(check_etcd_options(good, Millis(1'000)).error().code == Code::config);
  CHECK(check_etcd_options(good, Millis(2'500)).error().code == Code::config);
  CHECK(check_etcd_options({}, Millis(2'000)).error().code == Code::config);
  auto bad = good;
  bad.endpoints = {"127.0.0.1:2379"};
  CHECK(check_etcd_options(bad, Millis(2'000)).error().code == Code::config);
  bad = good;
  bad.cert_file = "/c.pem";
  CHECK(check_etcd_options(bad, Millis(2'000)).error().code == Code::config);
  EtcdCoordinatorOptions nameless;
  nameless.etcd = good;
  CHECK(etcd_coordinator(nameless).error().code == Code::config);
  GuardOptions guard;
  guard.etcd = good;
  CHECK(GuardLease::start(guard).error().code == Code::config);
}

}  // namespace
}  // namespace zx::coord
