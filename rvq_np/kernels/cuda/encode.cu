// Codes of all stages, exactly: a screen on the tensor cores, double precision, whole numbers.
//
// Compiled for one type of number, REAL, and one shape of a block: ROW_GROUPS x CODEWORD_GROUPS warps,
// eight in all or fewer.  A block takes 32 ROW_GROUPS rows through all stages.  Each warp meets some
// of them with its share of the codewords; no score of a row and a codeword is ever written to memory.
//
// With WGMMA, four warps together meet 64 rows with all codewords: the tensor cores of compute capability
// 9.0 then read both from shared memory, at a rate that `mma.sync` does not reach there.  Only
// `meet` and the numbers at the top differ.
//
// The score of a codeword is half the squared distance less a part that no codeword can change.  Rows and
// codewords are moved by the mean of the codewords, scaled by powers of two and rounded to half precision:
// the products of those are exact, and what the rounding took away is measured, so the score of
// any codeword is known to within a `slack`.  Per row the codewords fall into CLASSES, by where their
// scores come up; of each class the lowest score, its codeword and the second lowest are kept.
//
// Where a single codeword is within twice the slack of the best, it is the nearest.  Otherwise the
// first of each class, and all of a class whose second is within as well, are measured in double
// precision, and what that cannot distinguish is compared in whole numbers.
//
// About 2 n K D operations a stage on the tensor cores, and n D numbers read and written.  A block
// reads the screen's codewords once, D + D bytes a codeword, from the second-level cache.

#include "exact.cuh"
#include "stage.cuh"

constexpr int WARPS = ROW_GROUPS * CODEWORD_GROUPS;
constexpr int ROWS = LANES * ROW_GROUPS;  // of a block
constexpr int OWN = ROWS / WARPS;         // rows that a warp prepares and decides
constexpr int RUN = 4;                    // of those, at a time
#ifdef WGMMA
constexpr int PARTS = 1;    // sixteens of rows that a warp meets
constexpr int SPAN = 128;   // codewords of a tile that it meets them with
constexpr int GROUPS = 1;   // of warps that share the codewords of a tile
constexpr int DEPTH = 64;   // numbers of a codeword in shared memory at a time
constexpr int BUFFERS = 3;  // of so many numbers of a tile: one is read while the others are filled
static_assert(WARPS == 8 && ROWS == 16 * WARPS && SPAN == TOGETHER, "");
#else
constexpr int PARTS = 2;
constexpr int SPAN = CODEWORD_GROUPS <= 2 ? 64 : 32;
constexpr int GROUPS = CODEWORD_GROUPS;
#if defined(DEEP) || defined(FEW)  // a block alone on its processor waits less often for more numbers
constexpr int DEPTH = 128;
#else
constexpr int DEPTH = CODEWORD_GROUPS <= 2 ? 64 : 32;
#endif
constexpr int BUFFERS = 2;
#endif
#ifdef FEW  // eight rows or fewer: those are the first of what a warp meets, and no others matter
constexpr bool FIRST_ONLY = true;
static_assert(ROW_GROUPS == 1, "");
#else
constexpr bool FIRST_ONLY = false;
#endif
constexpr int TILE = SPAN * GROUPS;  // codewords
constexpr int EIGHTS = SPAN / 8;
constexpr int SPLIT = 2 / PARTS;  // classes that the eights of a column fall into, by turns
constexpr int CLASSES = 8 * GROUPS * SPLIT;
constexpr int EACH = CLASSES * OWN / LANES;  // classes of a row that a lane looks at to decide
static_assert(EACH == 8, "");
// In shared memory eight numbers of each row or codeword lie together, then the next eight of each; rows
// are one more than there are, so that what a warp writes of one at once meets all banks.
constexpr int ROW_STEP = (ROWS + 1) * 8, CODEWORD_STEP = TILE * 8;
constexpr int BUFFER = DEPTH / 8 * CODEWORD_STEP;  // halves
constexpr int KEPT = 256 / EIGHTS;  // tiles whose codewords a number of eight bits can distinguish
constexpr u32 PLACE = 0xffu;
constexpr float NONE = 3e38f;  // the score of no codeword
#ifdef WGMMA  // the compiler makes products wait for each other in a function that is called
#define SCREEN_INLINE __forceinline__
#else
#define SCREEN_INLINE __noinline__
#endif

// How far the sums of the tensor cores may be off, a share of |row| |codeword|: each of the terms of
// one step is cut off at 23 bits below the largest.  Twice what was found on the first such GPUs
// (Fasi, Higham, Mikaitis, Pranesh, PeerJ Computer Science 7, 2021).
__device__ __forceinline__ float summing(int width) { return (1.5f * width + 32.0f) * 2.4e-7f; }

struct Memory {  // shared, of a block
  u16* rows;     // (padded / 8, ROWS + 1, 8) halves
  u16* codewords;    // (BUFFERS, DEPTH / 8, TILE, 8)
  float* half;   // with WGMMA (BUFFERS, TILE): half squared norms of tiles
  float* low;    // (CLASSES, ROWS): the lowest score of a class
  float* second;
  int* codeword;      // of the lowest
  float* factor;  // (ROWS): what half squared norms are multiplied by
  float* slack;   // and then the highest score that a codeword may have to be measured
  int* code;      // (ROWS), where `factor` is until rows are decided
  u32* open;      // (WARPS): which of a warp's rows the screen leaves open
  u64* arrivals;  // with WGMMA (BUFFERS): of what is copied into the buffers
  u64* digits;  // (WARPS, Register<REAL>::DIGITS), where `codewords` are while they are met
};

// Whether the first codewords of a stage may be fetched while digits are in use: they fit into the last
// buffer.
constexpr bool AHEAD = WARPS * Register<REAL>::DIGITS * 8 <= BUFFER * 2;

__device__ __forceinline__ Memory divide(unsigned char* memory, int padded) {
  Memory m;
  m.rows = (u16*)memory;
  m.codewords = m.rows + padded / 8 * ROW_STEP;
  m.digits = (u64*)(m.codewords + (AHEAD ? BUFFERS - 1 : 0) * BUFFER);
  static_assert(WARPS * Register<REAL>::DIGITS * 8 <= BUFFERS * BUFFER * 2, "");
  m.half = (float*)(m.codewords + BUFFERS * BUFFER);
#ifdef WGMMA
  m.low = m.half + BUFFERS * TILE;
#else
  m.low = m.half;
#endif
  m.second = m.low + CLASSES * ROWS;
  m.codeword = (int*)(m.second + CLASSES * ROWS);
  m.factor = (float*)(m.codeword + CLASSES * ROWS);
  m.slack = m.factor + ROWS;
  m.code = (int*)m.factor;
  m.open = (u32*)(m.slack + ROWS);
  m.arrivals = (u64*)(m.open + WARPS);
  return m;
}

constexpr int WIDE = 16 / sizeof(REAL);  // numbers of 16 bytes

// COUNT numbers that are read together.
template <int COUNT>
struct __align__(COUNT * sizeof(REAL)) Numbers {
  REAL number[COUNT];
};

// Writes them together, too: what it was put together from number by number would be written so.
template <int COUNT>
__device__ __forceinline__ void store(REAL* to, const Numbers<COUNT>& numbers) {
  if (COUNT * sizeof(REAL) == 16) {
    *(uint4*)to = same_bits<uint4>(*(const Numbers<WIDE>*)&numbers);
  } else {
    *(Numbers<COUNT>*)to = numbers;
  }
}

// `value[i]` of all lanes, joined, for each i: in the lanes from i LANES / COUNT on.
template <typename T, int COUNT, typename Join>
__device__ __forceinline__ T joined(T (&value)[COUNT], Join join) {
  int lane = threadIdx.x & (LANES - 1);
#pragma unroll
  for (int half = COUNT / 2, step = LANES / 2; half > 0; half /= 2, step /= 2) {
    bool upper = lane & step;
#pragma unroll
    for (int i = 0; i < half; i++) {
      T kept = upper ? value[i + half] : value[i], given = upper ? value[i] : value[i + half];
      value[i] = join(kept, __shfl_xor_sync(ALL, given, step));
    }
  }
#pragma unroll
  for (int step = LANES / COUNT / 2; step > 0; step /= 2) {
    value[0] = join(value[0], __shfl_xor_sync(ALL, value[0], step));
  }
  return value[0];
}

// The power of two of a number that is not negative; of one below the normal ones, one too low.
__device__ __forceinline__ int power_of(float value) {
  return (int)(__float_as_uint(value) >> 23) - 127;
}
__device__ __forceinline__ int power_of(double value) {
  return (int)((u64)__double_as_longlong(value) >> 52) - 1023;
}

// A power of two that is a normal number.
__device__ __forceinline__ void set_power(float& value, int power) {
  value = __uint_as_float((u32)(power + 127) << 23);
}
__device__ __forceinline__ void set_power(double& value, int power) {
  value = __longlong_as_double((i64)(power + 1023) << 52);
}

// Writes a warp's rows of the block in half precision, with their factors and slacks.  The rows are
// those of `from`, or, where `codewords` are given, what is left of them after the codewords of their codes;
// then that is written to `left`.  The mean stands in for all rows but the first `count`.  COUNT
// numbers are read together; `width` is a multiple of it.
template <int COUNT>
__device__ __forceinline__ void round_rows(const Memory& m, int row, int count, const REAL* from,
                                           const REAL* codewords, REAL* left, const REAL* centre,
                                           const double* real, int width, int padded) {
  constexpr int STEP = LANES * COUNT;  // numbers that a warp reads of a row at a time
  using Piece = Numbers<COUNT>;
  int lane = threadIdx.x & (LANES - 1), unit = (int)real[UNIT];
  if (count == 0) from = centre;
#pragma unroll 1
  for (int start = 0; start < OWN; start += RUN) {
    Piece piece[RUN];
    REAL largest[RUN];
#pragma unroll
    for (int i = 0; i < RUN; i++) largest[i] = 0;
    int d = lane * COUNT;
#pragma unroll 1
    for (; d < width; d += STEP) {
#pragma unroll
      for (int i = 0; i < RUN; i++) {  // all are read before one is written
        piece[i] = *(const Piece*)(from + max(0, min(start + i, count - 1)) * width + d);
      }
      if (codewords) {
        Piece codeword[RUN];
#pragma unroll
        for (int i = 0; i < RUN; i++) {
          int code = start + i < count ? m.code[row + start + i] : 0;
          codeword[i] = *(const Piece*)(codewords + (i64)code * width + d);
        }
#pragma unroll
        for (int i = 0; i < RUN; i++) {
#pragma unroll
          for (int k = 0; k < COUNT; k++) {
            piece[i].number[k] = minus(piece[i].number[k], codeword[i].number[k]);
          }
          if (start + i < count) store(left + (start + i) * width + d, piece[i]);
        }
      }
      Piece mean = *(const Piece*)(centre + d);
#pragma unroll
      for (int i = 0; i < RUN; i++) {
#pragma unroll
        for (int k = 0; k < COUNT; k++) {
          REAL& number = piece[i].number[k];
          number = start + i < count ? minus(number, mean.number[k]) : 0;
          largest[i] = higher(largest[i], magnitude(number));
        }
      }
    }
    // From here each lane speaks for one of the rows, until all need all scales.
    REAL most = joined(largest, [](REAL x, REAL y) { return higher(x, y); });
    bool usable = most - most == 0 && (sizeof(REAL) == 4 || widened(most) < 1e300);
    int power = most > 0 && usable ? 13 - power_of(most) : unit;
    power = min(power, unit + 39);  // next to nothing: what rounding takes away is nothing, too
    power = min(power, sizeof(REAL) == 4 ? 127 : 1000);
    int ratio = power - unit;
    REAL scale[RUN];
    float squares[RUN], rests[RUN];
#pragma unroll
    for (int i = 0; i < RUN; i++) {
      int its = __shfl_sync(ALL, usable ? power : 1 << 20, i * (LANES / RUN));
      if (its == 1 << 20) {
        scale[i] = 0;
      } else {
        set_power(scale[i], its);
      }
      squares[i] = rests[i] = 0.0f;
    }
    // What was read last is still there; the rest is read again, backwards.
    bool held = true;
#pragma unroll 1
    for (d -= STEP; d >= 0; d -= STEP, held = false) {
      if (!held) {
        Piece mean = *(const Piece*)(centre + d);
#pragma unroll
        for (int i = 0; i < RUN; i++) {
          if (start + i < count) {
            piece[i] = *(const Piece*)((codewords ? left : from) + (start + i) * width + d);
          }
#pragma unroll
          for (int k = 0; k < COUNT; k++) {
            REAL& number = piece[i].number[k];
            number = start + i < count ? minus(number, mean.number[k]) : 0;
          }
        }
      }
      u16* to = m.rows + d / 8 * ROW_STEP + (row + start) * 8 + d % 8;
#pragma unroll
      for (int i = 0; i < RUN; i++) {
        float value[COUNT];
        u32 halves[(COUNT + 1) / 2];
#pragma unroll
        for (int k = 0; k < COUNT; k++) {
          value[k] = scale[i] > 0 ? (float)times(piece[i].number[k], scale[i]) : 0.0f;
        }
#pragma unroll
        for (int k = 0; k < COUNT; k += 2) {
          halves[k / 2] = to_halves(value[k], value[k + 1 < COUNT ? k + 1 : k]);
        }
        if (COUNT == 1) {
          to[i * 8] = (u16)halves[0];
        } else if (COUNT == 2) {
          *(u32*)(to + i * 8) = halves[0];
        } else {
          *(u64*)(to + i * 8) = halves[0] | (u64)halves[COUNT / 2 - 1] << 32;
        }
#pragma unroll
        for (int k = 0; k < COUNT; k++) {
          float rest = value[k] - from_half((u16)(halves[k / 2] >> (k % 2 * 16)));
          squares[i] = fmaf(value[k], value[k], squares[i]);
          rests[i] = fmaf(rest, rest, rests[i]);
        }
      }
    }
    for (d = width + lane; d < padded; d += LANES) {
#pragma unroll
      for (int i = 0; i < RUN; i++) {
        m.rows[d / 8 * ROW_STEP + (row + start + i) * 8 + d % 8] = 0;
      }
    }
    float square = joined(squares, [](float x, float y) { return x + y; });
    float rest = joined(rests, [](float x, float y) { return x + y; });
    // A row that is huge beside the codewords: half their squares are nothing beside the products.
    float most_codewords = (float)real[LARGEST], codeword_rest = (float)real[REST];
    float half = (float)real[HALF], factor;
    set_power(factor, max(ratio, -40));
    float grown = 1.0f + (width + 16) * 2.4e-7f;  // of a sum of squares, and its root
    float norm = sqrtf(square) * grown + 1e-6f;
    rest = sqrtf(rest) * grown + norm * 3e-7f + 1e-6f;
    float slack = rest * most_codewords + (norm + rest) * codeword_rest;
    slack += summing(width) * (norm + rest) * (most_codewords + codeword_rest);
    slack += 3.2e-5f * (factor * half + (norm + rest) * most_codewords);  // the codeword's place in the score
    __syncwarp();  // the codes that lie where the factors go have been read
    if (lane % (LANES / RUN) == 0) {
      int at = row + start + lane / (LANES / RUN);
      m.factor[at] = factor;
      m.slack[at] = usable ? slack * 1.001f : __int_as_float(0x7f800000);
    }
  }
}

// What is to be copied of a stage's codewords into the buffers, a buffer at a time.
struct Feed {
  const u16* screen;
  const float* half;
  int tiles, tile, start, buffer;

  __device__ __forceinline__ Feed(const u16* codewords, const float* halves, int size)
      : screen(codewords), half(halves), tiles((size + TILE - 1) / TILE), tile(0), start(0), buffer(0) {}

  // Starts to copy some numbers of a tile, if any are left.
  __device__ __forceinline__ void next(const Memory& m, int padded) {
    u16* to = m.codewords + buffer * BUFFER;
#ifdef WGMMA
    if (threadIdx.x == 0 && tile < tiles) {
      const u16* from = screen + (i64)(tile * (padded / 8) + start / 8) * CODEWORD_STEP;
      u64* arrival = m.arrivals + buffer;
      arrival_expect(arrival, 2 * BUFFER + (start ? 0 : 4 * TILE));
      copy_bulk(to, from, 2 * BUFFER, arrival);
      if (start == 0) copy_bulk(m.half + tile % BUFFERS * TILE, half + tile * TILE, 4 * TILE, arrival);
    }
#else
    constexpr int THREADS = WARPS * LANES;
    if (tile < tiles) {
#pragma unroll
      for (int i = threadIdx.x; i < DEPTH / 8 * TILE; i += THREADS) {
        int d = start + i / TILE * 8;
        if (d < padded) copy_async(to + i * 8, screen + place_of(tile * TILE + i % TILE, d, padded));
      }
    }
    copies_end();
#endif
    skip(padded);
  }

  __device__ __forceinline__ void skip(int padded) {
    start += DEPTH;
    tile += start >= padded;
    start = start < padded ? start : 0;
    buffer = buffer + 1 < BUFFERS ? buffer + 1 : 0;
  }
};

// Starts to copy what `screen_codewords` finds in all buffers but one.
__device__ __forceinline__ void fetch_first(const Memory& m, const u16* codewords, const float* half,
                                            int size, int padded) {
  Feed feed(codewords, half, size);
#pragma unroll
  for (int i = 0; i < BUFFERS - 1; i++) feed.next(m, padded);
}

// The lowest scores of what a thread meets: per 8 rows and column of its products.
struct Lowest {
  float first[2][2][2], second[2][2][2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 8; i++) (&first[0][0][0])[i] = (&second[0][0][0])[i] = NONE;
  }
};

// Merges what a thread has seen into the classes, which no other thread writes; its codewords come from
// tiles from `start` on.
__device__ __forceinline__ void flush(const Memory& m, Lowest& seen, int row, int group, int start) {
  int lane = threadIdx.x & (LANES - 1);
#pragma unroll
  for (int i = 0; i < (FIRST_ONLY ? 2 : 8); i++) {
    one_by_one();
    int part = i >> 2, at = row + part / SPLIT * 16 + (i >> 1 & 1) * 8 + lane / 4;
    int turn = part % SPLIT, kind = (group * SPLIT + turn) * 8 + lane % 4 * 2 + (i & 1);
    at += kind * ROWS;
    float first = (&seen.first[0][0][0])[i], second = (&seen.second[0][0][0])[i];
    float low = start ? m.low[at] : NONE, next = start ? m.second[at] : NONE;
    m.second[at] = lower(lower(second, next), higher(first, low));
    if (first < low || start == 0) {
      int place = (int)(__float_as_uint(first) & PLACE);
      m.low[at] = first;
      m.codeword[at] = first < NONE ? (start + place / EIGHTS) * TILE + group * SPAN +
                                      place % EIGHTS * 8 + kind % 8
                                : -1;
    }
  }
  seen.clear();
}

// sums += products of some numbers of the rows of a warp and of a tile: `depth` from `start` on.
// With WGMMA, what the sums were is forgotten if `start` is zero, and DEPTH divides all depths.
__device__ __forceinline__ void meet(const Memory& m, float (&sums)[PARTS][EIGHTS][4], int row,
                                     int group, int buffer, int start, int depth) {
  const u16* codewords = m.codewords + buffer * BUFFER;
#ifdef WGMMA
  Operand rows = operand(m.rows + start / 8 * ROW_STEP + row / 64 * 64 * 8, ROW_STEP);
  Operand theirs = operand(codewords, CODEWORD_STEP);
  products_begin();
#pragma unroll
  for (int d = 0; d < DEPTH; d += 16) {
    multiply_wide(sums[0], further(rows, d / 8 * ROW_STEP), further(theirs, d / 8 * CODEWORD_STEP),
                  start + d > 0);
  }
  products_end();
#else
  int lane = threadIdx.x & (LANES - 1);
  const u16* mine =
      m.rows + (start / 8 + (lane >> 4)) * ROW_STEP + (row + (lane & 15)) * 8;
  codewords += (lane >> 3 & 1) * CODEWORD_STEP + (group * SPAN + (lane >> 4) * 8 + (lane & 7)) * 8;
#pragma unroll 1
  for (int d = 0; d < depth; d += 16) {
    u32 a[PARTS][4], b[4];
#pragma unroll
    for (int i = 0; i < (FIRST_ONLY ? 1 : PARTS); i++) load_matrices(a[i], mine + d / 8 * ROW_STEP + i * 16 * 8);
#pragma unroll
    for (int pair = 0; pair < EIGHTS / 2; pair++) {
      load_matrices(b, codewords + d / 8 * CODEWORD_STEP + pair * 16 * 8);
#pragma unroll
      for (int i = 0; i < (FIRST_ONLY ? 1 : PARTS); i++) {
        multiply(sums[i][2 * pair], a[i], b[0], b[1]);
        multiply(sums[i][2 * pair + 1], a[i], b[2], b[3]);
      }
    }
  }
#endif
}

struct __align__(8) Two {
  float number[2];
};

// Meets the rows of the block with all codewords of a stage, after `fetch_first`.  `turns`: of what
// arrives in each buffer.
__device__ SCREEN_INLINE u32 screen_codewords(const u16* screen, const float* half, int size, int padded,
                                          u32 turns) {
  const Memory m = divide(shared_memory(), padded);
  Feed feed(screen, half, size);
#pragma unroll
  for (int i = 0; i < BUFFERS - 1; i++) feed.skip(padded);
  int warp = threadIdx.x / LANES, lane = threadIdx.x & (LANES - 1);
  int row = warp / GROUPS * 16 * PARTS, group = warp % GROUPS;
  Lowest seen;
  seen.clear();
  float sums[PARTS][EIGHTS][4];
  auto clear = [&] {
#pragma unroll
    for (int i = 0; i < PARTS * EIGHTS * 4; i++) (&sums[0][0][0])[i] = 0.0f;
  };
#ifdef WGMMA
  clear();  // once, or their registers would be taken for in use from one stage to the next
#endif
  int buffer = 0, tiles = (size + TILE - 1) / TILE;  // where the numbers are that are met next
#pragma unroll 1
  for (int tile = 0; tile < tiles; tile++) {
#ifndef WGMMA
    clear();
#endif
#pragma unroll 1
    for (int start = 0; start < padded; start += DEPTH) {
#ifdef WGMMA
      arrival_wait(m.arrivals + buffer, turns >> buffer & 1);
      turns ^= 1u << buffer;
#else
      copies_wait<BUFFERS - 2>();
#endif
      // What was fetched is there, the rows are, and what was met before may be written over.
      __syncthreads();
      meet(m, sums, row, group, buffer, start, min(DEPTH, padded - start));
      feed.next(m, padded);
#ifdef WGMMA
      products_wait(sums[0]);
#endif
      buffer = buffer + 1 < BUFFERS ? buffer + 1 : 0;
    }
    float factor[PARTS][2];
#pragma unroll
    for (int i = 0; i < PARTS * 2; i++) {
      factor[i >> 1][i & 1] = m.factor[row + (i >> 1) * 16 + (i & 1) * 8 + lane / 4];
    }
#ifdef WGMMA
    const float* halves = m.half + tile % BUFFERS * TILE + lane % 4 * 2;
#else
    const float* halves = half + tile * TILE + group * SPAN + lane % 4 * 2;
#endif
#pragma unroll
    for (int eight = 0; eight < EIGHTS; eight++) {
      u32 place = tile % KEPT * EIGHTS + eight;
      Two both = *(const Two*)(halves + eight * 8);
#pragma unroll
      for (int i = 0; i < (FIRST_ONLY ? 2 : PARTS * 4); i++) {
        int low = i & 1, rows = i >> 1 & 1, part = i >> 2;
        float score = fmaf(both.number[low], factor[part][rows], -sums[part][eight][rows * 2 + low]);
        score = marked(score, ~PLACE, place);
        float& first = seen.first[part + eight % SPLIT][rows][low];
        float& second = seen.second[part + eight % SPLIT][rows][low];
        second = lower(second, higher(first, score));
        first = lower(first, score);
      }
    }
    if (tile % KEPT == KEPT - 1 || tile == tiles - 1)
      flush(m, seen, row, group, tile / KEPT * KEPT);
  }
  copies_wait<0>();
  __syncthreads();  // the classes of every row are whole
  return turns;
}

// How many codewords of a class must be measured: none, the first, or all there are.
__device__ __forceinline__ int open_codewords(const Memory& m, int kind, int row, float limit,
                                          int size) {
  if (!(m.second[kind * ROWS + row] > limit)) return (size + TILE - 1) / TILE * (EIGHTS / SPLIT);
  return !(m.low[kind * ROWS + row] > limit);
}

// The codeword that is number `place` of them, or -1.
__device__ __forceinline__ int open_codeword(const Memory& m, int kind, int row, int count, int place,
                                         int size) {
  int codeword = m.codeword[kind * ROWS + row];
  if (count > 1) {
    int eight = place % (EIGHTS / SPLIT) * SPLIT + kind / 8 % SPLIT;
    codeword = place / (EIGHTS / SPLIT) * TILE + kind / 8 / SPLIT * SPAN + eight * 8 + kind % 8;
  }
  return place < count && codeword < size ? codeword : -1;
}

constexpr int BATCH = 8;  // codewords that a warp measures together

// |x - a|^2 as `distance`, by all lanes of the warp together, for BATCH codewords, of which those below
// zero are none: of codeword i in the lanes from i LANES / BATCH on.
template <int COUNT>
__device__ __forceinline__ double distances(const REAL* x, const REAL* codewords,
                                            const int (&numbers)[BATCH], int width) {
  using Piece = Numbers<COUNT>;
  double sums[BATCH] = {};
#pragma unroll 1
  for (int d = (threadIdx.x & (LANES - 1)) * COUNT; d < width; d += LANES * COUNT) {
    Piece own = *(const Piece*)(x + d), codeword[BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      codeword[i] = *(const Piece*)(codewords + (i64)max(0, numbers[i]) * width + d);
    }
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
#pragma unroll
      for (int k = 0; k < COUNT; k++) {
        double difference = widened(own.number[k]) - widened(codeword[i].number[k]);
        sums[i] = fma(difference, difference, sums[i]);
      }
    }
  }
  return joined(sums, [](double x, double y) { return x + y; });
}

// Calls ``measured(codeword, far)`` for all codewords of a row that the screen left open, in batches: a codeword
// and its distance are the same in LANES / BATCH lanes, and the codeword is -1 where there is none.
template <int COUNT, typename Measured>
__device__ __forceinline__ void open_codewords(const Memory& m, int row, float limit, const REAL* from,
                                           const REAL* codewords, int size, int width,
                                           Measured measured) {
  int lane = threadIdx.x & (LANES - 1), filled = 0;
  int batch[BATCH];
  auto meet = [&] {
    double far = distances<COUNT>(from, codewords, batch, width);
    int codeword = -1;
#pragma unroll
    for (int i = 0; i < BATCH; i++) codeword = lane / (LANES / BATCH) == i ? batch[i] : codeword;
    measured(codeword, far);
  };
  auto empty = [&] {
#pragma unroll
    for (int i = 0; i < BATCH; i++) batch[i] = -1;
    filled = 0;
  };
#pragma unroll 1
  for (int whole = 0; whole < 2; whole++) {  // the first codewords of classes, then all of a class
    empty();
#pragma unroll 1
    for (int start = 0; start < CLASSES; start += LANES) {
      int count = start + lane < CLASSES ? open_codewords(m, start + lane, row, limit, size) : 0;
      u32 left = __ballot_sync(ALL, whole ? count > 1 : count == 1);
#pragma unroll 1
      for (; left; left &= left - 1) {
        int kind = start + __ffs(left) - 1;
        int its = whole ? __shfl_sync(ALL, count, kind - start) : 1;
#pragma unroll 1
        for (int place = 0; place < its; place += BATCH) {
          if (whole) {
#pragma unroll
            for (int i = 0; i < BATCH; i++) {
              batch[i] = open_codeword(m, kind, row, its, place + i, size);
            }
            filled = BATCH;
          } else {
            int codeword = open_codeword(m, kind, row, 1, 0, size);
#pragma unroll
            for (int i = 0; i < BATCH; i++) batch[i] = i == filled ? codeword : batch[i];
            filled++;
          }
          if (filled < BATCH) continue;
          meet();
          empty();
        }
      }
    }
    if (filled) meet();
  }
}

// The nearest codeword of a row that the screen left open, the same in all lanes of the warp.
template <int COUNT>
__device__ __forceinline__ int settle(const Memory& m, int row, float limit, const REAL* from,
                                      const REAL* codewords, int size, int width) {
  int lane = threadIdx.x & (LANES - 1);
  double best = __longlong_as_double(0x7ff0000000000000ll), second = best;
  int nearest = -1;
  open_codewords<COUNT>(m, row, limit, from, codewords, size, width, [&](int codeword, double far) {
    if (codeword < 0 || lane % (LANES / BATCH)) return;  // one lane speaks for a codeword
    if (nearest < 0 || far < best) {
      second = nearest < 0 ? second : best;
      best = far;
      nearest = codeword;
    } else if (far < second) {
      second = far;
    }
  });
  double most = reach(warp_min(best), width);
  u32 close = __ballot_sync(ALL, nearest >= 0 && best <= most);
  bool alone = (close & close - 1) == 0 && __ballot_sync(ALL, second <= most) == 0;
  if (alone) return __shfl_sync(ALL, nearest, __ffs(close) - 1);

  u64* digits = m.digits + threadIdx.x / LANES * Register<REAL>::DIGITS;
  nearest = -1;
  open_codewords<COUNT>(m, row, limit, from, codewords, size, width, [&](int codeword, double far) {
    bool open = codeword >= 0 && far <= most && lane % (LANES / BATCH) == 0;
    for (u32 left = __ballot_sync(ALL, open); left; left &= left - 1) {
      int other = __shfl_sync(ALL, codeword, __ffs(left) - 1), order = -1;
      if (nearest >= 0) {
        order = compare(from, codewords + (i64)other * width, from, codewords + (i64)nearest * width, width,
                        digits);
      }
      if (order < 0 || order == 0 && other < nearest) nearest = other;
    }
  });
  return nearest;
}

// Settles what the screen left open of the block's `rows`, a row a warp at a time.
__device__ __noinline__ void settle_all(const REAL* rows, const REAL* codewords, int size, int width,
                                        int padded, bool wide) {
  const Memory m = divide(shared_memory(), padded);
  int warp = threadIdx.x / LANES, lane = threadIdx.x & (LANES - 1);
  u32 open = lane < WARPS ? m.open[lane] : 0;
  int before = __popc(open), own = before;  // open rows up to those of warp `lane`
#pragma unroll
  for (int step = 1; step < WARPS; step *= 2) {
    int other = __shfl_sync(ALL, before, max(0, lane - step));
    before += lane >= step ? other : 0;
  }
  int total = __shfl_sync(ALL, before, WARPS - 1);
  before -= own;
#pragma unroll 1
  for (int turn = warp; turn < total; turn += WARPS) {
    int whose = 31 - __clz(__ballot_sync(ALL, lane < WARPS && before <= turn && own > 0));
    u32 left = __shfl_sync(ALL, open, whose);
    for (int skip = turn - __shfl_sync(ALL, before, whose); skip > 0; skip--) left &= left - 1;
    int row = whose * OWN + __ffs(left) - 1;
    const REAL* from = rows + row * width;
    float limit = m.slack[row];
    int code = wide ? settle<WIDE>(m, row, limit, from, codewords, size, width)
                    : settle<1>(m, row, limit, from, codewords, size, width);
    if (lane == 0) m.code[row] = max(0, code);
  }
}

// The codes of a warp's first `count` rows from `row` of the block on, where the screen alone says
// so, and which rows are open.
__device__ __forceinline__ void decide(const Memory& m, int row, int count, int size) {
  int lane = threadIdx.x & (LANES - 1), own = lane % OWN;
  // Lanes that have a row in common look at EACH of its classes each, and join what they found.
  int at = lane / OWN * EACH * ROWS + row + own;
  float low[EACH], second[EACH], best = NONE;
  int kind = 0;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    low[i] = m.low[at + i * ROWS];
    second[i] = m.second[at + i * ROWS];
    kind = low[i] < best ? i : kind;
    best = lower(best, low[i]);
  }
  int code = m.codeword[at + kind * ROWS];
#pragma unroll
  for (int step = OWN; step < LANES; step *= 2) {
    float other = __shfl_xor_sync(ALL, best, step);
    int its = __shfl_xor_sync(ALL, code, step);
    code = other < best || other == best && (lane & step) ? its : code;
    best = lower(best, other);
  }
  float limit = best + 2.0f * m.slack[row + own];
  limit += 2.4e-7f * fabsf(limit);
  int close = 0;
#pragma unroll
  for (int i = 0; i < EACH; i++) close += !(second[i] > limit) ? 2 : !(low[i] > limit);
#pragma unroll
  for (int step = OWN; step < LANES; step *= 2) close += __shfl_xor_sync(ALL, close, step);
  u32 open = __ballot_sync(ALL, lane < min(count, OWN) && close != 1);
  __syncwarp();  // the slacks have been read
  if (lane < OWN) {
    m.code[row + own] = max(0, code);
    m.slack[row + own] = limit;
  }
  if (lane == 0) m.open[threadIdx.x / LANES] = open;
}

// The codes (stages, all) of rows (n, width).  `x` is what the first stage quantizes; what it and
// the next ones leave over is written to `rows`.
extern "C" __global__ void __launch_bounds__(WARPS* LANES, 2)
    encode(const REAL* x, REAL* rows, i64 n, int width, int padded, int stages, const REAL* codewords,
           const u16* screen, const float* half, const REAL* centre, const i64* whole,
           const double* real, int* codes, i64 all) {
  const Memory m = divide(shared_memory(), padded);
  int warp = threadIdx.x / LANES, lane = threadIdx.x & (LANES - 1);
  int row = warp * OWN;  // of the block: the first that this warp prepares and decides
  i64 first = (i64)blockIdx.x * ROWS;
  int count = (int)min((i64)OWN, max((i64)0, n - first - row));
  x += first * width;
  rows += first * width;
  codes += first + row + lane;
  bool wide = width % WIDE == 0 && (((u64)x | (u64)rows | (u64)codewords | (u64)centre) & 15) == 0;
  const REAL* before = nullptr;  // the codewords of the stage before
  u32 turns = 0;
#ifdef WGMMA
  if (threadIdx.x < BUFFERS) arrival_init(m.arrivals + threadIdx.x);
  show_to_products();
  __syncthreads();  // all can wait for what arrives
#endif
  auto fetch = [&](const i64* its) {
    fetch_first(m, screen + its[SCREEN_AT], half + its[HALF_AT], (int)its[SIZE], padded);
  };
  if (AHEAD) fetch(whole);
#pragma unroll 1
  for (int q = 0; q < stages; q++, whole += WHOLE, real += REAL_COUNT, codes += all) {
    const REAL *from = (q <= 1 ? x : rows) + row * width, *own = codewords + whole[CODEWORDS_AT];
    const REAL* mean = centre + whole[CENTRE_AT];
    int size = (int)whole[SIZE];
    if (wide) {
      round_rows<WIDE>(m, row, count, from, before, rows + row * width, mean, real, width, padded);
    } else {
      round_rows<1>(m, row, count, from, before, rows + row * width, mean, real, width, padded);
    }
#ifdef WGMMA
    show_to_products();
#endif
    if (!AHEAD) fetch(whole);
    turns = screen_codewords(screen + whole[SCREEN_AT], half + whole[HALF_AT], size, padded, turns);
    if (AHEAD && q + 1 < stages) fetch(whole + WHOLE);
    decide(m, row, count, size);
    __syncthreads();  // all warps share in what is open
    u32 open = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) open |= m.open[i];
    if (open) {
      settle_all(q == 0 ? x : rows, own, size, width, padded, wide);
      __syncthreads();  // every row has its code
    }
    if (lane < count) *codes = m.code[row + lane];
    before = own;
  }
}
