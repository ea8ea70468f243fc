// Gives an RDB that is still being written to a server that loads it through a FIFO. The file is
// the buffer between: a slow loader holds up nobody.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "lib/base/error.h"

namespace zx::redis {

class RdbFeeder {
 public:
  // `file` stays open for as long as this lives. The FIFO's reader may come later.
  RdbFeeder(int file, const std::string& fifo);
  RdbFeeder(const RdbFeeder&) = delete;
  RdbFeeder& operator=(const RdbFeeder&) = delete;
  ~RdbFeeder();  // gives up what is left

  void written(std::uint64_t bytes);  // so much of the file can be read, from its beginning
  void all_written();
  // All was given on, or it failed.
  [[nodiscard]] bool has_ended();
  // Code::io, or failed when the reader went away. Nothing wrong so far: OK.
  [[nodiscard]] Status status();

 private:
  void work(const std::string& fifo);
  Status feed(const std::string& fifo);
  Status give(int out, std::uint64_t& given, std::uint64_t limit);
  Status copy(int out, std::uint64_t& given, std::uint64_t limit);
  static Status wait_for_room(int out);
  bool has_stopped();

  int file_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t written_ = 0;
  bool is_all_ = false, is_stopped_ = false, has_ended_ = false;
  Status status_;
  std::thread thread_;
};

}  // namespace zx::redis
