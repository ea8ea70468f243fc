#include "lib/net/http_reader.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <utility>

#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>

namespace zx::net {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::size_t kBodyRoom = 16u << 10;
constexpr std::size_t kLeastBodyRoom = 4u << 10;

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

struct Refusal {
  int status = 0;
  std::string_view why;
};

// Beast's parser checks the syntax; what it lets pass and another server may read differently is
// refused here.
class Parser final : public http::basic_parser<true> {
 public:
  Parser(HttpRequest& request, std::string& body, const char* buffer_end)
      : request_(request), body_(body), buffer_end_(buffer_end) {}

  Refusal refusal;
  bool has_start_line = false;
  bool expects_continue = false;

 private:
  // Beast has seen the end of the line and the byte behind it.
  [[nodiscard]] bool is_folded(const char* after_name) const {
    const auto left = static_cast<std::size_t>(buffer_end_ - after_name);
    const auto* line_end = static_cast<const char*>(std::memchr(after_name, '\n', left));
    return line_end == nullptr || line_end[1] == ' ' || line_end[1] == '\t';
  }

  void refuse(int status, std::string_view why, error_code& ec) {
    refusal = {status, why};
    ec = http::error::bad_value;
  }

  void on_request_impl(http::verb, boost::beast::string_view method,
                       boost::beast::string_view target, int version, error_code&) override {
    request_.method = view(method);
    request_.target = view(target);
    version_ = version;
    has_start_line = true;
  }

  void on_field_impl(http::field field, boost::beast::string_view name,
                     boost::beast::string_view value, error_code& ec) override {
    if (is_header_done()) return;  // a trailer
    if (is_folded(name.data() + name.size())) return refuse(400, "a header is folded", ec);
    request_.headers.emplace_back(view(name), view(value));
    switch (field) {
      case http::field::host:
        if (++hosts_ > 1) refuse(400, "more than one Host", ec);
        break;
      case http::field::content_length:
        if (++lengths_ > 1 || value.find(',') != value.npos)
          refuse(400, "more than one Content-Length", ec);
        break;
      case http::field::transfer_encoding:
        if (!boost::beast::iequals(value, "chunked"))
          refuse(501, "a Transfer-Encoding that is not chunked", ec);
        else if (version_ < 11)
          refuse(400, "a Transfer-Encoding in HTTP/1.0", ec);
        break;
      case http::field::expect:
        if (!boost::beast::iequals(value, "100-continue"))
          refuse(417, "an unknown expectation", ec);
        else
          expects_continue = version_ >= 11;
        break;
      default: break;
    }
  }

  void on_header_impl(error_code& ec) override {
    if (version_ >= 11 && hosts_ == 0) return refuse(400, "no Host", ec);
    if (!net::parse_target(request_.target, request_.path, request_.query))
      return refuse(400, "the target cannot be read", ec);
  }

  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(boost::beast::string_view text, error_code&) override {
    body_.append(text.data(), text.size());
    return text.size();
  }
  void on_chunk_header_impl(std::uint64_t, boost::beast::string_view, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, boost::beast::string_view text,
                                 error_code&) override {
    body_.append(text.data(), text.size());
    return text.size();
  }
  void on_finish_impl(error_code&) override {}
  void on_response_impl(int, boost::beast::string_view, int, error_code&) override {}

  HttpRequest& request_;
  std::string& body_;
  const char* buffer_end_;
  int version_ = 0;
  int hosts_ = 0;
  int lengths_ = 0;
};

// Of a message whose version Beast does not take, it may be that the line is broken.
bool is_of_another_version(std::string_view message) {
  constexpr std::string_view kForm = " HTTP/d.d";
  auto line = message.substr(0, message.find('\n'));
  if (line.size() <= kForm.size() || line.back() != '\r') return false;
  line.remove_suffix(1);
  line.remove_prefix(line.size() - kForm.size());
  for (std::size_t i = 0; i < kForm.size(); ++i)
    if (kForm[i] == 'd' ? line[i] < '0' || line[i] > '9' : line[i] != kForm[i]) return false;
  return true;
}

Refusal refusal_for(const error_code& ec, std::string_view message) {
  if (ec == http::error::body_limit) return {413, "the body is too large"};
  if (ec == http::error::bad_version && is_of_another_version(message))
    return {505, "neither HTTP/1.0 nor HTTP/1.1"};
  if (ec == http::error::bad_content_length) return {400, "a bad Content-Length"};
  if (ec == http::error::bad_transfer_encoding) return {400, "a bad Transfer-Encoding"};
  return {400, "not a request of HTTP"};
}

}  // namespace

struct HttpReader::Impl {
  Impl(std::size_t header_bytes, std::size_t body_bytes)
      : header_limit(header_bytes),
        body_limit(body_bytes),
        capacity(header_bytes + kBodyRoom),
        buffer(new char[capacity]) {
    fresh();
  }

  void fresh() {
    parser.emplace(request, body, buffer.get() + capacity);
    parser->header_limit(static_cast<std::uint32_t>(header_limit) + 1);  // we count ourselves
    parser->body_limit(body_limit);
  }
  Step refuse(Refusal why) {
    refusal = why;
    return Step::refused;
  }
  void put(std::size_t until, error_code& ec) {
    at += parser->put(boost::asio::const_buffer(buffer.get() + at, until - at), ec);
  }
  [[nodiscard]] std::string_view message() const { return {buffer.get() + begin, end - begin}; }
  // What the parser has taken makes room for more; the headers stay.
  void make_body_room() {
    std::memmove(buffer.get() + header_end, buffer.get() + at, end - at);
    end -= at - header_end;
    at = header_end;
  }
  void begin_message();
  Step parse_header();
  Step parse_body();

  const std::size_t header_limit, body_limit, capacity;
  std::unique_ptr<char[]> buffer;
  // The message from `begin`, parsed up to `at`, bytes up to `end`.
  std::size_t begin = 0, at = 0, end = 0, header_end = 0;
  HttpRequest request;
  std::string body;
  std::optional<Parser> parser;
  Refusal refusal;
};

// Skips empty lines before it, and moves it to the front when it may not have room where it is.
void HttpReader::Impl::begin_message() {
  while (begin < end && (buffer[begin] == '\r' || buffer[begin] == '\n')) ++begin;
  if (begin == end) {
    begin = end = 0;
  } else if (begin + header_limit + kLeastBodyRoom > capacity) {
    std::memmove(buffer.get(), buffer.get() + begin, end - begin);
    end -= begin;
    begin = 0;
  }
  at = begin;
}

HttpReader::Step HttpReader::Impl::parse_header() {
  if (!parser->got_some()) begin_message();
  const auto until = std::min(end, begin + header_limit);
  if (at == until && until < begin + header_limit) return Step::more;
  error_code ec;
  put(until, ec);
  if (parser->is_header_done() && !ec) {
    header_end = at;
    parser->eager(true);
    return Step::ready;
  }
  if (ec && ec != http::error::need_more)
    return refuse(parser->refusal.status != 0 ? parser->refusal : refusal_for(ec, message()));
  if (until < begin + header_limit) return Step::more;
  return refuse(parser->has_start_line ? Refusal{431, "the headers are too large"}
                                       : Refusal{414, "the request line is too long"});
}

HttpReader::Step HttpReader::Impl::parse_body() {
  // Wherever a chunked body is cut, five bytes are yet to come ("0", two line ends): Beast ends the
  // process when it is called with less behind the size of the last chunk.
  const std::size_t least = parser->chunked() ? 5 : 1;
  if (end - at >= least && !parser->is_done()) {
    error_code ec;
    put(end, ec);
    if (ec && ec != http::error::need_more) return refuse(refusal_for(ec, message()));
  }
  if (parser->is_done()) {
    request.body = body;
    return Step::ready;
  }
  make_body_room();
  if (end == capacity) return refuse({400, "a chunk header or trailer is too long"});
  return Step::more;
}

HttpReader::HttpReader(std::size_t header_bytes, std::size_t body_bytes)
    : impl_(std::make_unique<Impl>(header_bytes, body_bytes)) {}
HttpReader::~HttpReader() = default;

std::span<char> HttpReader::room() {
  return {impl_->buffer.get() + impl_->end, impl_->capacity - impl_->end};
}

std::span<char> HttpReader::scrap() { return {impl_->buffer.get(), impl_->capacity}; }

void HttpReader::filled(std::size_t count) { impl_->end += count; }

HttpReader::Step HttpReader::parse() {
  if (impl_->refusal.status != 0) return Step::refused;
  if (!impl_->parser->is_header_done()) {
    const auto step = impl_->parse_header();
    if (step != Step::ready) return step;
  }
  return impl_->parse_body();
}

HttpRequest& HttpReader::request() { return impl_->request; }
int HttpReader::refusal() const { return impl_->refusal.status; }
std::string_view HttpReader::why_refused() const { return impl_->refusal.why; }
bool HttpReader::keep_alive() const { return impl_->parser->keep_alive(); }

bool HttpReader::take_continue() {
  auto& parser = *impl_->parser;
  if (!parser.expects_continue || !parser.is_header_done() || parser.is_done()) return false;
  parser.expects_continue = false;
  return impl_->at == impl_->end && impl_->body.empty();
}

void HttpReader::next() {
  constexpr std::size_t kKeptBody = 64u << 10;
  if (impl_->body.capacity() > kKeptBody) impl_->body = {};
  impl_->body.clear();
  auto& request = impl_->request;
  request.method = request.target = request.body = {};
  request.headers.clear();
  impl_->begin = impl_->at;
  impl_->fresh();
}

bool HttpReader::is_idle() const {
  return !impl_->parser->got_some() && impl_->begin == impl_->end;
}

}  // namespace zx::net
