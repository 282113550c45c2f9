// Which of two codewords is nearer, in exact real arithmetic.
//
// A squared distance is a sum of products of two numbers each, and such a product is a whole
// number times a power of two.  All of them are added up as whole numbers in one long register in
// shared memory, 32 bits a digit: no rounding anywhere, and no order that could matter.
#pragma once

#include "device.cuh"

// Digits that hold any sum of products of numbers of a type, and the power of two of the first.
template <typename T>
struct Register;
template <>
struct Register<float> {
  static constexpr int DIGITS = 22, FIRST = -298;  // 2 (128 + 149) bits, and space for carries
};
template <>
struct Register<double> {
  static constexpr int DIGITS = 136, FIRST = -2148;  // 2 (1024 + 1074) bits
};

__device__ __forceinline__ u64 split(float value, int& exponent) {
  u32 bits = __float_as_uint(value);
  int biased = (bits >> 23) & 0xff;
  exponent = (biased ? biased : 1) - 150;
  return (bits & 0x7fffffu) | (biased ? 0x800000u : 0u);
}

__device__ __forceinline__ u64 split(double value, int& exponent) {
  u64 bits = (u64)__double_as_longlong(value);
  int biased = (int)((bits >> 52) & 0x7ff);
  exponent = (biased ? biased : 1) - 1075;
  return (bits & 0xfffffffffffffull) | (biased ? 0x10000000000000ull : 0ull);
}

__device__ __forceinline__ bool below_zero(float value) { return (int)__float_as_uint(value) < 0; }
__device__ __forceinline__ bool below_zero(double value) { return value < 0.0; }

__device__ __forceinline__ void add_digit(u64* digits, int place, u64 value, bool minus) {
  if (value) atomicAdd(digits + place, minus ? 0 - value : value);
}

// Adds x y, or twice that, or takes it away.
template <typename T>
__device__ __forceinline__ void add_product(u64* digits, T x, T y, int doubled, bool minus) {
  int of_x, of_y;
  u64 a = split(x, of_x), b = split(y, of_y);
  if (a == 0 || b == 0) return;
  minus ^= below_zero(x) != below_zero(y);
  int offset = of_x + of_y + doubled - Register<T>::FIRST;
  int place = offset >> 5, shift = offset & 31;
  u64 low = a * b, high = __umul64hi(a, b);
  for (int part = 0; part < 4; part++) {  // a digit of the product meets two of the register
    u64 digit = part < 2 ? low : high;
    digit = (part & 1 ? digit >> 32 : digit & 0xffffffffull) << shift;
    add_digit(digits, place + part, digit & 0xffffffffull, minus);
    add_digit(digits, place + part + 1, digit >> 32, minus);
  }
}

// Adds (x - y)^2, or takes it away.
template <typename T>
__device__ __forceinline__ void add_square(u64* digits, T x, T y, bool minus) {
  add_product(digits, x, x, 0, minus);
  add_product(digits, x, y, 1, !minus);
  add_product(digits, y, y, 0, minus);
}

// The sign of |x - a|^2 - |y - b|^2, the same in all lanes of the warp, which all call this.
// `digits` are the warp's own, in shared memory.
template <typename T>
__device__ int compare(const T* x, const T* a, const T* y, const T* b, int width, u64* digits) {
  int lane = threadIdx.x & (LANES - 1);
  bool same = true;
  for (int d = lane; d < width; d += LANES) {
    same = same && widened(x[d]) == widened(y[d]) && widened(a[d]) == widened(b[d]);
  }
  if (__ballot_sync(ALL, !same) == 0) return 0;
  for (int i = lane; i < Register<T>::DIGITS; i += LANES) digits[i] = 0;
  __syncwarp();
  for (int d = lane; d < width; d += LANES) {
    add_square(digits, x[d], a[d], false);
    add_square(digits, y[d], b[d], true);
  }
  __syncwarp();
  int sign = 0;
  if (lane == 0) {
    i64 carry = 0;
    for (int i = 0; i < Register<T>::DIGITS; i++) {
      i64 value = (i64)digits[i] + carry;
      carry = value >> 32;
      if (value & 0xffffffffll) sign = 1;
    }
    if (carry < 0) sign = -1;
  }
  sign = __shfl_sync(ALL, sign, 0);
  __syncwarp();
  return sign;
}

// |x - a|^2 in double precision, rounded: off by at most `share(width)` of it and `LOST` a number.
constexpr double LOST = 4.5e-308;

__device__ __forceinline__ double share(int width) { return (width + 8) * 2.3e-16; }

template <typename T>
__device__ __forceinline__ double distance(const T* x, const T* a, int width) {
  double sum = 0.0;
  for (int d = 0; d < width; d++) {
    double difference = widened(x[d]) - widened(a[d]);
    sum = fma(difference, difference, sum);
  }
  return sum;
}

// What a computed distance must not exceed, if its codeword may yet be the nearest.
__device__ __forceinline__ double reach(double best, int width) {
  return best * (1.0 + 3.0 * share(width)) + 4.0 * width * LOST;
}
