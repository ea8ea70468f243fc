#include "lib/net/http_client.h"

#include <curl/curl.h>
#include <fcntl.h>

#include <mutex>

#include "lib/base/text.h"

namespace zx::net {
namespace {

struct ListEnd {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using List = std::unique_ptr<curl_slist, ListEnd>;

// Of one transfer.
struct Reading {
  HttpFetched answer;
  std::size_t limit = 0;
  bool is_too_big = false;
};

std::size_t on_body(char* data, std::size_t, std::size_t count, void* user) {
  auto& reading = *static_cast<Reading*>(user);
  if (count > reading.limit - reading.answer.body.size()) {
    reading.is_too_big = true;
    return 0;
  }
  reading.answer.body.append(data, count);
  return count;
}

std::size_t on_header(char* data, std::size_t, std::size_t count, void* user) {
  auto& headers = static_cast<Reading*>(user)->answer.headers;
  const std::string_view line = trim({data, count});
  if (line.starts_with("HTTP/")) headers.clear();  // after a 100
  const auto colon = line.find(':');
  if (colon != std::string_view::npos && headers.size() < 256)
    headers.emplace_back(line.substr(0, colon), trim(line.substr(colon + 1)));
  return count;
}

// A child of this process must not keep the connection.
int on_socket(void*, curl_socket_t socket, curlsocktype) {
  return fcntl(socket, F_SETFD, FD_CLOEXEC) == 0 ? CURL_SOCKOPT_OK : CURL_SOCKOPT_ERROR;
}

// "etcd-1:2379", never with a user or a password.
std::string host_of(const std::string& url) {
  const std::unique_ptr<CURLU, void (*)(CURLU*)> parsed(curl_url(), curl_url_cleanup);
  if (!parsed || curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) return {};
  std::string host;
  for (const auto part : {CURLUPART_HOST, CURLUPART_PORT}) {
    char* text = nullptr;
    if (curl_url_get(parsed.get(), part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return {};
    if (!host.empty()) host += ':';
    host += text;
    curl_free(text);
  }
  return host;
}

std::string without_user(const std::string& url) {
  const auto at = url.rfind('@');
  return first_line(at == std::string::npos ? url : url.substr(at + 1));
}

Code code_of(CURLcode result) {
  switch (result) {
    case CURLE_OPERATION_TIMEDOUT: return Code::timeout;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_LOGIN_DENIED: return Code::auth;
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL: return Code::config;
    case CURLE_OUT_OF_MEMORY:
    case CURLE_FAILED_INIT: return Code::internal;
    default: return Code::unreachable;
  }
}

Error error_of(CURLcode result, const char* details, const HttpFetch& request,
               const Reading& reading) {
  const auto host = request.unix_socket.empty() ? host_of(request.url) : request.unix_socket;
  const auto where = host.empty() ? "the URL \"" + without_user(request.url) + "\"" : host;
  if (reading.is_too_big)
    return {Code::failed,
            where + " answers more than " + format_bytes(request.response_limit),
            {},
            {},
            false};
  auto code = code_of(result);
  // What an answer that is not HTTP ends with too.
  if (result == CURLE_UNSUPPORTED_PROTOCOL && request.url.starts_with("http"))
    code = Code::unreachable;
  auto why = first_line(details[0] != '\0' ? details : curl_easy_strerror(result));
  if (code == Code::timeout) why = "no answer within " + format_duration(request.timeout);
  const bool is_passing = code == Code::timeout || code == Code::unreachable;
  return {code, where + ": " + why, {}, {}, is_passing};
}

Result<List> headers_of(const HttpFetch& request) {
  List list;
  const auto add = [&](const std::string& line) {
    curl_slist* longer = curl_slist_append(list.get(), line.c_str());
    if (longer == nullptr) return false;
    (void)list.release();
    list.reset(longer);
    return true;
  };
  // No 100-continue: a server without it costs a second.
  bool ok = add("Expect:");
  for (const auto& [name, value] : request.headers) {
    if ((name + value).find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos)
      return fail(Code::internal, "a line end in an HTTP header");
    ok = ok && add(value.empty() ? name + ";" : name + ": " + value);
  }
  if (!ok) return fail(Code::internal, "no memory for HTTP headers");
  return list;
}

}  // namespace

std::string_view HttpFetched::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (lower(key) == lower(name)) return value;
  return {};
}

struct HttpClient::Impl {
  std::unique_ptr<CURL, void (*)(CURL*)> handle{nullptr, curl_easy_cleanup};
};

HttpClient::HttpClient() : impl_(std::make_unique<Impl>()) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  impl_->handle.reset(curl_easy_init());
}
HttpClient::~HttpClient() = default;
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;

Result<HttpFetched> HttpClient::fetch(const HttpFetch& request) {
  CURL* curl = impl_->handle.get();
  if (curl == nullptr) return fail(Code::internal, "no memory for an HTTP client");
  ZX_ASSIGN(const List headers, headers_of(request));
  Reading reading;
  reading.limit = request.response_limit;
  char details[CURL_ERROR_SIZE] = "";

  CURLcode set = CURLE_OK;
  const auto option = [&](CURLoption which, auto value) {
    if (set == CURLE_OK) set = curl_easy_setopt(curl, which, value);
  };
  const auto text = [&](CURLoption which, const std::string& value) {
    if (!value.empty()) option(which, value.c_str());
  };
  curl_easy_reset(curl);  // keeps the connections
  option(CURLOPT_URL, request.url.c_str());
  option(CURLOPT_PROTOCOLS_STR, "http,https");
  option(CURLOPT_PROXY, "");
  option(CURLOPT_FOLLOWLOCATION, 0L);
  option(CURLOPT_NOSIGNAL, 1L);
  option(CURLOPT_QUICK_EXIT, 1L);  // a hanging name lookup is left to its thread
  option(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  // 0 would mean no limit.
  option(CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<Millis::rep>(1, request.timeout.count())));
  option(CURLOPT_CONNECTTIMEOUT_MS,
         static_cast<long>(std::max<Millis::rep>(1, request.connect_timeout.count())));
  option(CURLOPT_SOCKOPTFUNCTION, on_socket);
  option(CURLOPT_ERRORBUFFER, static_cast<char*>(details));
  option(CURLOPT_HTTPHEADER, headers.get());
  option(CURLOPT_WRITEFUNCTION, on_body);
  option(CURLOPT_WRITEDATA, static_cast<void*>(&reading));
  option(CURLOPT_HEADERFUNCTION, on_header);
  option(CURLOPT_HEADERDATA, static_cast<void*>(&reading));
  text(CURLOPT_UNIX_SOCKET_PATH, request.unix_socket);
  text(CURLOPT_CAINFO, request.ca_file);
  // Who names a CA trusts no other.
  if (!request.ca_file.empty()) option(CURLOPT_CAPATH, static_cast<char*>(nullptr));
  text(CURLOPT_SSLCERT, request.cert_file);
  text(CURLOPT_SSLKEY, request.key_file);
  option(CURLOPT_KEYPASSWD, "");  // an encrypted key is an error, not a question on the terminal
  if (!request.username.empty()) {
    option(CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
    option(CURLOPT_USERNAME, request.username.c_str());
    option(CURLOPT_PASSWORD, request.password.c_str());
  }
  if (request.method == "HEAD") {
    option(CURLOPT_NOBODY, 1L);
  } else if (!request.body.empty() || request.method == "POST" || request.method == "PUT") {
    option(CURLOPT_POST, 1L);
    option(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    option(CURLOPT_POSTFIELDS, request.body.c_str());
  }
  option(CURLOPT_CUSTOMREQUEST, request.method.c_str());

  const auto result = set == CURLE_OK ? curl_easy_perform(curl) : set;
  if (result != CURLE_OK) return fail(error_of(result, details, request, reading));
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  reading.answer.status = static_cast<int>(status);
  return std::move(reading.answer);
}

}  // namespace zx::net
