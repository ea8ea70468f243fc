#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "lib/base/text.h"
#include "lib/pg/conninfo.h"
#include "lib/pg/facts_query.h"
#include "lib/pg/lineage.h"
#include "lib/pg/sync_names.h"
#include "lib/pg/wal_tools.h"

namespace {

void sync_names(const std::string& text) {
  const auto names = zx::pg::parse_sync_names(text);
  if (!names) return;
  const auto again = zx::pg::parse_sync_names(zx::pg::to_string(*names));
  if (!again || zx::pg::to_string(*again) != zx::pg::to_string(*names)) std::abort();
}

void conninfo(const std::string& text) {
  const auto parsed = zx::pg::parse_conninfo(text);
  if (!parsed) return;
  const auto again = zx::pg::parse_conninfo(zx::pg::to_string(*parsed));
  if (!again || *again != *parsed) std::abort();
}

}  // namespace

// What servers and their tools say, each by the parser that the first byte chooses.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 6) {
    case 0: {
      zx::pg::NodeFacts facts;
      zx::pg::Row row;  // one column a line
      for (auto& column : zx::split(text, '\n')) row.emplace_back(std::move(column));
      if (zx::pg::read_facts(row, facts)) (void)zx::dump_line(zx::pg::to_json(facts));
      break;
    }
    case 1: (void)zx::pg::parse_history(text); break;
    case 2: sync_names(text); break;
    case 3: conninfo(text); break;
    case 4: (void)zx::pg::classify(zx::pg::parse_message(text)); break;
    default: (void)zx::pg::end_in_words(text, zx::Lsn{1}); break;
  }
  return 0;
}
