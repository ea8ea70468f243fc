// The checksum of RDB files: CRC-64 "Jones", reflected, from 0, not inverted at its end
// (crc64.c of Redis; "123456789" gives e9c6d914c4b8d9ca). Pure.
#pragma once

#include <cstdint>
#include <string_view>

namespace zx::redis {

// Goes on from `crc`, which is 0 at the beginning.
[[nodiscard]] std::uint64_t crc64(std::uint64_t crc, std::string_view bytes);
// The same without the processor's carry-less multiplication: what other processors do.
[[nodiscard]] std::uint64_t crc64_by_table(std::uint64_t crc, std::string_view bytes);

}  // namespace zx::redis
