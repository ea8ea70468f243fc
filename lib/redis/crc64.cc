#include "lib/redis/crc64.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace zx::redis {
namespace {

// ad93d23594c935a9 with its bits reversed: the lowest bit is the highest power of x.
constexpr std::uint64_t kPolynomial = 0x95AC9329AC4BC9B5ULL;

constexpr std::uint64_t times_x(std::uint64_t value) {
  return (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
}

constexpr std::size_t kSlices = 8;
using Tables = std::array<std::array<std::uint64_t, 256>, kSlices>;

// tables[n][b]: what byte b does to the checksum when n bytes follow it.
Tables make_tables() {
  Tables tables{};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::uint64_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = times_x(value);
    tables[0][byte] = value;
  }
  for (std::size_t slice = 1; slice < kSlices; ++slice)
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const auto before = tables[slice - 1][byte];
      tables[slice][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  return tables;
}

const Tables& tables() {
  static const auto made = make_tables();
  return made;
}

#if defined(__x86_64__)

// x^n modulo the polynomial, reflected.
constexpr std::uint64_t power_of_x(int n) {
  std::uint64_t value = 1ULL << 63;
  for (int i = 0; i < n; ++i) value = times_x(value);
  return value;
}

// What carries 128 bits over `distance` further bits. A reflected product of 64 by 64 bits stands
// one power too high in its 128 bits, hence the 1 less.
constexpr std::uint64_t low_factor(int distance) { return power_of_x(distance + 64 - 1); }
constexpr std::uint64_t high_factor(int distance) { return power_of_x(distance - 1); }

__attribute__((target("pclmul,sse2"))) inline __m128i carried(__m128i value, __m128i factors) {
  return _mm_xor_si128(_mm_clmulepi64_si128(value, factors, 0x00),
                       _mm_clmulepi64_si128(value, factors, 0x11));
}

// Folds 64 bytes at a time into 16 that have the same remainder, which the tables then finish.
__attribute__((target("pclmul,sse2"))) std::uint64_t crc64_by_folding(std::uint64_t crc,
                                                                      std::string_view bytes) {
  constexpr std::size_t kBlock = 64;
  static constexpr std::uint64_t kFar[2] = {low_factor(512), high_factor(512)};
  static constexpr std::uint64_t kNear[2] = {low_factor(128), high_factor(128)};
  const auto far = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kFar));
  const auto near = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kNear));
  const auto load = [&](std::size_t at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes.data() + at));
  };
  auto a = _mm_xor_si128(load(0), _mm_set_epi64x(0, static_cast<long long>(crc)));
  auto b = load(16), c = load(32), d = load(48);
  bytes.remove_prefix(kBlock);
  while (bytes.size() >= kBlock) {
    a = _mm_xor_si128(carried(a, far), load(0));
    b = _mm_xor_si128(carried(b, far), load(16));
    c = _mm_xor_si128(carried(c, far), load(32));
    d = _mm_xor_si128(carried(d, far), load(48));
    bytes.remove_prefix(kBlock);
  }
  b = _mm_xor_si128(carried(a, near), b);
  c = _mm_xor_si128(carried(b, near), c);
  d = _mm_xor_si128(carried(c, near), d);
  char rest[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rest), d);
  return crc64_by_table(crc64_by_table(0, std::string_view(rest, sizeof rest)), bytes);
}

bool can_fold() {
  static const bool can = __builtin_cpu_supports("pclmul") != 0;
  return can;
}

#endif

}  // namespace

std::uint64_t crc64_by_table(std::uint64_t crc, std::string_view bytes) {
  const auto& table = tables();
  const char* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, sizeof word);
    if constexpr (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__) word = __builtin_bswap64(word);
    word ^= crc;
    crc = table[7][word & 0xFF] ^ table[6][(word >> 8) & 0xFF] ^ table[5][(word >> 16) & 0xFF] ^
          table[4][(word >> 24) & 0xFF] ^ table[3][(word >> 32) & 0xFF] ^
          table[2][(word >> 40) & 0xFF] ^ table[1][(word >> 48) & 0xFF] ^ table[0][word >> 56];
  }
  for (; left > 0; ++at, --left)
    crc = (crc >> 8) ^ table[0][(crc ^ static_cast<unsigned char>(*at)) & 0xFF];
  return crc;
}

std::uint64_t crc64(std::uint64_t crc, std::string_view bytes) {
#if defined(__x86_64__)
  if (bytes.size() >= 128 && can_fold()) return crc64_by_folding(crc, bytes);
#endif
  return crc64_by_table(crc, bytes);
}

}  // namespace zx::redis
