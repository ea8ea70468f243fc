// Answers 204 to every request, until a signal ends it: what is left is the cost of zx's HTTP
// server itself.
//
//   http_204 WHERE        "127.0.0.1:0", "[::1]:9180" or "unix:/path"
//
// Prints the port when it listens.
#include <cstdio>

#include "lib/net/http_server.h"

int main(int count, char** words) {
  if (count != 2) {
    std::fputs("usage: http_204 WHERE\n", stderr);
    return 2;
  }
  zx::net::Loop loop;
  const auto server =
      zx::net::HttpServer::listen(loop, words[1], zx::net::HttpLimits{},
                                  [](const zx::net::HttpRequest&, zx::net::HttpReply reply) {
                                    zx::net::HttpResponse response;
                                    response.status = 204;
                                    reply(std::move(response));
                                  });
  if (!server) {
    std::fprintf(stderr, "http_204: %s\n", server.error().message.c_str());
    return 1;
  }
  std::printf("%d\n", (*server)->port());
  std::fflush(stdout);
  loop.run();
}
