// Beam search, one stage: the nearest codewords of every hypothesis, then the best hypotheses.
//
// Distances are taken in double precision; what that cannot order is compared in whole numbers.
// A warp takes a hypothesis, or a row, at a time, and as many are under way as `far` has space for.
// About 2 n B K D operations in double precision, for B hypotheses a row, and n B^2 D to rank.

#include "exact.cuh"

constexpr int WARPS = 4;

__device__ __forceinline__ u64* own_digits() {
  return (u64*)shared_memory() + threadIdx.x / LANES * Register<REAL>::DIGITS;
}

// The least of `count` distances that are not negative, exactly; the first of equals.
// `at(i, row, codeword)` says where the numbers of distance i are.
template <typename At>
__device__ int pick(const double* far, int count, int width, u64* digits, At at) {
  int lane = threadIdx.x & (LANES - 1);
  double best = __longlong_as_double(0x7ff0000000000000ll);
  for (int i = lane; i < count; i += LANES) {
    if (far[i] >= 0.0 && far[i] < best) best = far[i];
  }
  double most = reach(warp_min(best), width);
  int least = -1;
  for (int start = 0; start < count; start += LANES) {
    int i = start + lane;
    bool open = i < count && far[i] >= 0.0 && far[i] <= most;
    for (u32 left = __ballot_sync(ALL, open); left; left &= left - 1) {
      int other = start + __ffs(left) - 1;
      if (least < 0) {
        least = other;
        continue;
      }
      const REAL *x, *a, *y, *b;
      at(other, x, a);
      at(least, y, b);
      if (compare(x, a, y, b, width, digits) < 0) least = other;
    }
  }
  for (int start = 0; least < 0 && start < count; start += LANES) {  // of NaN: whichever is left
    u32 left = __ballot_sync(ALL, start + lane < count && !(far[start + lane] < 0.0));
    if (left) least = start + __ffs(left) - 1;
  }
  return least;
}

// For rows (pairs, width) the `expected` nearest of the codewords that `usable` (count,) names,
// ascending: `chosen` (pairs, expected).  `far` (warps, count) is written over.
extern "C" __global__ void __launch_bounds__(WARPS* LANES)
    propose(const REAL* rows, i64 pairs, int width, const REAL* codewords, const int* usable, int count,
            int expected, double* far, int* chosen) {
  u64* digits = own_digits();
  int lane = threadIdx.x & (LANES - 1);
  i64 warp = (i64)blockIdx.x * WARPS + threadIdx.x / LANES, all = (i64)gridDim.x * WARPS;
  far += warp * count;
  for (i64 pair = warp; pair < pairs; pair += all) {
    const REAL* row = rows + pair * width;
    for (int i = lane; i < count; i += LANES) {
      far[i] = distance(row, codewords + (i64)usable[i] * width, width);
    }
    __syncwarp();
    for (int turn = 0; turn < expected; turn++) {
      int least = pick(far, count, width, digits, [&](int i, const REAL*& x, const REAL*& a) {
        x = row;
        a = codewords + (i64)usable[i] * width;
      });
      __syncwarp();
      if (lane == 0) far[least] = -1.0;  // taken
      __syncwarp();
    }
    int before = 0;
    for (int start = 0; start < count; start += LANES) {
      int i = start + lane;
      bool taken = i < count && far[i] < 0.0;
      u32 votes = __ballot_sync(ALL, taken);
      int rank = before + __popc(votes & ((1u << lane) - 1));
      if (taken) chosen[pair * expected + rank] = usable[i];
      before += __popc(votes);
    }
    __syncwarp();
  }
}

// Of the proposals of each of n rows, `expected` for each of `alive` hypotheses, the `kept` best:
// what they leave (n, kept, width), and the codewords that led to them (n, kept, stage + 1).
extern "C" __global__ void __launch_bounds__(WARPS* LANES)
    rank(const REAL* rows, i64 n, int width, int alive, const REAL* table, const int* chosen,
         int expected, double* far, int kept, REAL* left, const int* before, int stage, int* after) {
  u64* digits = own_digits();
  int lane = threadIdx.x & (LANES - 1), count = alive * expected;
  i64 warp = (i64)blockIdx.x * WARPS + threadIdx.x / LANES, all = (i64)gridDim.x * WARPS;
  far += warp * count;
  for (i64 n_row = warp; n_row < n; n_row += all) {
    const REAL* own = rows + n_row * alive * width;
    const int* proposed = chosen + n_row * count;
    auto at = [&](int i, const REAL*& x, const REAL*& a) {
      x = own + (i64)(i / expected) * width;
      a = table + (i64)proposed[i] * width;
    };
    for (int i = lane; i < count; i += LANES) {
      const REAL *x, *a;
      at(i, x, a);
      far[i] = distance(x, a, width);
    }
    __syncwarp();
    for (int turn = 0; turn < kept; turn++) {
      int least = pick(far, count, width, digits, at);
      __syncwarp();
      if (lane == 0) far[least] = -1.0;
      const REAL *x, *a;
      at(least, x, a);
      i64 place = n_row * kept + turn;
      for (int d = lane; d < width; d += LANES) left[place * width + d] = minus(x[d], a[d]);
      const int* history = before + (n_row * alive + least / expected) * stage;
      for (int q = lane; q < stage; q += LANES) after[place * (stage + 1) + q] = history[q];
      if (lane == 0) after[place * (stage + 1) + stage] = proposed[least];
      __syncwarp();
    }
  }
}
