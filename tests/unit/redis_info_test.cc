// INFO, CONFIG GET and what Sentinels say, as facts.
#include "lib/redis/info.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::redis {
namespace {

constexpr const char* kReplica =
    "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\n"
    "uptime_in_seconds:77\r\nconfig_file:/数据/redis.conf\r\n"
    "# Clients\r\nconnected_clients:5\r\nmaxclients:10000\r\nblocked_clients:2\r\n"
    "# Memory\r\nused_memory:1000\r\nmaxmemory:18446744073709551615\r\n"
    "maxmemory_policy:noeviction\r\n"
    "# Persistence\r\nloading:0\r\nrdb_changes_since_last_save:3\r\nrdb_bgsave_in_progress:1\r\n"
    "rdb_last_save_time:1700000000\r\nrdb_last_bgsave_status:err\r\naof_enabled:1\r\n"
    "aof_rewrite_in_progress:0\r\naof_last_bgrewrite_status:ok\r\naof_last_write_status:err\r\n"
    "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n"
    "master_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\nmaster_sync_in_progress:1\r\n"
    "master_sync_left_bytes:500\r\nmaster_link_down_since_seconds:12\r\nslave_priority:0\r\n"
    "slave_read_only:0\r\nconnected_slaves:2\r\n"
    "slave1:ip=127.0.0.1,port=0,state=online,offset=9,lag=1\r\n"
    "slave0:ip=fe80::1,port=6381,state=wait_bgsave,offset=8,lag=0\r\n"
    "master_failover_state:waiting-for-sync\r\n"
    "master_replid:aaaa\r\nmaster_replid2:bbbb\r\nmaster_repl_offset:900\r\n"
    "second_repl_offset:800\r\nrepl_backlog_size:1048576\r\n"
    "repl_backlog_first_byte_offset:1\r\nrepl_backlog_histlen:900\r\n"
    "# Keyspace\r\ndb0:keys=10,expires=4,avg_ttl=0\r\ndb11:keys=5,expires=0,avg_ttl=0\r\n";

NodeFacts facts_of(std::string_view text) {
  NodeFacts facts;
  const auto status = read_info(text, facts);
  REQUIRE_MESSAGE(status.has_value(), (status ? std::string() : status.error().message));
  return facts;
}

TEST_CASE("INFO of a replica becomes facts") {
  const auto facts = facts_of(kReplica);
  CHECK(facts.answered());
  CHECK(facts.role == Role::replica);
  CHECK(facts.version == "7.0.15");
  CHECK(facts.config_file == "/数据/redis.conf");
  CHECK(facts.uptime_s == 77);
  CHECK(facts.lineage == Lineage{"aaaa", "bbbb", 800, 900});
  REQUIRE(facts.link.has_value());
  CHECK(facts.link->master_host == "10.0.0.1");
  CHECK(facts.link->master_port == 6379);
  CHECK_FALSE(facts.link->is_up);
  CHECK_FALSE(facts.is_linked());
  CHECK_FALSE(facts.link->last_io_s.has_value());
  CHECK(facts.link->down_for_s == 12);
  CHECK(facts.link->is_syncing);
  CHECK(facts.link->sync_left_bytes == 500);
  CHECK(facts.priority == 0);
  CHECK_FALSE(facts.is_read_only);
  CHECK(facts.paused_by_failover);
  REQUIRE(facts.attached.size() == 2);
  CHECK(facts.attached[0].address == "fe80::1");
  CHECK(facts.attached[0].state == "wait_bgsave");
  CHECK(facts.attached[1].port == 0);
  CHECK(facts.attached[1].lag_s == 1);
  CHECK(facts.keys == 15);
  CHECK(facts.expires == 4);
  CHECK(facts.databases == std::vector<int>{0, 11});
  CHECK(facts.memory_max == 18446744073709551615ULL);
  CHECK(facts.clients == 5);
  CHECK(facts.blocked_clients == 2);
  CHECK(facts.persistence.is_saving);
  CHECK_FALSE(facts.persistence.last_save_ok);
  CHECK(facts.persistence.last_save == 1700000000);
  CHECK(facts.persistence.aof);
  CHECK_FALSE(facts.persistence.aof_last_write_ok);
  CHECK(facts.persistence.aof_last_rewrite_ok);
  CHECK_FALSE(facts.min_replicas_good.has_value());
}

TEST_CASE("a server that loads is alive, and no good yet") {
  const auto facts =
      facts_of("redis_version:7.0.15\r\nrole:master\r\nloading:1\r\nloading_eta_seconds:9\r\n");
  CHECK_FALSE(facts.answered());
  CHECK(facts.is_loading());
  CHECK(facts.role == Role::master);
  CHECK(facts.error.message == "loading its data set into memory, about 9 s left");
  CHECK(facts.error.code == Code::starting_up);
}

TEST_CASE("what is not the INFO of a server with data is said to be so") {
  NodeFacts facts;
  CHECK(read_info("", facts).error().message == "its INFO is not that of a Redis server");
  CHECK_FALSE(read_info("role:master\r\n", facts).has_value());
  CHECK_FALSE(read_info("redis_version:7\r\nrole:boss\r\n", facts).has_value());
  CHECK(read_info("redis_version:7.0.15\r\nredis_mode:sentinel\r\n", facts).error().message ==
        "a Sentinel answers there, not a server with data");
  CHECK(facts.role == Role::unknown);
}

TEST_CASE("hostile INFO has no effect beyond its own fields") {
  const std::string head = "redis_version:7.0.15\r\nrole:slave\r\n";
  CHECK(Info::parse("a:\x1b[2J\x07x\n").text("a").find('\x1b') == std::string::npos);
  CHECK(Info::parse("a:1\na:2\n").text("a") == "1");
  CHECK(Info::parse("#a:1\nb\n:c\n").all().size() == 1);
  CHECK(Info::parse("a:" + std::string(100'000, 'x')).text("a").size() == 4096);
  CHECK(Info::parse("a: 12\n").number("a") == 12);
  for (const auto* text : {"a:12x", "a:", "a:1.5", "a:99999999999999999999", "a:+1"}) {
    CAPTURE(text);
    CHECK_FALSE(Info::parse(text).number("a").has_value());
  }
  CHECK(facts_of(head + "master_port:70000\r\n").link->master_port == 0);
  CHECK(facts_of(head + "master_port:-1\r\n").link->master_port == 0);
  CHECK(facts_of(head + "config_file:/a\x01"
                        "b\r\n")
            .config_file.find('\x01') == std::string::npos);
  CHECK(facts_of(head + "slave0:ip=x,port=99999,offset=-5\r\nslavex:ip=y\r\n").attached.size() ==
        1);
  std::string many = head;
  for (int i = 0; i < 5000; ++i) many += fmt::format("slave{}:ip=x,port=1\r\n", i);
  CHECK(facts_of(many).attached.size() == 1000);
  CHECK(facts_of(head + "db0:keys=9223372036854775807\r\ndb1:keys=9223372036854775807\r\n").keys >
        0);
}

Reply string_reply(std::string text) {
  Reply reply;
  reply.kind = Reply::Kind::string;
  reply.text = std::move(text);
  return reply;
}

Reply list_of(const std::vector<std::string>& words) {
  Reply reply;
  reply.kind = Reply::Kind::array;
  for (const auto& word : words) reply.items.push_back(string_reply(word));
  return reply;
}

TEST_CASE("CONFIG GET fills paths and limits, and a path that cannot be one is none") {
  NodeFacts facts;
  read_config(list_of({"dir", "/数据", "dbfilename", "dump.rdb", "min-replicas-to-write", "2",
                       "min-replicas-max-lag", "-3", "aclfile", "/a\nb", "odd"}),
              facts);
  CHECK(facts.dir == "/数据");
  CHECK(facts.dbfilename == "dump.rdb");
  CHECK(facts.min_replicas_to_write == 2);
  CHECK(facts.min_replicas_max_lag_s == 0);
  CHECK(facts.aclfile.empty());
}

TEST_CASE("a Sentinel's view is read, with the replicas that do not exist") {
  SentinelFacts sentinel;
  REQUIRE(read_master(list_of({"name", "zx", "ip", "10.0.0.1", "port", "6379", "flags",
                               "master,s_down", "num-other-sentinels", "2", "quorum", "2",
                               "config-epoch", "7", "down-after-milliseconds", "5000"}),
                      sentinel)
              .has_value());
  CHECK(sentinel.knows_master);
  CHECK(sentinel.flags == std::vector<std::string>{"master", "s_down"});
  CHECK(sentinel.config_epoch == 7);
  CHECK(sentinel.down_after == Millis(5000));
  CHECK_FALSE(read_master(list_of({"ip", "10.0.0.1", "port", "0"}), sentinel).has_value());

  Reply replicas;
  replicas.kind = Reply::Kind::array;
  const auto row = [&](const std::string& ip, const std::string& port, const std::string& flags) {
    replicas.items.push_back(list_of({"ip", ip, "port", port, "flags", flags}));
  };
  row("10.0.0.2", "6379", "slave");
  row("10.0.0.2", "6379", "s_down,slave,disconnected");
  row("127.0.0.1", "0", "slave");
  row("10.0.0.9", "6379", "slave");
  row("10.0.0.9", "6379", "slave,disconnected");
  row("10.0.0.9", "6380", "slave,disconnected");
  read_replicas(replicas, sentinel);
  Snapshot known;
  auto& node = known.nodes.emplace_back();
  node.address = "cache-2.internal";
  node.addresses = {"10.0.0.2"};
  auto& lost = known.nodes.emplace_back();  // its name could not be looked up
  lost.address = "cache-3.internal";
  lost.port = 6380;
  std::vector<SentinelFacts> all{sentinel};
  mark_phantoms(all, known);
  std::vector<bool> found;
  for (const auto& replica : all[0].replicas) found.push_back(replica.is_phantom);
  CHECK(found == std::vector<bool>{false, false, true, false, true, false});
}

TEST_CASE("CKQUORUM says yes, no, or nothing") {
  SentinelFacts sentinel;
  Reply ok;
  ok.kind = Reply::Kind::status;
  ok.text = "OK 3 usable Sentinels. Quorum and failover authorization can be reached";
  read_quorum(ok, sentinel);
  CHECK(sentinel.has_quorum == true);
  read_quorum(tl::unexpected(Failed{Failure::error, {}, "NOQUORUM 1 usable Sentinels."}), sentinel);
  CHECK(sentinel.has_quorum == false);
  CHECK(sentinel.quorum_text == "NOQUORUM 1 usable Sentinels.");
  read_quorum(
      tl::unexpected(Failed{Failure::silent, Error{Code::timeout, "no answer", {}, {}, true}, {}}),
      sentinel);
  CHECK_FALSE(sentinel.has_quorum.has_value());
}

}  // namespace
}  // namespace zx::redis
