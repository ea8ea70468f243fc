// HTTP requests that wait for their answer, for threads of their own: nothing here belongs on a
// Loop.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/units.h"

namespace zx::net {

struct HttpFetch {
  std::string method = "GET";
  std::string url;  // http or https
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  Millis connect_timeout{2'000};  // name lookup and TLS included
  Millis timeout{10'000};         // of all
  std::string unix_socket;        // connects there, whatever host the URL names
  std::string ca_file;            // PEM; empty: the system's
  std::string cert_file;          // PEM, of this client
  std::string key_file;           // PEM
  std::string username;           // HTTP basic, when not empty
  std::string password;
  std::size_t response_limit = 4u << 20;  // bytes of the body
};

struct HttpFetched {
  int status = 0;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // of the last response, as sent

  // The first of that name, in whatever case; empty when there is none.
  [[nodiscard]] std::string_view header(std::string_view name) const;
};

// Keeps connections open between fetches. For one thread at a time.
class HttpClient {
 public:
  HttpClient();
  ~HttpClient();
  HttpClient(HttpClient&& other) noexcept;
  HttpClient& operator=(HttpClient&& other) noexcept;

  // Any status is an answer, also 404 and 500. No redirect is followed, no proxy of the environment
  // used. Errors name the host: unreachable, timeout, auth (a certificate that is not trusted, on
  // either side), config (a URL or a certificate file that cannot be used), failed (an answer over
  // the limit). A name lookup that hangs ends with the timeout too.
  [[nodiscard]] Result<HttpFetched> fetch(const HttpFetch& request);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::net
