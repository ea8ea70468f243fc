// Private to this room: requests out of a stream of bytes, without I/O.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lib/net/http_server.h"

namespace zx::net {

// One buffer of fixed size, in which a request stays where it is until next().
class HttpReader {
 public:
  HttpReader(std::size_t header_bytes, std::size_t body_bytes);
  ~HttpReader();
  HttpReader(const HttpReader&) = delete;
  HttpReader& operator=(const HttpReader&) = delete;

  // Where the next bytes go, and how many came. Never empty after `more`.
  [[nodiscard]] std::span<char> room();
  void filled(std::size_t count);
  // The whole buffer, for bytes that nobody will parse.
  [[nodiscard]] std::span<char> scrap();

  enum class Step { more, ready, refused };
  // As far as the bytes reach. After `refused` nothing more can be read from this stream.
  Step parse();
  [[nodiscard]] HttpRequest& request();
  [[nodiscard]] int refusal() const;                   // status
  [[nodiscard]] std::string_view why_refused() const;  // a short sentence for the client
  [[nodiscard]] bool keep_alive() const;               // of a ready request
  // The headers are there and the client waits for a word before it sends the body. True once.
  [[nodiscard]] bool take_continue();
  // Forgets the ready request; the bytes after it stay.
  void next();
  // Not a byte of the next request has come.
  [[nodiscard]] bool is_idle() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::net
