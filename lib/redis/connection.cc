#include "lib/redis/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/redis/dial.h"
#include "lib/redis/reply_reader.h"

namespace zx::redis {
namespace {

Code code_of(Failure why) {
  switch (why) {
    case Failure::refused:
    case Failure::no_route:
    case Failure::resolve:
    case Failure::broken: return Code::unreachable;
    case Failure::no_answer:
    case Failure::silent: return Code::timeout;
    case Failure::auth:
    case Failure::permission:
    case Failure::protected_mode: return Code::auth;
    case Failure::too_many_clients: return Code::too_many_connections;
    case Failure::loading: return Code::starting_up;
    default: return Code::server;
  }
}

const char* hint_of(Failure why) {
  switch (why) {
    case Failure::auth:
      return "user and password_file of the deployment in zx.toml are what zx logs in with";
    case Failure::permission:
      return "allow the command to the ACL user that zx logs in as; man zx.toml names what it "
             "needs";
    case Failure::protected_mode:
      return "give the server a password, or let it listen on an address of its own (bind)";
    case Failure::too_many_clients: return "raise maxclients, or close connections that idle";
    case Failure::misconf:
      return "the server's log says why it cannot save; often the disk is full";
    case Failure::not_redis: return "check address and port of the node in zx.toml";
    default: return "";
  }
}

Failed failed_with(Failure why, std::string message) {
  return Failed{why, Error{code_of(why), std::move(message), hint_of(why), {}, true}, {}};
}

std::string words_of(int error) {
  std::string words = std::strerror(error);
  words.replace(0, 1, lower(words.substr(0, 1)));
  return words;
}

// Redis repeats the arguments of a command that it does not know; a password may be among them.
std::string without_arguments(std::string_view text) {
  const auto at = text.find(", with args beginning with");
  return first_line(text.substr(0, at));
}

constexpr std::size_t kLongestWords = 300;
std::string shortened(std::string text) {
  if (text.size() <= kLongestWords) return text;
  return clean_utf8(std::string_view(text).substr(0, kLongestWords)) + "…";
}

Failed failed_by(const Reply& reply) {
  const auto said = shortened(without_arguments(reply.text));
  auto failed = failed_with(classify(reply.text), said);
  failed.error.retryable = false;
  failed.reply = said;
  return failed;
}

std::string encoded(const Command& argv) {
  std::string out = fmt::format("*{}\r\n", argv.size());
  for (const auto& word : argv) {
    out += fmt::format("${}\r\n", word.size());
    out += word;
    out += "\r\n";
  }
  return out;
}

// SUBSCRIBE is answered once for every channel.
std::size_t replies_to(const Command& argv) {
  const auto name = lower(argv.empty() ? std::string() : argv.front());
  const bool is_many = name == "subscribe" || name == "psubscribe";
  return is_many ? std::max<std::size_t>(argv.size(), 2) - 1 : 1;
}

bool is_published(const Reply& reply) {
  if (reply.kind != Reply::Kind::array || reply.items.empty()) return false;
  const auto& kind = reply.items.front().text;
  return (kind == "message" && reply.items.size() == 3) ||
         (kind == "pmessage" && reply.items.size() == 4);
}

}  // namespace

struct Connection::Impl : std::enable_shared_from_this<Connection::Impl> {
  explicit Impl(net::Loop& l) : loop(l), timer(l) {}
  ~Impl() { close(); }

  struct Waiting {
    Deadline deadline;
    Millis span;
    std::size_t replies;
    std::function<void(Outcome<Reply>)> done;
  };

  net::Loop& loop;
  net::Timer timer;
  std::unique_ptr<net::Watch> watch;
  os::Descriptor socket;
  Target target;
  Deadline open_by = Deadline::after(Millis(0));
  Millis open_span{0};
  std::vector<std::string> addresses;  // not tried yet, the next one last
  std::optional<Failed> worst;         // of those that were
  std::function<void(Outcome<Pointer>)> opened;
  bool is_open = false;
  ReplyReader reader;
  std::string out;  // not sent yet
  std::deque<Waiting> waiting;
  bool is_subscribed = false;
  std::function<void()> ended;
  std::function<void(const std::string&, const std::string&)> message;

  void close() {
    watch.reset();
    timer.cancel();
    socket.close();
  }

  // --- connecting ---------------------------------------------------------------------------

  void finish_open(Outcome<Pointer> outcome) {
    auto callback = std::exchange(opened, nullptr);
    if (!callback) return;
    if (!outcome) {
      close();
      waiting.clear();
    }
    is_open = outcome.has_value();
    callback(std::move(outcome));
  }
  void fail_open(Failed failed) { finish_open(tl::unexpected(std::move(failed))); }

  void start(std::vector<std::string> found) {
    if (!opened) return;
    addresses = std::move(found);
    std::reverse(addresses.begin(), addresses.end());
    try_next();
  }

  void try_next() {
    while (!addresses.empty()) {
      const auto address = std::move(addresses.back());
      addresses.pop_back();
      auto dialled = dial(address, target.port);
      if (dialled.error != 0) {
        note(dialled.error);
        continue;
      }
      socket = std::move(dialled.socket);
      if (dialled.is_connected) return log_in();
      watch = std::make_unique<net::Watch>(loop, socket.get());
      watch->arm(net::Watch::For::write, [self = shared_from_this()] { self->on_connected(); });
      return;
    }
    fail_open(worst.value_or(failed_with(Failure::resolve, "its name has no address")));
  }

  // "Refused" stands only when every address refuses that this host has a network for: behind
  // another one a server may be alive.
  void note(int error) {
    const bool has_no_network = error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
    if (has_no_network && (worst || !addresses.empty())) return;
    const auto why = failure_of_connect(error);
    if (worst && why == Failure::refused) return;
    worst = failed_with(why, why == Failure::refused ? says(why) : words_of(error));
  }

  void on_connected() {
    watch.reset();
    if (const int error = error_on(socket.get()); error != 0) {
      socket.close();
      note(error);
      return try_next();
    }
    log_in();
  }

  void log_in() {
    timer.cancel();
    if (!target.password.empty()) {
      Command auth{"AUTH"};
      if (!target.user.empty()) auth.push_back(target.user);
      auth.push_back(target.password);
      enqueue(auth, open_by, [this](Outcome<Reply> reply) {
        if (!reply) fail_open(without_password(std::move(reply.error())));
      });
    }
    enqueue({"CLIENT", "SETNAME", "zx"}, open_by, [this](Outcome<Reply> reply) {
      if (reply || !is_fatal(reply.error()))
        finish_open(Pointer(new Connection(shared_from_this())));
      else
        fail_open(std::move(reply.error()));
    });
    flush();
  }

  // Of the first command: whether nothing else will work either. A server may forbid CLIENT alone.
  static bool is_fatal(const Failed& failed) {
    return failed.reply.empty() || failed.why == Failure::auth ||
           failed.why == Failure::protected_mode || failed.why == Failure::too_many_clients;
  }

  [[nodiscard]] Failed without_password(Failed failed) const {
    constexpr std::string_view kInstead = "(hidden)";
    if (failed.reply.empty()) return failed;  // the words are zx's own
    for (auto* text : {&failed.error.message, &failed.reply})
      for (auto at = text->find(target.password); at != std::string::npos;
           at = text->find(target.password, at + kInstead.size()))
        text->replace(at, target.password.size(), kInstead);
    return failed;
  }

  // --- talking ------------------------------------------------------------------------------

  void enqueue(const Command& argv, Deadline deadline, std::function<void(Outcome<Reply>)> done) {
    out += encoded(argv);
    waiting.push_back({deadline, deadline.left(), replies_to(argv), std::move(done)});
    set_timer();
  }

  void set_timer() {
    const auto first = std::min_element(
        waiting.begin(), waiting.end(),
        [](const auto& a, const auto& b) { return a.deadline.at() < b.deadline.at(); });
    if (first == waiting.end()) return timer.cancel();
    timer.at(first->deadline, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->on_timer();
    });
  }

  // A timer that was set anew may still fire once for its old time.
  void on_timer() {
    const auto late = std::find_if(waiting.begin(), waiting.end(),
                                   [](const auto& one) { return one.deadline.passed(); });
    if (late == waiting.end()) return set_timer();
    const auto span = late->span;
    lose(failed_with(Failure::silent, fmt::format("no answer within {}", format_duration(span))));
  }

  void on_open_timer() {
    if (!opened || !waiting.empty() || !open_by.passed()) return;
    fail_open(failed_with(Failure::no_answer,
                          fmt::format("no connection within {}", format_duration(open_span))));
  }

  // The connection is gone: whoever waits is told, else who asked for it.
  void lose(const Failed& failed) {
    const auto self = shared_from_this();
    close();
    auto told = std::exchange(ended, nullptr);
    const auto all = std::exchange(waiting, {});
    for (const auto& one : all) one.done(tl::unexpected(failed));
    if (all.empty() && told) told();
  }

  void flush() {
    while (!out.empty()) {
      const auto sent = send(socket.get(), out.data(), out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && errno == EAGAIN) break;
      // The server is gone, but its last words may still be there to be read.
      if (sent < 0)
        out.clear();
      else
        out.erase(0, static_cast<std::size_t>(sent));
    }
    arm();
  }

  void arm() {
    if (!socket) return;
    const bool listens = !waiting.empty() || ended || is_subscribed;
    if (out.empty() && !listens) return;
    if (!watch) watch = std::make_unique<net::Watch>(loop, socket.get());
    const auto ready = [self = shared_from_this()] { self->on_ready(); };
    if (out.empty())
      watch->arm(net::Watch::For::read, ready);
    else
      watch->arm_both(ready);
  }

  void on_ready() {
    const auto self = shared_from_this();
    std::array<char, 64u << 10> bytes;
    const auto got = recv(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got == 0) return lose(failed_with(Failure::broken, "the server closed the connection"));
    if (got < 0 && errno != EAGAIN && errno != EINTR)
      return lose(failed_with(Failure::broken, words_of(errno)));
    if (got > 0) {
      reader.feed({bytes.data(), static_cast<std::size_t>(got)});
      while (socket) {
        auto reply = reader.next();
        if (!reply) break;
        deliver(*std::move(reply));
      }
      if (!socket) return;  // closed by who was told
      if (const auto& defect = reader.defect(); !defect.empty())
        return lose(failed_with(is_open ? Failure::broken : Failure::not_redis,
                                "no reply of Redis: " + shortened(defect)));
    }
    flush();
  }

  void deliver(Reply reply) {
    if (is_subscribed && is_published(reply)) {
      const auto& items = reply.items;
      if (const auto callback = message) callback(items[items.size() - 2].text, items.back().text);
      return;
    }
    if (waiting.empty())
      return lose(failed_with(Failure::broken, "the server said what it was not asked"));
    const bool is_error = reply.kind == Reply::Kind::error;
    if (--waiting.front().replies > 0 && !is_error) return;
    const auto done = std::move(waiting.front().done);
    waiting.pop_front();
    set_timer();
    if (is_error)
      done(tl::unexpected(failed_by(reply)));
    else
      done(std::move(reply));
  }

  // Between commands the server has nothing to say but its end.
  [[nodiscard]] bool has_ended() const {
    char byte = 0;
    const auto got = recv(socket.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got >= 0 || (errno != EAGAIN && errno != EINTR);
  }
};

void Connection::open(net::Loop& loop, const Target& target, Deadline deadline,
                      std::function<void(Outcome<Pointer>)> done) {
  auto impl = std::make_shared<Impl>(loop);
  impl->target = target;
  impl->opened = std::move(done);
  impl->open_by = deadline;
  impl->open_span = deadline.left();
  impl->timer.at(deadline, [weak = std::weak_ptr<Impl>(impl)] {
    if (const auto self = weak.lock()) self->on_open_timer();
  });
  if (target.address.starts_with('/')) {
    loop.post([impl] { impl->start({impl->target.address}); });
    return;
  }
  net::resolve(loop, target.address, [impl](Result<std::vector<std::string>> addresses) {
    if (addresses) return impl->start(*std::move(addresses));
    impl->fail_open(Failed{Failure::resolve, addresses.error(), {}});
  });
}

Connection::~Connection() {
  impl_->close();
  impl_->ended = nullptr;
  impl_->message = nullptr;
  const auto forgotten = std::exchange(impl_->waiting, {});
}

void Connection::command(const Command& argv, Deadline deadline,
                         std::function<void(Outcome<Reply>)> done) {
  auto impl = impl_;
  const bool is_idle = impl->waiting.empty() && !impl->is_subscribed;
  if (impl->socket && is_idle && impl->has_ended()) {
    impl->ended = nullptr;  // this command's callback tells it
    impl->close();
  }
  if (!impl->socket) {
    impl->loop.post([done = std::move(done)] {
      done(tl::unexpected(failed_with(Failure::broken, "the connection is closed")));
    });
    return;
  }
  const auto name = lower(argv.empty() ? std::string() : argv.front());
  if (name == "subscribe" || name == "psubscribe") impl->is_subscribed = true;
  impl->enqueue(argv, deadline, std::move(done));
  impl->flush();
}

void Connection::on_end(std::function<void()> ended) {
  if (!impl_->socket) {
    impl_->loop.post(std::move(ended));
    return;
  }
  impl_->ended = std::move(ended);
  impl_->arm();
}

void Connection::on_message(
    std::function<void(const std::string& channel, const std::string& text)> message) {
  impl_->message = std::move(message);
  impl_->arm();
}

Outcome<Client> Client::open(const Target& target, Deadline deadline) {
  Client client;
  client.loop_ = std::make_unique<net::Loop>();
  std::optional<Outcome<Connection::Pointer>> outcome;
  Connection::open(*client.loop_, target, deadline,
                   [&](Outcome<Connection::Pointer> result) { outcome = std::move(result); });
  // The connection's own timer answers at the deadline; the margin is for that callback to run.
  client.loop_->run_until([&] { return outcome.has_value(); },
                          Deadline(deadline.at() + Millis(500)));
  if (!outcome) return tl::unexpected(failed_with(Failure::no_answer, "no answer"));
  if (!*outcome) return tl::unexpected(outcome->error());
  client.connection_ = std::move(**outcome);
  return client;
}

Outcome<Reply> Client::command(const Command& argv, Deadline deadline) {
  // Shared: a connection that is destroyed forgets its callbacks, a loop that is late does not.
  const auto outcome = std::make_shared<std::optional<Outcome<Reply>>>();
  connection_->command(argv, deadline,
                       [outcome](Outcome<Reply> result) { *outcome = std::move(result); });
  loop_->run_until([&] { return outcome->has_value(); }, Deadline(deadline.at() + Millis(500)));
  if (!*outcome) return tl::unexpected(failed_with(Failure::silent, "no answer"));
  return **outcome;
}

}  // namespace zx::redis
