// SHA-256 of what comes in pieces.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace zx::os {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void feed(std::string_view bytes);
  // 64 hexadecimal digits. Once, at the end.
  [[nodiscard]] std::string hex();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::os
