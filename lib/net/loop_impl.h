// Private to this room: the Asio context inside a Loop.
#pragma once

#include <functional>
#include <utility>

#include <boost/asio/io_context.hpp>

#include "lib/net/loop.h"

namespace zx::net {

struct Loop::Impl {
  // One thread runs it (the hint saves wake-ups); others may post to it.
  boost::asio::io_context context{1};
};

}  // namespace zx::net
