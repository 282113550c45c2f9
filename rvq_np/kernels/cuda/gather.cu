// Codewords by their codes: decoding, what is left of rows, and sums of the rows that chose each codeword.
//
// Everything here is bound by memory: a number is added or subtracted once for each that is read.

#include "device.cuh"

constexpr int WIDE = 4;  // numbers that a thread reads together
constexpr int TOGETHER = 4;  // rows that a thread decodes together
constexpr int AT_ONCE = 8;  // rows whose numbers are read before the first is added

struct __align__(16) Wide {
  REAL number[WIDE];
};

// out (n, width) = the sum, from zero and in the order of the stages, of the codewords that `codes`
// name: (stages, all).  Those of stage q are at table + offsets[q].  A thread adds up COUNT numbers
// of TOGETHER rows that lie side by side, so that it waits for several codewords at once.
template <typename T, int COUNT>
__device__ __forceinline__ void add_up(const int* codes, i64 all, i64 n, int width, int stages,
                                       const REAL* table, const i64* offsets, const int* sizes,
                                       REAL* out) {
  i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  int share = width / COUNT;
  i64 group = at <= 0xffffffffll ? (i64)((u32)at / (u32)share) : at / share;
  int place = (int)(at - group * share) * COUNT;
  i64 row = group * TOGETHER;
  if (row >= n) return;
  int count = (int)min((i64)TOGETHER, n - row);
  T total[TOGETHER];
  for (int k = 0; k < TOGETHER; k++) {
    for (int i = 0; i < COUNT; i++) ((REAL*)&total[k])[i] = 0;
  }
  const int* code = codes + row;
  for (int q = 0; q < stages; q++, code += all) {
    const REAL* codewords = table + offsets[q] + place;
    i64 its[TOGETHER];
    T codeword[TOGETHER];
#pragma unroll
    for (int k = 0; k < TOGETHER; k++) {
      its[k] = max(0, min(code[k < count ? k : 0], sizes[q] - 1));  // they are checked meanwhile
    }
#pragma unroll
    for (int k = 0; k < TOGETHER; k++) codeword[k] = *(const T*)(codewords + its[k] * width);
#pragma unroll
    for (int k = 0; k < TOGETHER; k++) {
      for (int i = 0; i < COUNT; i++) {
        REAL& sum = ((REAL*)&total[k])[i];
        sum = plus(sum, ((const REAL*)&codeword[k])[i]);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < TOGETHER; k++) {
    if (k < count) *(T*)(out + (row + k) * width + place) = total[k];
  }
}

extern "C" __global__ void decode(const int* codes, i64 all, i64 n, int width, int stages,
                                  const REAL* table, const i64* offsets, const int* sizes, REAL* out) {
  add_up<REAL, 1>(codes, all, n, width, stages, table, offsets, sizes, out);
}

// The same where `width` is a multiple of WIDE.
extern "C" __global__ void decode_wide(const int* codes, i64 all, i64 n, int width, int stages,
                                       const REAL* table, const i64* offsets, const int* sizes, REAL* out) {
  add_up<Wide, WIDE>(codes, all, n, width, stages, table, offsets, sizes, out);
}

// Numbers as they are stored, and what they are compared as.
__device__ __forceinline__ float compared(float number) { return number; }
__device__ __forceinline__ double compared(double number) { return number; }
__device__ __forceinline__ int compared(int number) { return number; }
__device__ __forceinline__ i64 compared(i64 number) { return number; }
struct Half {
  u16 bits;
};
__device__ __forceinline__ float compared(Half number) { return from_half(number.bits); }
struct Bfloat {
  u16 bits;
};
__device__ __forceinline__ float compared(Bfloat number) {
  return __uint_as_float((u32)number.bits << 16);
}

// The least and the largest numbers of `parts` pieces of each of the rows, which are `count` long:
// `ends` (2, rows * parts).  A block of threads takes a piece of `share` numbers.  NaN comes through
// both.
template <typename T>
__device__ __forceinline__ void find_ends(const T* numbers, i64 count, i64 share, int parts,
                                          double* ends) {
  constexpr int PIECE = 16 / sizeof(T), AHEAD = 4;  // what 16 bytes hold; such reads on their way
  constexpr int MOST = 32;  // warps of a block
  struct __align__(16) Piece {
    T number[PIECE];
  };
  using Number = decltype(compared(T()));
  __shared__ double lows[MOST], highs[MOST];
  i64 from = blockIdx.x % parts * share, end = min(count, from + share);
  const T* first = numbers + blockIdx.x / parts * count + from;
  i64 length = max((i64)0, end - from);
  double low = __longlong_as_double(0x7ff0000000000000ll), high = -low;
  bool wrong = false;
  if (length > 0) {
    Number least = compared(first[0]), most = least;
    auto meet = [&](T each) {
      Number number = compared(each);
      wrong = wrong || number != number;
      least = number < least ? number : least;
      most = number > most ? number : most;
    };
    wrong = least != least;
    i64 ragged = min(length, (i64)((16 - ((u64)first & 15)) % 16 / sizeof(T)));
    for (i64 i = threadIdx.x; i < ragged; i += blockDim.x) meet(first[i]);
    const Piece* pieces = (const Piece*)(first + ragged);
    i64 whole = (length - ragged) / PIECE, i = threadIdx.x;
    for (; i + (AHEAD - 1) * blockDim.x < whole; i += AHEAD * blockDim.x) {
      Piece read[AHEAD];
#pragma unroll
      for (int k = 0; k < AHEAD; k++) read[k] = pieces[i + k * blockDim.x];
#pragma unroll
      for (int k = 0; k < AHEAD * PIECE; k++) meet(read[k / PIECE].number[k % PIECE]);
    }
    for (; i < whole; i += blockDim.x) {
      Piece read = pieces[i];
#pragma unroll
      for (int k = 0; k < PIECE; k++) meet(read.number[k]);
    }
    for (i = ragged + whole * PIECE + threadIdx.x; i < length; i += blockDim.x) meet(first[i]);
    low = (double)least;
    high = (double)most;
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

extern "C" __global__ void extent_of_float(const float* numbers, i64 count, i64 share, int parts,
                                           double* ends) {
  find_ends(numbers, count, share, parts, ends);
}

extern "C" __global__ void extent_of_double(const double* numbers, i64 count, i64 share, int parts,
                                            double* ends) {
  find_ends(numbers, count, share, parts, ends);
}

extern "C" __global__ void extent_of_half(const u16* numbers, i64 count, i64 share, int parts,
                                          double* ends) {
  find_ends((const Half*)numbers, count, share, parts, ends);
}

extern "C" __global__ void extent_of_bfloat(const u16* numbers, i64 count, i64 share, int parts,
                                            double* ends) {
  find_ends((const Bfloat*)numbers, count, share, parts, ends);
}

extern "C" __global__ void extent_of_int(const int* numbers, i64 count, i64 share, int parts,
                                         double* ends) {
  find_ends(numbers, count, share, parts, ends);
}

extern "C" __global__ void extent_of_long(const i64* numbers, i64 count, i64 share, int parts,
                                          double* ends) {
  find_ends(numbers, count, share, parts, ends);
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

// Sorts the rows of each leaf, `leaf` at most of n, by their codes, rows of one code in their order:
// order (n,) holds numbers of rows, starts (leaves, size + 1) where a code's begin.  A block takes a
// leaf, each warp a run of its rows; `size` codes of every warp are counted in shared memory.
extern "C" __global__ void sort_rows(const int* codes, i64 n, int leaf, int size, int* order,
                                     int* starts) {
  int warps = blockDim.x / LANES, warp = threadIdx.x / LANES, lane = threadIdx.x & (LANES - 1);
  u32* places = (u32*)shared_memory();  // (warps, size): counts, then where a warp's rows go
  u32* sums = places + warps * size;    // (warps,)
  u32* mine = places + warp * size;
  i64 begin = (i64)blockIdx.x * leaf;
  int count = (int)min((i64)leaf, n - begin);
  int run = (count + warps - 1) / warps, first = min(count, warp * run);
  int last = min(count, first + run);
  for (int i = threadIdx.x; i < warps * size; i += blockDim.x) places[i] = 0;
  __syncthreads();
  codes += begin;
  for (int i = first + lane; i < last; i += LANES) atomicAdd(mine + codes[i], 1u);
  __syncthreads();
  starts += (i64)blockIdx.x * (size + 1);
  u32 before = 0;  // rows of the codes that have had their turn
  for (int start = 0; start < size; start += blockDim.x) {
    int code = start + threadIdx.x;
    u32 total = 0;
    for (int i = 0; code < size && i < warps; i++) total += places[i * size + code];
    u32 upto = total;
    for (int step = 1; step < LANES; step *= 2) {
      u32 other = __shfl_sync(ALL, upto, max(0, lane - step));
      upto += lane >= step ? other : 0;
    }
    if (lane == LANES - 1) sums[warp] = upto;
    __syncthreads();
    u32 at = before + upto - total;
    for (int i = 0; i < warps; i++) {
      at += i < warp ? sums[i] : 0;
      before += sums[i];
    }
    __syncthreads();
    if (code >= size) continue;
    starts[code] = (int)(begin + at);
    for (int i = 0; i < warps; i++) {
      u32 own = places[i * size + code];
      places[i * size + code] = at;
      at += own;
    }
  }
  if (threadIdx.x == 0) starts[size] = (int)(begin + count);
  __syncthreads();
  for (int start = first; start < last; start += LANES) {
    int i = start + lane;
    int code = i < last ? codes[i] : -1;
    u32 same = __match_any_sync(ALL, code);
    u32 at = i < last ? mine[code] : 0;
    __syncwarp();
    if (i < last) order[begin + at + __popc(same & ((1u << lane) - 1))] = (int)(begin + i);
    if (i < last && lane == __ffs(same) - 1) mine[code] = at + __popc(same);
    __syncwarp();
  }
}

constexpr int GRIDS = 4;  // pieces that a number is cut into, at most

// Adds a number to its sums on some grids, see rvq_np/kernels/totals.py.
__device__ __forceinline__ void cut(double number, int grids, const double* magic, double* sums) {
#pragma unroll
  for (int g = 0; g < GRIDS; g++) {
    if (g + 1 < grids) {
      double near = (number + magic[g]) - magic[g];
      sums[g] += near;
      number -= near;
    } else if (g + 1 == grids) {
      sums[g] += number;
    }
  }
}

// sums (grids, leaves, size, width), `all` numbers a grid: of the rows of each leaf and code, as
// `sort_rows` has sorted them.  A block of threads takes a leaf and a code, a thread every so many of
// the numbers.
extern "C" __global__ void add_rows(const REAL* rows, int width, int size, const int* order,
                                    const int* starts, int grids, const double* magic, double* sums,
                                    i64 all) {
  i64 segment = blockIdx.x;
  starts += segment / size * (size + 1) + segment % size;
  int first = starts[0], last = starts[1];
  double shift[GRIDS];
#pragma unroll
  for (int g = 0; g < GRIDS; g++) shift[g] = g < grids ? magic[g] : 0.0;
  for (int d = threadIdx.x; d < width; d += blockDim.x) {
    double sum[GRIDS];
#pragma unroll
    for (int g = 0; g < GRIDS; g++) sum[g] = 0.0;
    int i = first;
    for (; i + AT_ONCE <= last; i += AT_ONCE) {  // read together
      REAL read[AT_ONCE];
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) read[k] = rows[(i64)order[i + k] * width + d];
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) cut(widened(read[k]), grids, shift, sum);
    }
    for (; i < last; i++) cut(widened(rows[(i64)order[i] * width + d]), grids, shift, sum);
#pragma unroll
    for (int g = 0; g < GRIDS; g++) {
      if (g < grids) sums[g * all + segment * width + d] = sum[g];
    }
  }
}

// counts (size,) += how many rows of all leaves have each code.
extern "C" __global__ void count_rows(const int* starts, int leaves, int size, double* counts) {
  int code = blockIdx.x * blockDim.x + threadIdx.x;
  if (code >= size) return;
  double count = 0.0;
  for (int i = 0; i < leaves; i++) {
    const int* own = starts + (i64)i * (size + 1) + code;
    count += own[1] - own[0];
  }
  counts[code] += count;
}

// total (count,) += the sum of parts (leaves, count), on one grid: exact in any order.
extern "C" __global__ void merge(const double* parts, int leaves, i64 count, double* total) {
  i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  double sum = 0.0;
  for (int i = 0; i < leaves; i++) sum += parts[i * count + at];
  total[at] += sum;
}
