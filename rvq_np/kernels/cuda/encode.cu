// Codes of all stages, exactly: a screen on the tensor cores, double precision, whole numbers.
//
// Compiled for one type of number, REAL, and one shape of a block: ROW_GROUPS x WORD_GROUPS warps,
// eight in all.  A block takes 32 ROW_GROUPS rows through all stages.  Each warp meets 32 of them
// with its share of the words; no score of a row and a word is ever written to memory.
//
// The score of a word is half the squared distance less a part that no word can change.  Rows and
// words are moved by the mean of the words, scaled by powers of two and rounded to half precision:
// the products of those are exact, and what the rounding took away is measured, so the score of
// any word is known to within a `slack`.  Per row the words fall into CLASSES, by where their
// scores come up; of each class the lowest score, its word and the second lowest are kept.
//
// Where a single word is within twice the slack of the best, it is the nearest.  Otherwise the
// first of each class, and all of a class whose second is within as well, are measured in double
// precision, and what that cannot tell apart is compared in whole numbers.
//
// About 2 n K D operations a stage on the tensor cores, and n D numbers read and written.  A block
// reads the screen's words once, D + D bytes a word, from the second-level cache.

#include "exact.cuh"
#include "stage.cuh"

constexpr int WARPS = ROW_GROUPS * WORD_GROUPS;
constexpr int ROWS = LANES * ROW_GROUPS;          // of a block
constexpr int OWN = ROWS / WARPS;                 // rows that a warp prepares and decides
constexpr int RUN = 4;                            // of those, at a time
constexpr int SPAN = WORD_GROUPS <= 2 ? 64 : 32;  // words of a tile that one warp meets
#ifdef DEEP  // for few rows: a block alone on its processor waits less often for more numbers
constexpr int DEPTH = 128;
#else
constexpr int DEPTH = WORD_GROUPS <= 2 ? 64 : 32;  // numbers of a word in shared memory at a time
#endif
constexpr int TILE = SPAN * WORD_GROUPS;          // words
constexpr int EIGHTS = SPAN / 8;
constexpr int CLASSES = 8 * WORD_GROUPS;
constexpr int SKEW = 8;  // halves between rows in shared memory, so that eight rows meet all banks
constexpr int KEPT = 256 / EIGHTS;  // tiles whose words a number of eight bits can tell apart
constexpr u32 PLACE = 0xffu;
constexpr float NONE = 3e38f;  // the score of no word

// How far the sums of the tensor cores may be off, a share of |row| |word|: each of the terms of
// one step is cut off at 23 bits below the largest.  Twice what was found on the first such cards
// (Fasi, Higham, Mikaitis, Pranesh, PeerJ Computer Science 7, 2021).
__device__ __forceinline__ float summing(int width) { return (1.5f * width + 32.0f) * 2.4e-7f; }

struct Memory {  // shared, of a block
  u16* rows;     // (ROWS, stride) halves
  u16* words;    // (2, TILE, DEPTH + SKEW)
  float* low;    // (CLASSES, ROWS): the lowest score of a class
  float* second;
  int* word;      // of the lowest
  float* factor;  // (ROWS): what half squared norms are multiplied by
  float* slack;
  u64* digits;  // (WARPS, Register<REAL>::DIGITS), where `words` are while they are met
  int stride;
};

__device__ __forceinline__ Memory divide(unsigned char* memory, int padded) {
  Memory m;
  m.stride = padded + SKEW;
  m.rows = (u16*)memory;
  m.words = m.rows + ROWS * m.stride;
  m.digits = (u64*)m.words;
  static_assert(WARPS * Register<REAL>::DIGITS * 8 <= 2 * TILE * (DEPTH + SKEW) * 2, "");
  m.low = (float*)(m.words + 2 * TILE * (DEPTH + SKEW));
  m.second = m.low + CLASSES * ROWS;
  m.word = (int*)(m.second + CLASSES * ROWS);
  m.factor = (float*)(m.word + CLASSES * ROWS);
  m.slack = m.factor + ROWS;
  return m;
}

// Writes RUN rows of the block in half precision, with their factors and slacks.  The mean stands in
// for all but the first `count`.
__device__ __forceinline__ void round_rows(const Memory& m, int row, int count, const REAL* from,
                                           const REAL* centre, const double* real, int width,
                                           int padded) {
  int lane = threadIdx.x & (LANES - 1), unit = (int)real[UNIT];
  const REAL* rows[RUN];
  REAL largest[RUN], scale[RUN];
#pragma unroll
  for (int i = 0; i < RUN; i++) {
    rows[i] = i < count ? from + (i64)i * width : centre;
    largest[i] = 0;
  }
  for (int d = lane; d < width; d += LANES) {
    REAL mean = centre[d];
#pragma unroll
    for (int i = 0; i < RUN; i++) {
      largest[i] = higher(largest[i], magnitude(minus(rows[i][d], mean)));
    }
  }
#pragma unroll
  for (int step = LANES / 2; step > 0; step /= 2) {
#pragma unroll
    for (int i = 0; i < RUN; i++) {
      largest[i] = higher(largest[i], __shfl_xor_sync(ALL, largest[i], step));
    }
  }
  int ratio[RUN];
  bool usable[RUN];
#pragma unroll
  for (int i = 0; i < RUN; i++) {
    double most = widened(largest[i]);
    usable[i] = most < 1e300 && most - most == 0.0;
    int power = most > 0.0 && usable[i] ? 13 - ilogb(most) : unit;
    power = min(power, unit + 39);  // next to nothing: what rounding takes away is nothing, too
    power = min(power, sizeof(REAL) == 4 ? 127 : 1000);
    scale[i] = (REAL)ldexp(1.0, power);
    ratio[i] = power - unit;
  }
  float squares[RUN] = {}, rests[RUN] = {};
  for (int d = lane; d < padded; d += LANES) {
    REAL mean = d < width ? centre[d] : 0;
#pragma unroll
    for (int i = 0; i < RUN; i++) {
      bool there = d < width && usable[i];
      float value = there ? (float)times(minus(rows[i][d], mean), scale[i]) : 0.0f;
      u16 half = to_half(value);
      float rest = value - from_half(half);
      squares[i] = fmaf(value, value, squares[i]);
      rests[i] = fmaf(rest, rest, rests[i]);
      m.rows[(row + i) * m.stride + d] = half;
    }
  }
#pragma unroll
  for (int step = LANES / 2; step > 0; step /= 2) {
#pragma unroll
    for (int i = 0; i < RUN; i++) {
      squares[i] += __shfl_xor_sync(ALL, squares[i], step);
      rests[i] += __shfl_xor_sync(ALL, rests[i], step);
    }
  }
  float words = (float)real[LARGEST], word_rest = (float)real[REST], half = (float)real[HALF];
#pragma unroll
  for (int i = 0; i < RUN; i++) {
    // A row that is huge beside the words: half their squares are nothing beside the products.
    float factor = ldexpf(1.0f, max(ratio[i], -40));
    float grown = 1.0f + (width + 16) * 2.4e-7f;  // of a sum of squares, and its root
    float norm = sqrtf(squares[i]) * grown + 1e-6f;
    float rest = sqrtf(rests[i]) * grown + norm * 3e-7f + 1e-6f;
    float slack = rest * words + (norm + rest) * word_rest;
    slack += summing(width) * (norm + rest) * (words + word_rest);
    slack += 3.2e-5f * (factor * half + (norm + rest) * words);  // the word's place in the score
    if (lane == 0) {
      m.factor[row + i] = factor;
      m.slack[row + i] = usable[i] ? slack * 1.001f : __int_as_float(0x7f800000);
    }
  }
}

// Starts to copy some numbers of a tile of words into one of the two buffers.
__device__ __forceinline__ void fetch(u16* buffer, const u16* screen, int tile, int depth,
                                      int padded) {
  constexpr int PIECES = DEPTH / 8, AT_ONCE = WARPS * LANES / PIECES;  // words
  int word = threadIdx.x / PIECES, d = threadIdx.x % PIECES * 8;
  if (depth + d < padded) {
    const u16* from = screen + (i64)(tile * TILE + word) * padded + depth + d;
    u16* to = buffer + word * (DEPTH + SKEW) + d;
#pragma unroll
    for (int i = 0; i < TILE / AT_ONCE; i++) {
      copy_async(to + i * AT_ONCE * (DEPTH + SKEW), from + i * AT_ONCE * padded);
    }
  }
  copies_end();
}

// The lowest scores of what a thread meets: per 8 rows and column of its products.
struct Lowest {
  float first[2][2][2], second[2][2][2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 8; i++) (&first[0][0][0])[i] = (&second[0][0][0])[i] = NONE;
  }
};

// Merges what a thread has seen into the classes; its words come from tiles from `start` on.
__device__ __forceinline__ void flush(const Memory& m, Lowest& seen, int row, int group, int start) {
  int lane = threadIdx.x & (LANES - 1);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    one_by_one();
    int at = row + (i >> 2) * 16 + (i >> 1 & 1) * 8 + lane / 4;
    int kind = group * 8 + lane % 4 * 2 + (i & 1);
    at += kind * ROWS;
    float first = (&seen.first[0][0][0])[i], second = (&seen.second[0][0][0])[i];
    float low = m.low[at];
    m.second[at] = lower(lower(second, m.second[at]), higher(first, low));
    if (first < low) {
      int place = (int)(__float_as_uint(first) & PLACE);
      m.low[at] = first;
      m.word[at] = (start + place / EIGHTS) * TILE + group * SPAN + place % EIGHTS * 8 + kind % 8;
    }
  }
  seen.clear();
}

// Meets the rows of the block with all words of a stage.
__device__ __noinline__ void screen_words(const u16* screen, const float* half, int size,
                                          int padded) {
  const Memory m = divide(shared_memory(), padded);
  int warp = threadIdx.x / LANES, lane = threadIdx.x & (LANES - 1);
  int row = warp / WORD_GROUPS * LANES, group = warp % WORD_GROUPS;
  int tiles = (size + TILE - 1) / TILE;
  Lowest seen;
  seen.clear();
  for (int i = 0; i < 4; i++) {
    int at = row + (i >> 1) * 16 + (i & 1) * 8 + lane / 4;
    for (int column = 0; column < 2; column++) {
      int kind = group * 8 + lane % 4 * 2 + column;
      m.low[kind * ROWS + at] = m.second[kind * ROWS + at] = NONE;
      m.word[kind * ROWS + at] = -1;
    }
  }
  const u16* mine = m.rows + (row + (lane & 15)) * m.stride + (lane >> 4) * 8;
  int theirs = (group * SPAN + (lane >> 4) * 8 + (lane & 7)) * (DEPTH + SKEW) + (lane >> 3 & 1) * 8;
  int buffer = 0;  // where the numbers are that are met next
  fetch(m.words, screen, 0, 0, padded);
#pragma unroll 1
  for (int tile = 0; tile < tiles; tile++) {
    float sums[2][EIGHTS][4];
#pragma unroll
    for (int i = 0; i < 2 * EIGHTS * 4; i++) (&sums[0][0][0])[i] = 0.0f;
#pragma unroll 1
    for (int start = 0; start < padded; start += DEPTH) {
      copies_wait<0>();
      // What was fetched is there, the rows are, and what was met before may be written over.
      __syncthreads();
      const u16* words = m.words + buffer + theirs;
      buffer = TILE * (DEPTH + SKEW) - buffer;
      if (start + DEPTH < padded) {
        fetch(m.words + buffer, screen, tile, start + DEPTH, padded);
      } else if (tile + 1 < tiles) {
        fetch(m.words + buffer, screen, tile + 1, 0, padded);
      }
      int depth = min(DEPTH, padded - start);
#pragma unroll 1
      for (int d = 0; d < depth; d += 16) {
        u32 a[2][4], b[4];
        load_matrices(a[0], mine + start + d);
        load_matrices(a[1], mine + 16 * m.stride + start + d);
#pragma unroll
        for (int pair = 0; pair < EIGHTS / 2; pair++) {
          load_matrices(b, words + pair * 16 * (DEPTH + SKEW) + d);
#pragma unroll
          for (int i = 0; i < 2; i++) {
            multiply(sums[i][2 * pair], a[i], b[0], b[1]);
            multiply(sums[i][2 * pair + 1], a[i], b[2], b[3]);
          }
        }
      }
    }
    float factor[2][2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      factor[i >> 1][i & 1] = m.factor[row + (i >> 1) * 16 + (i & 1) * 8 + lane / 4];
    }
    const float* halves = half + tile * TILE + group * SPAN + lane % 4 * 2;
#pragma unroll
    for (int eight = 0; eight < EIGHTS; eight++) {
      u32 place = tile % KEPT * EIGHTS + eight;
      float both[2] = {halves[eight * 8], halves[eight * 8 + 1]};
#pragma unroll
      for (int i = 0; i < 8; i++) {
        int low = i & 1, rows = i >> 1 & 1, part = i >> 2;
        float score = fmaf(both[low], factor[part][rows], -sums[part][eight][rows * 2 + low]);
        score = __uint_as_float(__float_as_uint(score) & ~PLACE | place);
        float& first = seen.first[part][rows][low];
        float& second = seen.second[part][rows][low];
        second = lower(second, higher(first, score));
        first = lower(first, score);
      }
    }
    if (tile % KEPT == KEPT - 1 || tile == tiles - 1)
      flush(m, seen, row, group, tile / KEPT * KEPT);
  }
  __syncthreads();  // the classes of every row are whole
}

// How many words of a class must be measured: none, the first, or all there are.
__device__ __forceinline__ int open_words(const Memory& m, int kind, int row, float limit,
                                          int size) {
  if (!(m.second[kind * ROWS + row] > limit)) return (size + TILE - 1) / TILE * EIGHTS;
  return !(m.low[kind * ROWS + row] > limit);
}

// The word that lane `place` of them is to measure, or -1.
__device__ __forceinline__ int open_word(const Memory& m, int kind, int row, int count, int place,
                                         int size) {
  int word = m.word[kind * ROWS + row];
  if (count > 1) {
    word = place / EIGHTS * TILE + kind / 8 * SPAN + place % EIGHTS * 8 + kind % 8;
  }
  return place < count && word < size ? word : -1;
}

// |x - a|^2 as `distance`, by all lanes of the warp together: the same in all of them.
__device__ __forceinline__ double distance_by_all(const REAL* x, const REAL* a, int width) {
  double sum = 0.0;
  for (int d = threadIdx.x & (LANES - 1); d < width; d += LANES) {
    double difference = widened(x[d]) - widened(a[d]);
    sum = fma(difference, difference, sum);
  }
  for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(ALL, sum, step);
  return sum;
}

// Calls ``meet(kind, count)`` for the classes with words to be measured, in all lanes of the warp.
template <typename Meet>
__device__ __forceinline__ void open_classes(const Memory& m, int row, float limit, int size,
                                             Meet meet) {
  int lane = threadIdx.x & (LANES - 1);
  for (int start = 0; start < CLASSES; start += LANES) {
    int count = start + lane < CLASSES ? open_words(m, start + lane, row, limit, size) : 0;
    for (u32 left = __ballot_sync(ALL, count > 0); left; left &= left - 1) {
      int at = __ffs(left) - 1;
      meet(start + at, __shfl_sync(ALL, count, at));
    }
  }
}

// The nearest word of a row that the screen left open, the same in all lanes of the warp.
__device__ __noinline__ int settle(int row, float limit, const REAL* from, const REAL* words,
                                   int size, int width, int padded) {
  const Memory m = divide(shared_memory(), padded);
  int lane = threadIdx.x & (LANES - 1);
  double best = __longlong_as_double(0x7ff0000000000000ll), second = best;
  int nearest = -1;
  auto take = [&](int word, double far) {
    if (nearest < 0 || far < best) {
      second = nearest < 0 ? second : best;
      best = far;
      nearest = word;
    } else if (far < second) {
      second = far;
    }
  };
  open_classes(m, row, limit, size, [&](int kind, int count) {
    if (count == 1) {
      int word = open_word(m, kind, row, count, 0, size);
      if (word < 0) return;
      double far = distance_by_all(from, words + (i64)word * width, width);
      if (lane == 0) take(word, far);
      return;
    }
    for (int place = lane; place < count; place += LANES) {
      int word = open_word(m, kind, row, count, place, size);
      if (word >= 0) take(word, distance(from, words + (i64)word * width, width));
    }
  });
  double most = reach(warp_min(best), width);
  u32 close = __ballot_sync(ALL, nearest >= 0 && best <= most);
  bool alone = (close & close - 1) == 0 && __ballot_sync(ALL, second <= most) == 0;
  if (alone) return __shfl_sync(ALL, nearest, __ffs(close) - 1);

  u64* digits = m.digits + threadIdx.x / LANES * Register<REAL>::DIGITS;
  nearest = -1;
  auto match = [&](int word) {
    int order = -1;
    if (nearest >= 0) {
      order = compare(from, words + (i64)word * width, from, words + (i64)nearest * width, width,
                      digits);
    }
    if (order < 0 || order == 0 && word < nearest) nearest = word;
  };
  open_classes(m, row, limit, size, [&](int kind, int count) {
    if (count == 1) {
      int word = open_word(m, kind, row, count, 0, size);
      if (word < 0) return;
      if (distance_by_all(from, words + (i64)word * width, width) <= most) match(word);
      return;
    }
    for (int start = 0; start < count; start += LANES) {
      int word = open_word(m, kind, row, count, start + lane, size);
      bool open = word >= 0 && distance(from, words + (i64)word * width, width) <= most;
      for (u32 left = __ballot_sync(ALL, open); left; left &= left - 1) {
        match(__shfl_sync(ALL, word, __ffs(left) - 1));
      }
    }
  });
  return nearest;
}

// The codes (stages, all) of rows (n, width).  `x` is what the first stage quantizes; what it and
// the next ones leave over is written to `rows`.
extern "C" __global__ void __launch_bounds__(WARPS* LANES, 2)
    encode(const REAL* x, REAL* rows, i64 n, int width, int padded, int stages, const REAL* words,
           const u16* screen, const float* half, const REAL* centre, const i64* whole,
           const double* real, int* codes, i64 all) {
  const Memory m = divide(shared_memory(), padded);
  int warp = threadIdx.x / LANES, lane = threadIdx.x & (LANES - 1);
  int row = warp * OWN;  // of the block: the first that this warp prepares and decides
  i64 first = (i64)blockIdx.x * ROWS + row;
  int count = (int)min((i64)OWN, max((i64)0, n - first));
  for (int q = 0; q < stages; q++, whole += WHOLE, real += REAL_COUNT) {
    const REAL* from = (q == 0 ? x : rows) + first * width;
    const REAL* own = words + whole[WORDS_AT];
    int size = (int)whole[SIZE];
#pragma unroll 1
    for (int i = 0; i < OWN; i += RUN) {
      round_rows(m, row + i, count - i, from + (i64)i * width, centre + whole[CENTRE_AT], real,
                 width, padded);
    }
    screen_words(screen + whole[SCREEN_AT], half + whole[HALF_AT], size, padded);

    float best = NONE, limit = 0.0f;
    int code = 0, close = 0;
    if (lane < count) {
      for (int kind = 0; kind < CLASSES; kind++) {
        float low = m.low[kind * ROWS + row + lane];
        if (low < best) {
          best = low;
          code = m.word[kind * ROWS + row + lane];
        }
      }
      limit = best + 2.0f * m.slack[row + lane];
      limit += 2.4e-7f * fabsf(limit);
      for (int kind = 0; kind < CLASSES; kind++) {
        close += open_words(m, kind, row + lane, limit, size);
      }
    }
    for (u32 left = __ballot_sync(ALL, lane < count && close != 1); left; left &= left - 1) {
      int i = __ffs(left) - 1;
      float its = __shfl_sync(ALL, limit, i);
      int settled = settle(row + i, its, from + (i64)i * width, own, size, width, padded);
      if (lane == i) code = settled;
    }
    if (lane < count) codes[q * all + first + lane] = code;
    if (q + 1 < stages) {
#pragma unroll 1
      for (int start = 0; start < count; start += RUN) {
        const REAL *read[RUN], *word[RUN];
#pragma unroll
        for (int i = 0; i < RUN; i++) {
          int at = min(start + i, count - 1);
          read[i] = from + (i64)at * width;
          word[i] = own + (i64)__shfl_sync(ALL, code, at) * width;
        }
        for (int d = lane; d < width; d += LANES) {
          REAL left[RUN];  // all are read before one is written
#pragma unroll
          for (int i = 0; i < RUN; i++) left[i] = minus(read[i][d], word[i][d]);
#pragma unroll
          for (int i = 0; i < RUN; i++) {
            if (start + i < count) rows[(first + start + i) * width + d] = left[i];
          }
        }
      }
    }
    __syncthreads();  // what is in shared memory may be written over
  }
}
