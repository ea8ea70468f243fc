#include "lib/pg/sync_names.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::pg {
namespace {

// Splits into words, "quoted words" (kept apart by a leading '"'), and the signs ( ) ,
Result<std::vector<std::string>> tokens_of(std::string_view text) {
  std::vector<std::string> tokens;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      ++i;
    } else if (c == '(' || c == ')' || c == ',') {
      tokens.emplace_back(1, c);
      ++i;
    } else if (c == '"') {
      std::string word = "\"";
      for (++i;; ++i) {
        if (i >= text.size())
          return fail(Code::server, "synchronous_standby_names: a quote is not closed");
        if (text[i] == '"') {
          if (i + 1 < text.size() && text[i + 1] == '"')
            ++i;
          else
            break;
        }
        word += text[i];
      }
      ++i;
      tokens.push_back(word);
    } else {
      const auto end = std::min(text.find_first_of(" \t\n\r(),\"", i), text.size());
      tokens.emplace_back(text.substr(i, end - i));
      i = end;
    }
  }
  return tokens;
}

std::optional<int> number_of(const std::string& token) {
  int value = 0;
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), value);
  if (error != std::errc{} || end != token.data() + token.size() || value < 1) return std::nullopt;
  return value;
}

}  // namespace

bool SyncNames::lists(std::string_view application_name) const {
  // PostgreSQL compares without case (pg_strcasecmp).
  const auto wanted = lower(application_name);
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return name == "*" || lower(name) == wanted; });
}

Result<SyncNames> parse_sync_names(std::string_view text) {
  ZX_ASSIGN(const auto tokens, tokens_of(text));
  SyncNames out;
  if (tokens.empty()) return out;
  const auto wrong = [&] {
    return fail(Code::server,
                "synchronous_standby_names is not understood: \"" + first_line(text) + "\"");
  };
  std::size_t at = 0;
  out.method = SyncNames::Method::first;
  out.count = 1;
  bool grouped = false;
  if (tokens.size() > 2) {
    const auto word = lower(tokens[0]);
    if ((word == "any" || word == "first") && number_of(tokens[1]) && tokens[2] == "(") {
      out.method = word == "any" ? SyncNames::Method::any : SyncNames::Method::first;
      out.count = *number_of(tokens[1]);
      at = 3;
      grouped = true;
    } else if (number_of(tokens[0]) && tokens[1] == "(") {
      out.count = *number_of(tokens[0]);
      at = 2;
      grouped = true;
    }
  }
  bool name_expected = true;
  for (; at < tokens.size(); ++at) {
    const auto& token = tokens[at];
    if (token == ")" && grouped && !name_expected && at + 1 == tokens.size()) return out;
    if (token == "(" || token == ")") return wrong();
    if (token == ",") {
      if (name_expected) return wrong();
      name_expected = true;
      continue;
    }
    if (!name_expected) return wrong();
    out.names.push_back(token.front() == '"' ? token.substr(1) : token);
    name_expected = false;
  }
  if (name_expected || grouped) return wrong();
  return out;
}

std::string to_string(const SyncNames& names) {
  if (names.method == SyncNames::Method::none || names.names.empty()) return "";
  std::vector<std::string> quoted;
  for (const auto& name : names.names) {
    std::string word;
    for (const char c : name) {
      if (c == '"') word += '"';
      word += c;
    }
    quoted.push_back(name == "*" ? "*" : "\"" + word + "\"");
  }
  return fmt::format("{} {} ({})", names.method == SyncNames::Method::any ? "ANY" : "FIRST",
                     names.count, join(quoted, ", "));
}

SyncNames after_promotion(const SyncNames& before, const std::string& old_primary,
                          const std::string& promoted, const std::vector<std::string>& alive,
                          bool strict) {
  if (before.method == SyncNames::Method::none) return before;
  SyncNames after = before;
  // Where the promoted one was counted, the old primary is from now on, at the same place in the
  // order. A list that names both stays: nobody waits for itself.
  const auto is_promoted = [&](const std::string& name) { return lower(name) == lower(promoted); };
  if (!before.lists("*") && (old_primary.empty() || !before.lists(old_primary))) {
    if (old_primary.empty())
      std::erase_if(after.names, is_promoted);
    else
      std::replace_if(after.names.begin(), after.names.end(), is_promoted, old_primary);
  }
  int able = 0;
  for (const auto& name : alive)
    if (name != promoted && after.lists(name)) ++able;
  if (!strict) after.count = std::min(after.count, able);
  if (after.count == 0 || after.names.empty()) return {};
  return after;
}

}  // namespace zx::pg
