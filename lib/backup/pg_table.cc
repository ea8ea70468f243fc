#include "lib/backup/pg_table.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/backup/pg_load.h"
#include "lib/base/text.h"
#include "lib/pg/connection.h"

namespace zx::backup {
namespace {

constexpr std::string_view kMarker = "zx restore ";
constexpr std::string_view kOrphans = "; referred to nothing: ";

struct Part {
  std::string text;
  bool is_quoted = false;
};

// The parts of a name between dots; empty when its quotes do not fit.
std::vector<Part> parts_of(const std::string& name) {
  std::vector<Part> parts(1);
  bool in_quotes = false;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    auto& part = parts.back();
    if (in_quotes && c == '"' && i + 1 < name.size() && name[i + 1] == '"') {
      part.text += c;
      ++i;
    } else if (in_quotes && c == '"') {
      in_quotes = false;
      if (i + 1 < name.size() && name[i + 1] != '.') return {};
    } else if (in_quotes) {
      part.text += c;
    } else if (c == '"') {
      if (!part.text.empty() || part.is_quoted) return {};
      in_quotes = part.is_quoted = true;
    } else if (c == '.') {
      parts.emplace_back();
    } else {
      part.text += c;
    }
  }
  const bool has_empty =
      std::any_of(parts.begin(), parts.end(), [](const Part& part) { return part.text.empty(); });
  return in_quotes || has_empty ? std::vector<Part>{} : parts;
}

bool means(const Part& part, const std::string& name, bool folded) {
  if (part.text == name) return true;
  return folded && !part.is_quoted && lower(part.text) == name;
}

bool means(const std::vector<Part>& parts, const TableId& table, bool folded) {
  if (parts.size() == 1) return means(parts[0], table.name, folded);
  return parts.size() == 2 && means(parts[0], table.schema, folded) &&
         means(parts[1], table.name, folded);
}

std::string oids_of(const std::vector<TableId>& tables) {
  std::vector<std::string> names;
  for (const auto& table : tables) names.push_back(pg::quote_literal(sql_name(table)));
  return fmt::format("ARRAY[{}]::regclass[]", join(names, ", "));
}

// "(a, b)" of those that may be given a value; empty when there are none.
std::string column_list(const std::vector<Column>& columns) {
  std::vector<std::string> names;
  for (const auto& column : columns)
    if (!column.is_generated) names.push_back(quote_name(column.name));
  return join(names, ", ");
}
std::string in_brackets(const std::string& list) { return list.empty() ? "" : " (" + list + ")"; }

std::string comment_sql(const TableId& table, const std::string& says) {
  return fmt::format("COMMENT ON TABLE {} IS {}", sql_name(kept_table(table)),
                     pg::quote_literal(says));
}

}  // namespace

Result<TableId> table_id(const std::string& quoted) {
  const auto parts = parts_of(quoted);
  if (parts.size() != 2)
    return fail(Code::failed, "not the name of a table: " + clean_utf8(first_line(quoted)));
  return TableId{parts[0].text, parts[1].text};
}

std::string sql_name(const TableId& table) {
  return quote_name(table.schema) + "." + quote_name(table.name);
}
std::string shown(const TableId& table) {
  return clean_utf8(first_line(table.schema + "." + table.name));
}
TableId kept_table(const TableId& table) { return {table.schema, table.name + "_zxold"}; }

std::string kept_shown(const std::string& quoted) {
  const auto table = table_id(quoted);
  return table ? shown(kept_table(*table)) : quoted;
}

Result<TableRows> find_table(const std::vector<TableRows>& tables, const std::string& wish) {
  const auto parts = parts_of(wish);
  std::vector<std::string> names;
  for (const bool folded : {false, true}) {
    std::vector<std::pair<TableId, const TableRows*>> found;
    for (const auto& one : tables) {
      ZX_ASSIGN(auto id, table_id(one.table));
      if (!folded) names.push_back(id.schema == "public" ? id.name : shown(id));
      if (means(parts, id, folded) || (!folded && id.name == wish)) found.emplace_back(id, &one);
    }
    if (found.size() > 1)
      std::stable_partition(found.begin(), found.end(),
                            [](const auto& one) { return one.first.schema == "public"; });
    const bool is_clear =
        found.size() == 1 || (found.size() > 1 && found[0].first.schema == "public" &&
                              found[1].first.schema != "public");
    if (is_clear) return *found.front().second;
    if (found.empty()) continue;
    std::vector<std::string> which;
    for (const auto& [id, rows] : found) which.push_back(shown(id));
    return fail(Code::usage,
                fmt::format("{} may be {}", clean_utf8(first_line(wish)), join(which, " or ")),
                "name its schema: --table SCHEMA.TABLE");
  }
  const auto near = nearest(wish, names);
  return fail(Code::not_found, "no table " + clean_utf8(first_line(wish)),
              near.empty() ? "" : "did you mean " + near + "?");
}

std::string marker(const std::string& run, bool had_table, const Orphans& before) {
  auto text =
      fmt::format("{}{}: {}", kMarker, run,
                  had_table ? "the rows that were there before" : "there was no table before");
  if (!before.empty()) text += std::string(kOrphans) + dump_line(Json(before));
  return text;
}

std::string run_of_marker(const std::string& comment) {
  const auto end = comment.find(": ");
  if (!comment.starts_with(kMarker) || end == std::string::npos) return {};
  return comment.substr(kMarker.size(), end - kMarker.size());
}

Orphans orphans_of_marker(const std::string& comment) {
  const auto at = comment.find(kOrphans);
  if (run_of_marker(comment).empty() || at == std::string::npos) return {};
  const auto json = parse_json(std::string_view(comment).substr(at + kOrphans.size()), "a marker");
  Orphans orphans;
  if (json && json->is_object())
    for (const auto& [key, count] : json->items()) orphans[key] = get_int(*json, key.c_str());
  return orphans;
}

std::string look_sql(const TableId& table) {
  return fmt::format(
      "SELECT (SELECT relkind FROM pg_class WHERE oid = it), kept IS NOT NULL,"
      " obj_description(kept, 'pg_class') FROM (SELECT to_regclass({}) AS it,"
      " to_regclass({}) AS kept) t",
      pg::quote_literal(sql_name(table)), pg::quote_literal(sql_name(kept_table(table))));
}

TableNow now_of(const std::vector<std::optional<std::string>>& row) {
  TableNow now;
  const auto kind = row.at(0).value_or("");
  if (!kind.empty()) now.kind = kind.front();
  now.has_kept = row.at(1) == "t";
  now.kept_by = run_of_marker(row.at(2).value_or(""));
  now.orphans = orphans_of_marker(row.at(2).value_or(""));
  return now;
}

std::string columns_sql(const TableId& table) {
  return fmt::format(
      "SELECT attname, format_type(atttypid, atttypmod), attgenerated <> '' FROM pg_attribute"
      " WHERE attrelid = {}::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
      pg::quote_literal(sql_name(table)));
}

std::vector<std::string> columns_differ(const std::vector<Column>& server,
                                        const std::vector<Column>& other,
                                        const std::string& name_of_other) {
  const auto find = [](const std::vector<Column>& all, const std::string& name) {
    return std::find_if(all.begin(), all.end(),
                        [&](const Column& one) { return one.name == name; });
  };
  const auto like = [](const Column& column) {
    return column.type + (column.is_generated ? ", generated" : "");
  };
  std::vector<std::string> words;
  for (const auto& column : server) {
    const auto at = find(other, column.name);
    if (at == other.end())
      words.push_back(fmt::format("{} has no column {}", name_of_other, column.name));
    else if (!(*at == column))
      words.push_back(fmt::format("column {} is {}, in {} {}", column.name, like(column),
                                  name_of_other, like(*at)));
  }
  for (const auto& column : other)
    if (find(server, column.name) == server.end())
      words.push_back(fmt::format("column {} is only in {}", column.name, name_of_other));
  return words;
}

std::string lock_sql(const std::vector<TableId>& tables) {
  std::vector<std::string> names;
  for (const auto& table : tables) names.push_back("ONLY " + sql_name(table));
  return fmt::format("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", join(names, ", "));
}

std::string keep_sql(const TableId& table, const std::string& run, const Orphans& before) {
  return fmt::format(
      "CREATE TABLE {0} (LIKE {1}); INSERT INTO {0} SELECT * FROM ONLY {1}; {2};"
      " DELETE FROM ONLY {1}",
      sql_name(kept_table(table)), sql_name(table), comment_sql(table, marker(run, true, before)));
}

std::string keep_none_sql(const TableId& table, const std::string& run) {
  return fmt::format("CREATE TABLE {} (); {}", sql_name(kept_table(table)),
                     comment_sql(table, marker(run, false)));
}

std::string copy_out_sql(const TableId& table, const std::vector<Column>& columns) {
  return fmt::format("COPY {}{} TO STDOUT", sql_name(table), in_brackets(column_list(columns)));
}
std::string copy_in_sql(const TableId& table, const std::vector<Column>& columns) {
  return fmt::format("COPY {}{} FROM STDIN", sql_name(table), in_brackets(column_list(columns)));
}

std::string bring_back_sql(const TableId& table, const std::vector<Column>& columns) {
  const auto list = column_list(columns);
  return fmt::format(
      "DELETE FROM ONLY {0}; INSERT INTO {0}{1} OVERRIDING SYSTEM VALUE SELECT {2}"
      " FROM {3}",
      sql_name(table), in_brackets(list), list, sql_name(kept_table(table)));
}

// A key that refers to a partitioned table has a row for each of its partitions too, below its own.
std::string foreign_keys_sql(const std::vector<TableId>& tables) {
  return fmt::format(
      "WITH mine AS (SELECT m.oid::oid AS oid, m.at FROM unnest({}) WITH ORDINALITY AS"
      " m(oid, at)),"
      " referred AS (SELECT oid FROM mine UNION SELECT up.relid::oid FROM mine,"
      " pg_partition_ancestors(mine.oid::regclass) AS up(relid))"
      " SELECT k.oid, k.conname, k.conrelid::regclass, f.relkind = 'p', k.confrelid::regclass,"
      " t.relkind = 'p', k.confmatchtype = 'f', quote_ident(fa.attname), quote_ident(ta.attname),"
      " format('OPERATOR(%I.%s)', n.nspname, o.oprname),"
      " k.conrelid IN (SELECT oid FROM mine), (SELECT string_agg((mine.at - 1)::text, ',') FROM"
      " mine WHERE mine.oid = k.confrelid OR k.confrelid IN"
      " (SELECT up.relid::oid FROM pg_partition_ancestors(mine.oid::regclass) AS up(relid)))"
      " FROM pg_constraint k JOIN pg_class f ON f.oid = k.conrelid"
      " JOIN pg_class t ON t.oid = k.confrelid"
      " CROSS JOIN LATERAL unnest(k.conkey, k.confkey, k.conpfeqop) WITH ORDINALITY"
      " AS pair(fno, tno, op, at)"
      " JOIN pg_attribute fa ON fa.attrelid = f.oid AND fa.attnum = pair.fno"
      " JOIN pg_attribute ta ON ta.attrelid = t.oid AND ta.attnum = pair.tno"
      " JOIN pg_operator o ON o.oid = pair.op JOIN pg_namespace n ON n.oid = o.oprnamespace"
      " WHERE k.contype = 'f' AND k.convalidated"
      " AND ((k.conrelid IN (SELECT oid FROM mine) AND NOT EXISTS (SELECT FROM pg_constraint up"
      " WHERE up.oid = k.conparentid AND up.conrelid = k.conrelid))"
      " OR (k.confrelid IN (SELECT oid FROM referred) AND k.conparentid = 0))"
      " ORDER BY k.oid, pair.at",
      oids_of(tables));
}

std::vector<ForeignKey> foreign_keys_of(
    const std::vector<std::vector<std::optional<std::string>>>& rows) {
  std::vector<ForeignKey> keys;
  std::string oid;
  for (const auto& row : rows) {
    const auto text = [&](std::size_t at) { return row.at(at).value_or(""); };
    if (text(0) != oid) {
      oid = text(0);
      keys.push_back({text(1),
                      text(2),
                      text(4),
                      text(3) == "t",
                      text(5) == "t",
                      text(6) == "t",
                      {},
                      text(10) == "t",
                      {}});
      for (const auto& at : split(text(11), ','))
        if (!at.empty()) keys.back().to_asked.push_back(std::stoull(at));
    }
    keys.back().pairs.push_back({text(7), text(8), text(9)});
  }
  return keys;
}

std::string id_of(const ForeignKey& key) { return key.of + " " + key.name; }

std::string orphans_sql(const ForeignKey& key, const std::vector<TableId>& kept) {
  std::vector<std::string> known, equal, columns, were;
  for (const auto& pair : key.pairs) {
    columns.push_back(pair.to);
    known.push_back(fmt::format("f.{} IS NOT NULL", pair.of));
    equal.push_back(fmt::format("t.{} {} f.{}", pair.to, pair.equals, pair.of));
  }
  // MATCH SIMPLE: a row with a NULL refers to nothing. MATCH FULL: only one that is all NULL.
  // Partitions may have their columns in another order.
  for (const auto& table : kept)
    were.push_back(fmt::format("SELECT {} FROM ONLY {}", join(columns, ", "), sql_name(table)));
  const auto equals = join(equal, " AND ");
  return fmt::format(
      "SELECT count(*) FROM {}{} f WHERE ({}) AND NOT EXISTS (SELECT FROM {}{} t WHERE {}){}",
      key.of_partitions ? "" : "ONLY ", key.of, join(known, key.is_full ? " OR " : " AND "),
      key.to_partitions ? "" : "ONLY ", key.to, equals,
      were.empty() ? ""
                   : fmt::format(" AND EXISTS (SELECT FROM ({}) t WHERE {})",
                                 join(were, " UNION ALL "), equals));
}

std::string always_acting_sql(const std::vector<TableId>& tables) {
  constexpr const char* kForm =
      "SELECT format('ALTER TABLE %s DISABLE {0} %I', {1}::regclass, {2}),"
      " format('ALTER TABLE %s ENABLE %s {0} %I', {1}::regclass,"
      " CASE {3} WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END, {2})"
      " FROM {4} WHERE {1} = ANY({5}::oid[]) AND {3} IN ('A', 'R')";
  const auto oids = oids_of(tables);
  return fmt::format(fmt::runtime(kForm), "TRIGGER", "tgrelid", "tgname", "tgenabled", "pg_trigger",
                     oids) +
         " AND NOT tgisinternal UNION ALL " +
         fmt::format(fmt::runtime(kForm), "RULE", "ev_class", "rulename", "ev_enabled",
                     "pg_rewrite", oids);
}

std::string sequences_sql(const std::vector<TableId>& tables) {
  return fmt::format(
      "SELECT format('SELECT setval(%L, most) FROM (SELECT %s(%I) AS most FROM ONLY %s) m, %s s"
      " WHERE most BETWEEN %s AND %s AND (most %s last_value OR most = last_value AND NOT"
      " is_called)', s.seqrelid::regclass, CASE WHEN s.seqincrement > 0 THEN 'max' ELSE 'min' END,"
      " a.attname, d.refobjid::regclass, s.seqrelid::regclass, s.seqmin, s.seqmax,"
      " CASE WHEN s.seqincrement > 0 THEN '>' ELSE '<' END)"
      " FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid"
      " JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"
      " WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass"
      " AND d.deptype IN ('a', 'i') AND d.refobjid = ANY({}::oid[])"
      " AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)",
      oids_of(tables));
}

std::string referrers_sql(const std::vector<TableId>& tables) {
  const auto oids = oids_of(tables);
  return fmt::format(
      "SELECT conrelid::regclass, quote_ident(conname), pg_get_constraintdef(oid)"
      " FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 AND confrelid = ANY({0}::oid[])"
      " AND conrelid <> ALL({0}::oid[]) ORDER BY 1, 2",
      oids);
}

}  // namespace zx::backup
