// Errors as values. Every fallible function of zx returns Result<T>; exceptions
// of libraries are caught in the room that wraps the library.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

namespace zx {

// One code a kind of failure. The table in error.cc gives each its stable JSON
// name, its exit status and the sentence of the man page.
enum class Code {
  internal,     // a broken promise inside zx itself
  failed,       // tried, did not work, everything undone
  usage,        // the command line
  refused,      // a guard says that it is not safe
  partial,      // partly applied; a run id says how to go on
  locked,       // another run holds the lock
  config,       // zx.toml or what it refers to
  unreachable,  // refused, no route, name not resolved
  timeout,      // a deadline passed
  auth,         // wrong password, no such role, no permission
  declined,     // the operator said no, or could not be asked
  findings,     // differences or findings exist
  older_set,    // restored, but of an older set than the newest, which is damaged
  io,           // a file or directory
  disk_full,    // no space where zx must write before it acts
  not_found,    // a named thing does not exist
  not_a_data_directory,
  starting_up,  // the server runs but does not accept connections yet
  shutting_down,
  too_many_connections,
  server,       // the server answered with an error
  interrupted,  // SIGINT
  terminated,   // SIGTERM
};

struct CodeInfo {
  Code code;
  std::string_view name;     // in JSON, stable
  int exit;                  // exit status of a command that ends with it
  std::string_view meaning;  // for the man page
};

[[nodiscard]] const CodeInfo& info(Code code);
[[nodiscard]] std::span<const CodeInfo> all_codes();
[[nodiscard]] Code code_from_name(std::string_view name);  // Code::internal when unknown

// `message` says what failed: lower case, no full stop. `hint` says what to do
// next. `trail` holds "while …" lines, innermost first.
struct Error {
  Code code = Code::internal;
  std::string message;
  std::string hint;
  std::vector<std::string> trail;
  bool retryable = false;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

[[nodiscard]] inline tl::unexpected<Error> fail(Code code, std::string message,
                                                std::string hint = {}) {
  return tl::unexpected<Error>(Error{code, std::move(message), std::move(hint), {}, false});
}
[[nodiscard]] inline tl::unexpected<Error> fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}
// The same error with one more line of its trail.
[[nodiscard]] inline tl::unexpected<Error> fail_while(Error error, std::string what) {
  error.trail.push_back("while " + std::move(what));
  return tl::unexpected<Error>(std::move(error));
}
// `message` of errno `number` in front of a subject: "cannot open /x: No such file".
[[nodiscard]] Error errno_error(Code code, std::string_view what, int number);

}  // namespace zx

// Returns the error of `expression` (a Result or Status) from the function.
#define ZX_TRY(expression)                                          \
  do {                                                              \
    auto zx_try_result_ = (expression);                             \
    if (!zx_try_result_) return ::zx::fail(zx_try_result_.error()); \
  } while (false)

#define ZX_CONCAT_2(a, b) a##b
#define ZX_CONCAT(a, b) ZX_CONCAT_2(a, b)
// ZX_ASSIGN(auto value, expression): declares `value` or returns the error.
#define ZX_ASSIGN(declaration, expression)                                 \
  auto ZX_CONCAT(zx_result_, __LINE__) = (expression);                     \
  if (!ZX_CONCAT(zx_result_, __LINE__))                                    \
    return ::zx::fail(std::move(ZX_CONCAT(zx_result_, __LINE__)).error()); \
  declaration = *std::move(ZX_CONCAT(zx_result_, __LINE__))
