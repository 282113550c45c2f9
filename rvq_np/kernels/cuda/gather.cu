// Words by their codes: decoding, what is left of rows, and sums of the rows that chose each word.
//
// Everything here is bound by memory: a number is added or subtracted once for each that is read.

#include "device.cuh"

constexpr int WIDE = 4;  // numbers that a thread reads together
constexpr int GROUP = 16;  // leaves of rows that are merged together, at most

struct __align__(16) Wide {
  REAL number[WIDE];
};

// out (n, width) = the sum, from zero and in the order of the stages, of the words that `codes`
// name: (stages, all).  The words of stage q are at table + offsets[q].
template <typename T, int COUNT>
__device__ __forceinline__ void add_up(const int* codes, i64 all, i64 n, int width,
                                       int stages, const REAL* table, const i64* offsets,
                                       REAL* out) {
  i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  int share = width / COUNT;
  if (at >= n * share) return;
  i64 row = at / share;
  int place = (int)(at % share) * COUNT;
  T total;
  REAL* totals = (REAL*)&total;
  for (int i = 0; i < COUNT; i++) totals[i] = 0;
  for (int q = 0; q < stages; q++) {
    i64 code = codes[q * all + row];
    T word = *(const T*)(table + offsets[q] + code * width + place);
    for (int i = 0; i < COUNT; i++) totals[i] = plus(totals[i], ((const REAL*)&word)[i]);
  }
  *(T*)(out + row * width + place) = total;
}

extern "C" __global__ void decode(const int* codes, i64 all, i64 n, int width,
                                  int stages, const REAL* table, const i64* offsets, REAL* out) {
  add_up<REAL, 1>(codes, all, n, width, stages, table, offsets, out);
}

// The same where `width` is a multiple of WIDE.
extern "C" __global__ void decode_wide(const int* codes, i64 all, i64 n, int width,
                                       int stages, const REAL* table, const i64* offsets,
                                       REAL* out) {
  add_up<Wide, WIDE>(codes, all, n, width, stages, table, offsets, out);
}

// The least and the largest of the `count` numbers of each row, one block of threads a row: `ends`
// (2, rows).  NaN comes through both.
template <typename T>
__device__ __forceinline__ void find_ends(const T* numbers, i64 count, double* ends) {
  constexpr int MOST = 32;  // warps of a block
  __shared__ double lows[MOST], highs[MOST];
  numbers += blockIdx.x * count;
  double low = __longlong_as_double(0x7ff0000000000000ll), high = -low;
  bool wrong = false;
  for (i64 i = threadIdx.x; i < count; i += blockDim.x) {
    double number = (double)numbers[i];
    wrong = wrong || number != number;
    low = number < low ? number : low;
    high = number > high ? number : high;
  }
  if (wrong) low = high = __longlong_as_double(0x7ff8000000000000ll);
  for (int pass = 0; pass < 2; pass++) {  // the lanes of each warp, then the warps
    for (int step = LANES / 2; step > 0; step /= 2) {
      double other = __shfl_xor_sync(ALL, low, step);
      low = other < low || other != other ? other : low;
      other = __shfl_xor_sync(ALL, high, step);
      high = other > high || other != other ? other : high;
    }
    if (pass == 1) break;
    int warps = blockDim.x / LANES, lane = threadIdx.x & (LANES - 1);
    lows[threadIdx.x / LANES] = low;
    highs[threadIdx.x / LANES] = high;
    __syncthreads();
    low = lows[lane < warps ? lane : 0];
    high = highs[lane < warps ? lane : 0];
  }
  if (threadIdx.x == 0) {
    ends[blockIdx.x] = low;
    ends[gridDim.x + blockIdx.x] = high;
  }
}

extern "C" __global__ void extent(const REAL* numbers, i64 count, double* ends) {
  find_ends(numbers, count, ends);
}

extern "C" __global__ void extent_of_codes(const int* codes, i64 count, double* ends) {
  find_ends(codes, count, ends);
}

// rows (n, width) -= table[codes].
extern "C" __global__ void subtract(REAL* rows, i64 n, int width, const REAL* table,
                                    const int* codes) {
  i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= n * width) return;
  rows[at] = minus(rows[at], table[(i64)codes[at / width] * width + at % width]);
}

// out (count,) = numbers of the other float type.
extern "C" __global__ void widen(const float* from, i64 count, double* out) {
  i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (at < count) out[at] = widened(from[at]);
}

extern "C" __global__ void narrow(const double* from, i64 count, float* out) {
  i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (at < count) out[at] = narrowed(from[at]);
}

// sums (segments, width): of the rows that order[starts[s] ... starts[s + 1]] names, one after the
// other.  A block of threads takes a segment, a thread every so many of its numbers.
extern "C" __global__ void add_rows(const REAL* rows, int width, const i64* order,
                                    const i64* starts, double* sums) {
  i64 segment = blockIdx.x, first = starts[segment], last = starts[segment + 1];
  for (int d = threadIdx.x; d < width; d += blockDim.x) {
    double sum = 0.0;
    i64 i = first;
    for (; i + WIDE <= last; i += WIDE) {  // read together, added in order
      REAL read[WIDE];
#pragma unroll
      for (int k = 0; k < WIDE; k++) read[k] = rows[order[i + k] * width + d];
#pragma unroll
      for (int k = 0; k < WIDE; k++) sum += widened(read[k]);
    }
    for (; i < last; i++) sum += widened(rows[order[i] * width + d]);
    sums[segment * width + d] = sum;
  }
}

// total (count,) = the sum of parts (leaves, count) as a balanced tree; leaves: a power of two.
extern "C" __global__ void merge(const double* parts, int leaves, i64 count, double* total) {
  i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  double held[GROUP];
#pragma unroll
  for (int i = 0; i < GROUP; i++) held[i] = i < leaves ? parts[i * count + at] : 0.0;
#pragma unroll
  for (int width = 1; width < GROUP; width *= 2) {
#pragma unroll
    for (int i = 0; i + width < GROUP; i += 2 * width) {
      if (width < leaves) held[i] += held[i + width];
    }
  }
  total[at] = held[0];
}
