// The statements of a dump of globals (pg_dumpall --globals-only). They are taken apart here and
// not by psql, which obeys commands such as \! in a file that somebody changed. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/error.h"

namespace zx::backup {

struct GlobalStatement {
  enum class About {
    session,     // SET …
    role,        // CREATE, ALTER, COMMENT ON, SECURITY LABEL … ROLE; `roles` has its name
    membership,  // GRANT a TO b; `roles` has both
    privilege,   // GRANT … ON …; `roles` has the grantee
    tablespace,
    other,
  };
  About about = About::other;
  bool makes_role = false;  // CREATE ROLE
  std::vector<std::string> roles;
  std::string sql;
};

// Code::failed, naming the line, for what does not end or is a command of psql; \restrict and
// \unrestrict, which pg_dumpall writes against such commands, are left out.
[[nodiscard]] Result<std::vector<GlobalStatement>> statements_of(std::string_view globals);

}  // namespace zx::backup
