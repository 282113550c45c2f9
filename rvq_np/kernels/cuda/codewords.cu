// What the screen of encode.cu reads of the codewords of a stage.
//
// Two launches: the mean of each number and how far the codewords are from it; then the codewords
// less the mean, scaled and rounded to half precision, and what that took away.  Both read K D numbers.

#include "stage.cuh"

constexpr double FAR_OFF = 77371252455336267181195264.0;  // 2^86: half a squared norm of no codeword

__device__ __forceinline__ void rounded(double value, float& out) { out = narrowed(value); }
__device__ __forceinline__ void rounded(double value, double& out) { out = value; }

// centre (width,): the mean of codewords (size, width), rounded; spread (width,): the furthest from it.
// A block of threads takes 32 columns.  Also clears what `round_codewords` raises.
extern "C" __global__ void find_centre(const REAL* codewords, int size, int width, REAL* centre,
                                       double* spread, double* real) {
  constexpr int MOST = 32;  // warps of a block
  __shared__ double sums[MOST][LANES], lows[MOST][LANES], highs[MOST][LANES];
  int lane = threadIdx.x & (LANES - 1), warp = threadIdx.x / LANES, warps = blockDim.x / LANES;
  int d = blockIdx.x * LANES + lane;
  if (blockIdx.x == 0 && threadIdx.x < REAL_COUNT) real[threadIdx.x] = 0.0;
  double part = 1.0 / size, sum = 0.0, low = __longlong_as_double(0x7ff0000000000000ll);
  double high = -low;
  if (d < width) {
#pragma unroll 8
    for (int i = warp; i < size; i += warps) {
      double number = widened(codewords[(i64)i * width + d]);
      sum = fma(number, part, sum);
      low = number < low ? number : low;
      high = number > high ? number : high;
    }
  }
  sums[warp][lane] = sum;
  lows[warp][lane] = low;
  highs[warp][lane] = high;
  __syncthreads();
  if (warp > 0 || d >= width) return;
  for (int i = 1; i < warps; i++) {
    sum += sums[i][lane];
    low = lows[i][lane] < low ? lows[i][lane] : low;
    high = highs[i][lane] > high ? highs[i][lane] : high;
  }
  REAL mean = 0;
  if (low > -1e300 && high < 1e300) rounded(sum, mean);
  centre[d] = mean;
  spread[d] = higher(high - widened(mean), widened(mean) - low);
}

// Codewords (size, width) less the centre, scaled by a power of two and rounded: screen (see `place_of`),
// zeros around them; half (rows,): half squared norms; and the `real` of stage.cuh.  A warp takes a
// row.
extern "C" __global__ void round_codewords(const REAL* codewords, int size, int width, int padded, int rows,
                                       const REAL* centre, const double* spread, u16* screen,
                                       float* half, double* real) {
  int lane = threadIdx.x & (LANES - 1);
  int row = (blockIdx.x * blockDim.x + threadIdx.x) / LANES;
  if (row >= rows) return;
  if (row >= size) {
    for (int d = lane; d < padded; d += LANES) screen[place_of(row, d, padded)] = 0;
    if (lane == 0) half[row] = (float)FAR_OFF;
    return;
  }
  double most = 0.0;
  for (int d = lane; d < width; d += LANES) most = higher(most, spread[d]);
  for (int step = LANES / 2; step > 0; step /= 2) {
    most = higher(most, __shfl_xor_sync(ALL, most, step));
  }
  int unit = most > 0.0 ? 13 - ilogb(most) : 14;  // the largest number falls short of 2^14
  const REAL* codeword = codewords + (i64)row * width;
  double squares = 0.0, rests = 0.0;
  for (int d = lane; d < padded; d += LANES) {
    double moved = 0.0;
    if (d < width) moved = widened(codeword[d]) - widened(centre[d]);
    double scaled = ldexp(moved, unit);
    u16 bits = to_half(narrowed(scaled));
    double rest = scaled - widened(from_half(bits));
    squares = fma(scaled, scaled, squares);
    rests = fma(rest, rest, rests);
    screen[place_of(row, d, padded)] = bits;
  }
  for (int step = LANES / 2; step > 0; step /= 2) {
    squares += __shfl_xor_sync(ALL, squares, step);
    rests += __shfl_xor_sync(ALL, rests, step);
  }
  if (lane > 0) return;
  half[row] = narrowed(0.5 * squares);
  if (row == 0) real[UNIT] = unit;
  auto raise = [&](int what, double value) {  // numbers that are not negative order as their bits
    atomicMax((u64*)real + what, (u64)__double_as_longlong(value * (1.0 + 1e-6) + 1e-30));
  };
  raise(LARGEST, sqrt(squares));
  raise(REST, sqrt(rests));
  raise(HALF, 0.5 * squares);
}
