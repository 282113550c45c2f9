// A GPU made of one processor core: enough of CUDA to run the kernels of rvq_np/kernels/cuda.
//
// No evidence for a GPU: what runs here is the same source, compiled for this machine.  Threads of
// a block are fibers that take turns in an order drawn again at every turn, or warps that go as far as
// barriers let them, by turns of the seed: a missing barrier shows as other codes.  Copies in the background arrive as late as
// they may, and matrix products are cut off as roughly as on the first GPUs that had them.  Where
// REAL is float, arithmetic takes numbers below 2^-126 for zero, as in all that CuPy compiles.
#pragma once
#define RVQ_EMULATED

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>
#include <xmmintrin.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

struct Place {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
using std::memcpy;

namespace gpu {

constexpr int WARP = 32;
constexpr size_t STACK = 1 << 16;
constexpr size_t GUARD = 1 << 14;  // bytes around shared memory that must not be written
constexpr unsigned FLUSH = 0x8040;  // of results and of what goes in, see _mm_setcsr

struct Copy {
  void* to;
  const void* from;
};

struct Products {  // see multiply_wide
  const unsigned short* rows;
  int rows_step;
  const unsigned short* codewords;
  int codewords_step;
  bool add;
};

struct Fiber {
  void* top = nullptr;  // of its stack, where it stopped
  std::vector<char> stack;
  Place thread;
  int lane, warp, parity = 0;
  bool done = false;
  const int* gate = nullptr;  // it waits until this number is no longer `seen`
  int seen = 0;
  std::vector<std::vector<Copy>> groups{{}};
  std::vector<Products> products;
};

struct Warp {
  int arrived = 0, turn = 0;
  uint64_t slots[2][WARP][8];
};

struct Bulk {
  void* to;
  const void* from;
  size_t bytes;
};
struct Arriving {
  unsigned long long* arrival;
  size_t bytes;
  std::vector<Bulk> copies;
};

inline std::vector<Arriving> arriving;
inline int expected;  // how often something was
inline std::vector<Fiber> fibers;
inline std::vector<Warp> warps;
inline Fiber* current;
inline Place block, grid, shape;
inline unsigned char* memory;
inline int arrived, turn;
inline void* home;
inline const std::function<void()>* body;
inline uint64_t draws;
inline bool eager;  // each warp goes as far as it can before another has a turn

inline char failure[200];

extern "C" void gpu_switch(void** leave, void* enter);

// Ends the launch: the thread that says so stops here for good, and its block with it.
inline void fail(const char* what) {
  std::snprintf(failure, sizeof(failure), "%s (block %u, thread %u)", what, block.x,
                current ? current->thread.x : 0);
  while (current) gpu_switch(&current->top, home);
}

inline unsigned draw() {
  draws ^= draws << 13;
  draws ^= draws >> 7;
  draws ^= draws << 17;
  return (unsigned)(draws >> 32);
}

#if defined(__x86_64__)
asm(R"(
.text
.weak gpu_switch
.type gpu_switch, @function
gpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
constexpr int SAVED = 6;
#else
#error "the emulated GPU switches between threads on x86-64 only"
#endif

inline void pause() { gpu_switch(&current->top, home); }

inline void start() {
  (*body)();
  current->done = true;
  for (;;) pause();
}

inline void wait(const int* gate, int seen) {
  current->gate = gate;
  current->seen = seen;
  pause();
}

inline void meet_block() {
  if (++arrived == (int)fibers.size()) {
    arrived = 0;
    turn++;
  } else {
    wait(&turn, turn);
  }
}

inline void meet_warp() {
  Warp& own = warps[current->warp];
  if (++own.arrived == WARP) {
    own.arrived = 0;
    own.turn++;
  } else {
    wait(&own.turn, own.turn);
  }
}

// Shows `codewords` numbers of this lane to its warp; returns those of all lanes.
inline uint64_t (*show(const uint64_t* numbers, int codewords))[8] {
  auto* slots = warps[current->warp].slots[current->parity ^= 1];
  for (int i = 0; i < codewords; i++) slots[current->lane][i] = numbers[i];
  meet_warp();
  return slots;
}

template <typename T>
T exchange(T value, int lane) {
  static_assert(sizeof(T) <= 8);
  uint64_t number = 0;
  std::memcpy(&number, &value, sizeof(T));
  number = show(&number, 1)[lane & (WARP - 1)][0];
  std::memcpy(&value, &number, sizeof(T));
  return value;
}

inline void run_block(size_t shared) {
  std::memset(memory - GUARD, 0xa5, shared + 2 * GUARD);  // no zeros that a kernel might count on
  arrived = turn = 0;
  for (auto& warp : warps) warp.arrived = warp.turn = 0;
  for (size_t i = 0; i < fibers.size(); i++) {
    Fiber& fiber = fibers[i];
    fiber.thread = {(unsigned)i, 0, 0};
    fiber.lane = (int)i % WARP;
    fiber.warp = (int)i / WARP;
    fiber.done = false;
    fiber.gate = nullptr;
    fiber.groups.assign(1, {});
    fiber.products.clear();
    if (fiber.stack.empty()) fiber.stack.resize(STACK);
    auto end = ((uintptr_t)fiber.stack.data() + STACK) & ~(uintptr_t)15;
    void** top = (void**)end - 2;  // as a call would leave it
    *top = (void*)&start;
    fiber.top = top - SAVED;
  }
  size_t left = fibers.size();
  auto turns = [&](size_t first, size_t count) {  // whether a thread of these could go on
    bool moved = false;
    size_t from = draw() % count, step = draw() & 1 ? 1 : count - 1;
    for (size_t i = 0; i < count && !*failure; i++) {
      Fiber& fiber = fibers[first + (from + i * step) % count];
      if (fiber.done || (fiber.gate && *fiber.gate == fiber.seen)) continue;
      fiber.gate = nullptr;
      current = &fiber;
      gpu_switch(&home, fiber.top);
      current = nullptr;
      moved = true;
      left -= fiber.done;
    }
    return moved;
  };
  while (left && !*failure) {
    bool moved = false;
    if (eager) {
      size_t from = draw() % warps.size();
      for (size_t i = 0; i < warps.size(); i++) {
        size_t first = (from + i) % warps.size() * WARP;
        while (left && !*failure && turns(first, WARP)) moved = true;
      }
    } else {
      moved = turns(0, fibers.size());
    }
    if (!moved && !*failure) fail("threads wait for each other for ever");
  }
  if (*failure) return;
  for (size_t i = 0; i < GUARD; i++) {
    if (memory[shared + i] != 0xa5 || memory[i - GUARD] != 0xa5)
      return fail("a kernel wrote outside its shared memory");
  }
}

// Returns what went wrong, or nothing.
inline const char* launch(unsigned blocks, unsigned rows, unsigned threads, size_t shared,
                          unsigned seed, const std::function<void()>& kernel) {
  *failure = 0;
  current = nullptr;
  if (threads % WARP) return "blocks are whole warps here";
  draws = 0x9e3779b97f4a7c15ull * (seed + 1);
  eager = seed & 1;
  std::vector<unsigned char> bytes(shared + 2 * GUARD + 16);
  memory = (unsigned char*)(((uintptr_t)bytes.data() + GUARD + 15) & ~(uintptr_t)15);
  fibers.resize(threads);
  warps.resize(threads / WARP);
  body = &kernel;
  grid = {blocks, rows, 1};
  shape = {threads, 1, 1};
  unsigned before = _mm_getcsr();
  if (std::is_same<REAL, float>::value) _mm_setcsr(before | FLUSH);
  for (unsigned y = 0; y < rows; y++) {
    for (unsigned x = 0; x < blocks && !*failure; x++) {
      block = {x, y, 0};
      run_block(shared);
    }
  }
  _mm_setcsr(before);
  return failure;
}

}  // namespace GPU

inline unsigned char* shared_memory() { return gpu::memory; }

#define threadIdx (gpu::current->thread)
#define blockIdx (gpu::block)
#define blockDim (gpu::shape)
#define gridDim (gpu::grid)

using std::fabs;
using std::fma;
using std::ilogb;
using std::ldexp;
using std::sqrt;

template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}

template <typename To, typename From>
To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  std::memcpy(&out, &value, sizeof(To));
  return out;
}
inline unsigned __float_as_uint(float value) { return bits_as<unsigned>(value); }
inline float __uint_as_float(unsigned value) { return bits_as<float>(value); }
inline float __int_as_float(int value) { return bits_as<float>(value); }
inline double __longlong_as_double(long long value) { return bits_as<double>(value); }
inline long long __double_as_longlong(double value) { return bits_as<long long>(value); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __clz(unsigned value) { return value ? __builtin_clz(value) : 32; }
inline int __ffs(unsigned value) { return __builtin_ffs((int)value); }
inline unsigned long long atomicAdd(unsigned long long* to, unsigned long long value) {
  unsigned long long before = *to;
  *to = before + value;
  return before;
}

inline unsigned atomicAdd(unsigned* to, unsigned value) {
  unsigned before = *to;
  *to = before + value;
  return before;
}
inline unsigned long long atomicMax(unsigned long long* to, unsigned long long value) {
  unsigned long long before = *to;
  *to = before < value ? value : before;
  return before;
}

inline void __syncthreads() { gpu::meet_block(); }
inline void __syncwarp() { gpu::meet_warp(); }
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return gpu::exchange(value, lane);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int step) {
  return gpu::exchange(value, gpu::current->lane ^ step);
}
inline unsigned __ballot_sync(unsigned, bool value) {
  uint64_t number = value;
  auto* slots = gpu::show(&number, 1);
  unsigned votes = 0;
  for (int lane = 0; lane < gpu::WARP; lane++) votes |= (unsigned)(slots[lane][0] & 1) << lane;
  return votes;
}

inline unsigned __match_any_sync(unsigned, int value) {
  uint64_t number = (unsigned)value;
  auto* slots = gpu::show(&number, 1);
  unsigned same = 0;
  for (int lane = 0; lane < gpu::WARP; lane++) {
    same |= (unsigned)(slots[lane][0] == number) << lane;
  }
  return same;
}

// Arithmetic that loses no small numbers, whatever the rest does.
struct Exact {
  unsigned before = _mm_getcsr();
  Exact() { _mm_setcsr(before & ~gpu::FLUSH); }
  ~Exact() { _mm_setcsr(before); }
};
template <typename To, typename Function, typename... From>
__attribute__((noinline)) To exactly(Function function, From... from) {
  Exact exact;
  volatile To out = function(*(volatile From*)&from...);
  return out;
}
inline float plus(float x, float y) {
  return exactly<float>([](float a, float b) { return a + b; }, x, y);
}
inline float minus(float x, float y) {
  return exactly<float>([](float a, float b) { return a - b; }, x, y);
}
inline float times(float x, float y) {
  return exactly<float>([](float a, float b) { return a * b; }, x, y);
}
inline double widened(float value) {
  return exactly<double>([](float a) { return (double)a; }, value);
}
inline float narrowed(double value) {
  return exactly<float>([](double a) { return (float)a; }, value);
}
inline float marked(float value, unsigned kept, unsigned mark) {
  return bits_as<float>(bits_as<unsigned>(value) & kept | mark);
}
inline float magnitude(float value) {
  return bits_as<float>(bits_as<unsigned>(value) & 0x7fffffffu);
}
inline int ordered(float value) {  // an integer that compares as the number does
  int bits = bits_as<int>(value);
  return bits < 0 ? bits ^ 0x7fffffff : bits;
}
inline float lower(float x, float y) { return ordered(y) < ordered(x) ? y : x; }
inline float higher(float x, float y) { return ordered(x) < ordered(y) ? y : x; }

inline unsigned short to_half(float value) { return bits_as<unsigned short>((_Float16)value); }
inline unsigned to_halves(float first, float second) {
  return to_half(first) | (unsigned)to_half(second) << 16;
}
inline float from_half(unsigned short bits) { return (float)bits_as<_Float16>(bits); }

inline void load_matrices(unsigned (&out)[4], const unsigned short* row) {
  if ((uintptr_t)row % 16) gpu::fail("a row of a matrix is not aligned to 16 bytes");
  uint64_t number = (uint64_t)(uintptr_t)row;
  auto* slots = gpu::show(&number, 1);
  int lane = gpu::current->lane;
  for (int matrix = 0; matrix < 4; matrix++) {
    auto* from = (const unsigned short*)(uintptr_t)slots[matrix * 8 + lane / 4][0];
    std::memcpy(&out[matrix], from + lane % 4 * 2, 4);
  }
}

// The sum of a number and products, each cut off 23 bits below the largest, then cut to a float.
inline float cut_sum(float sum, const double* products, int count) {
  double largest = std::fabs((double)sum);
  for (int i = 0; i < count; i++) largest = std::fmax(largest, std::fabs(products[i]));
  if (largest == 0.0) return 0.0f;
  double unit = std::ldexp(1.0, std::ilogb(largest) - 23);
  double total = std::trunc(sum / unit);
  for (int i = 0; i < count; i++) total += std::trunc(products[i] / unit);
  total *= unit;
  if (total == 0.0) return 0.0f;
  double last = std::ldexp(1.0, std::ilogb(total) - 23);
  return (float)(std::trunc(total / last) * last);
}

inline void multiply(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  uint64_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  auto* slots = gpu::show(mine, 6);
  int lane = gpu::current->lane;
  auto half = [&](int from, int part, int place) {
    return (double)from_half((unsigned short)(slots[from][part] >> (16 * place)));
  };
  for (int out = 0; out < 4; out++) {
    int row = lane / 4, column = lane % 4 * 2 + (out & 1), below = out >> 1;
    double products[16];
    for (int k = 0; k < 16; k++) {
      int from = k % 8 / 2, place = k & 1, upper = k / 8;
      products[k] = half(row * 4 + from, below + 2 * upper, place) *
                    half(column * 4 + from, 4 + upper, place);
    }
    sums[out] = cut_sum(sums[out], products, 16);
  }
}

// Products in the background read shared memory as late as they may: when they are waited for.
inline void show_to_products() {}
inline void products_begin() {}
inline void products_end() {}
struct Operand {
  const unsigned short* first;
  int step;
};
inline Operand operand(const unsigned short* first, int step) {
  if ((uintptr_t)first % 16) gpu::fail("an operand is not aligned");
  return {first, step};
}
inline Operand further(Operand from, int halves) { return {from.first + halves, from.step}; }
inline void multiply_wide(float (&sums)[16][4], Operand rows, Operand codewords, bool add) {
  gpu::current->products.push_back({rows.first, rows.step, codewords.first, codewords.step, add});
}
inline void products_wait(float (&sums)[16][4]) {
  int lane = gpu::current->lane, row = gpu::current->warp % 4 * 16 + lane / 4;
  for (auto& each : gpu::current->products) {
    for (int eight = 0; eight < 16; eight++) {
      for (int out = 0; out < 4; out++) {
        int own = row + out / 2 * 8, column = eight * 8 + lane % 4 * 2 + out % 2;
        double products[16];
        for (int k = 0; k < 16; k++) {
          products[k] = (double)from_half(each.rows[k / 8 * each.rows_step + own * 8 + k % 8]) *
                        from_half(each.codewords[k / 8 * each.codewords_step + column * 8 + k % 8]);
        }
        sums[eight][out] = cut_sum(each.add ? sums[eight][out] : 0.0f, products, 16);
      }
    }
  }
  gpu::current->products.clear();
}

// What arrives in bulk does so when it is first waited for.
typedef unsigned long long Arrival;  // how often it came
inline void arrival_init(Arrival* arrival) {
  *arrival = 0;
  gpu::arriving.clear();
}
inline void arrival_expect(Arrival* arrival, unsigned bytes) {
  gpu::arriving.push_back({arrival, bytes, {}});
  gpu::expected++;
}
inline void copy_bulk(void* shared, const void* global, unsigned bytes, Arrival* arrival) {
  if ((uintptr_t)shared % 16 || (uintptr_t)global % 16) gpu::fail("a copy is not aligned");
  auto& last = gpu::arriving.back();
  if (last.arrival != arrival || last.bytes < bytes) gpu::fail("an unexpected copy");
  last.bytes -= bytes;
  last.copies.push_back({shared, global, bytes});
}
inline void arrival_wait(Arrival* arrival, unsigned turn) {
  while ((*arrival & 1) == turn) {
    for (auto& each : gpu::arriving) {
      if (each.arrival != arrival) continue;
      if (each.bytes) gpu::fail("less was copied than expected");
      for (auto& copy : each.copies) std::memcpy(copy.to, copy.from, copy.bytes);
      ++*arrival;
      gpu::arriving.erase(gpu::arriving.begin() + (&each - gpu::arriving.data()));
      return;
    }
    gpu::wait(&gpu::expected, gpu::expected);
  }
}

inline void copy_async(void* shared, const void* global) {
  if ((uintptr_t)shared % 16 || (uintptr_t)global % 16) gpu::fail("a copy is not aligned");
  gpu::current->groups.back().push_back({shared, global});
}
inline void copies_end() { gpu::current->groups.emplace_back(); }
template <int LEFT>
void copies_wait() {
  auto& groups = gpu::current->groups;  // the last one is still open
  while (groups.size() > LEFT + 1) {
    for (auto& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
    groups.erase(groups.begin());
  }
}
inline void one_by_one() {}
