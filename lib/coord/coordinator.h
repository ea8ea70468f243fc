#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>
#include "lib/base/json.h"
#include "lib/base/units.h"
#include "lib/coord/lock.h"
namespace zx::coord {
struct Standing {
  enum class Role { leader, follower, cut_off } role = Role::cut_off;
  std::string leader;
  std::int64_t token = 0;
  std::string why;
};
struct Vote {
  std::string agent, region;
  Json saw;
};
struct Value {
  std::string text;
  std::int64_t version = 0;
};
class Coordinator {
 public:
  virtual ~Coordinator() = default;
  [[nodiscard]] virtual Standing standing() = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<Lease>> lead() = 0;
  virtual void vote(const Json& saw) = 0;
  [[nodiscard]] virtual std::vector<Vote> votes() = 0;
  [[nodiscard]] virtual Result<Value> get(const std::string& key) = 0;
  [[nodiscard]] virtual Status put(const std::string& key, const std::string& text,
                                   std::int64_t version) = 0;
};
}  // namespace zx::coord
