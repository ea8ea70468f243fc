#include "lib/backup/pg_globals.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::backup {
namespace {

bool is_word(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return std::isalnum(byte) != 0 || c == '_' || c == '$' || byte >= 0x80;
}
bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

struct Token {
  enum class Kind { word, name, literal, sign } kind;
  std::string text;   // a name without its quotes; a word in small letters, as SQL takes it
  std::string upper;  // of a word
};

// One statement after the other, each without its comments.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  // False at the end of the text.
  Result<bool> next(std::string& sql, std::vector<Token>& tokens) {
    sql.clear();
    tokens.clear();
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (is_space(c)) {
        if (!sql.empty()) sql += c;
        ++at_;
      } else if (starts("--")) {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (c == ';') {
        ++at_;
        if (!tokens.empty()) return true;
      } else if (c == '\\') {
        ZX_TRY(skip_restriction(tokens.empty()));
      } else {
        const auto begin = at_;
        ZX_ASSIGN(auto token, read());
        sql += text_.substr(begin, at_ - begin);
        tokens.push_back(std::move(token));
      }
    }
    if (!tokens.empty()) return bad("a statement that does not end", text_.size());
    return false;
  }

 private:
  [[nodiscard]] bool starts(std::string_view what) const {
    return text_.substr(at_).starts_with(what);
  }
  [[nodiscard]] tl::unexpected<Error> bad(const char* what, std::size_t at) const {
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    return fail(Code::failed, fmt::format("{} in line {} of the globals", what, line),
                "this is not as pg_dumpall wrote it");
  }
  Status skip_restriction(bool is_between) {
    if (!is_between || !(starts("\\restrict ") || starts("\\unrestrict ")))
      return bad("a command of psql", at_);
    at_ = std::min(text_.find('\n', at_), text_.size());
    return {};
  }

  Result<Token> read() {
    const char c = text_[at_];
    if (c == '"') {
      ZX_ASSIGN(auto name, quoted_by('"', false));
      return Token{Token::Kind::name, std::move(name), {}};
    }
    if (c == '\'' || ((c == 'E' || c == 'e') && at_ + 1 < text_.size() && text_[at_ + 1] == '\'')) {
      const bool has_escapes = c != '\'';
      if (has_escapes) ++at_;
      ZX_ASSIGN(auto literal, quoted_by('\'', has_escapes));
      return Token{Token::Kind::literal, std::move(literal), {}};
    }
    if (!is_word(c)) {
      ++at_;
      return Token{Token::Kind::sign, std::string(1, c), {}};
    }
    const auto begin = at_;
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
    Token token{Token::Kind::word, std::string(text_.substr(begin, at_ - begin)), {}};
    token.upper = token.text;
    for (auto& letter : token.upper)
      letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
    token.text = lower(token.text);
    return token;
  }

  Result<std::string> quoted_by(char quote, bool has_escapes) {
    const auto begin = at_++;
    std::string inner;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == quote) {
        if (at_ >= text_.size() || text_[at_] != quote) return inner;
        ++at_;
      } else if (c == '\\' && has_escapes && at_ < text_.size()) {
        inner += c;
        inner += text_[at_++];
        continue;
      }
      inner += c;
    }
    return bad("a quote that does not end", begin);
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

GlobalStatement described(std::string sql, const std::vector<Token>& tokens) {
  using About = GlobalStatement::About;
  GlobalStatement out;
  out.sql = std::move(sql);
  const auto word = [&](std::size_t i) {
    return i < tokens.size() ? std::string_view(tokens[i].upper) : std::string_view();
  };
  const auto find = [&](std::string_view wanted) {
    std::size_t i = 0;
    while (i < tokens.size() && word(i) != wanted) ++i;
    return i;
  };
  const auto role = [&](std::size_t i) {
    if (i < tokens.size()) out.roles.push_back(tokens[i].text);
  };
  const auto first = word(0);
  if (first == "SET") {
    out.about = About::session;
  } else if (first == "CREATE" || first == "ALTER") {
    if (word(1) == "TABLESPACE") out.about = About::tablespace;
    if (word(1) == "ROLE" || word(1) == "USER") {
      out.about = About::role;
      out.makes_role = first == "CREATE";
      role(2);
    }
  } else if (first == "COMMENT" || first == "SECURITY") {
    const auto on = find("ON");
    if (word(on + 1) == "TABLESPACE") out.about = About::tablespace;
    if (word(on + 1) == "ROLE") {
      out.about = About::role;
      role(on + 2);
    }
  } else if (first == "GRANT" || first == "REVOKE") {
    const auto on = find("ON");
    const auto to = std::min(find("TO"), find("FROM"));
    if (on == tokens.size()) {
      out.about = About::membership;
      role(1);
    } else {
      out.about = word(on + 1) == "TABLESPACE" ? About::tablespace : About::privilege;
    }
    role(to + 1);
  }
  return out;
}

}  // namespace

Result<std::vector<GlobalStatement>> statements_of(std::string_view globals) {
  Lexer lexer(globals);
  std::vector<GlobalStatement> all;
  std::string sql;
  std::vector<Token> tokens;
  while (true) {
    ZX_ASSIGN(const bool is_there, lexer.next(sql, tokens));
    if (!is_there) return all;
    all.push_back(described(sql, tokens));
  }
}

}  // namespace zx::backup
