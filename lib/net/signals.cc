#include "lib/net/signals.h"

#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>

#include "lib/net/loop_impl.h"

namespace zx::net {

struct Signals::Impl : std::enable_shared_from_this<Signals::Impl> {
  Impl(boost::asio::io_context& context, std::function<void(int)> c)
      : set(context), came(std::move(c)) {}
  boost::asio::signal_set set;
  std::function<void(int)> came;

  void wait() {
    set.async_wait([self = shared_from_this()](const boost::system::error_code& e, int number) {
      if (e) return;
      self->came(number);
      self->wait();
    });
  }
};

Signals::Signals(Loop& loop, const std::vector<int>& numbers, std::function<void(int)> came)
    : impl_(std::make_shared<Impl>(loop.impl()->context, std::move(came))) {
  for (const int number : numbers) impl_->set.add(number);
  impl_->wait();
}

Signals::~Signals() { impl_->set.cancel(); }

}  // namespace zx::net
