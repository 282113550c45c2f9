// What the kernels ask of the GPU beyond plain C++: types, half precision, matrix products,
// copies in the background.  A test builds the kernels without a GPU by bringing its own.
//
// No header of CUDA is included, so that nothing but the compiler has to be installed.
//
// CuPy compiles everything with -ftz=true: what C++ does with floats takes numbers below 2^-126 for
// zero, and so would lose them.  The functions below that do arithmetic on floats do not.
#pragma once

typedef unsigned int u32;
typedef unsigned short u16;
typedef long long i64;
typedef unsigned long long u64;

constexpr int LANES = 32;  // of a warp
constexpr u32 ALL = 0xffffffffu;

// The bits of one value as another of its size.
template <typename To, typename From>
__device__ __forceinline__ To same_bits(const From& value) {
  static_assert(sizeof(To) == sizeof(From), "");
  To out;
  memcpy(&out, &value, sizeof(To));
  return out;
}

#ifndef RVQ_EMULATED

// The shared memory of the block, of the size that the launch gave.
__device__ __forceinline__ unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

// Rounds to the nearest half precision number, to even on a tie.
__device__ __forceinline__ u16 to_half(float value) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

__device__ __forceinline__ float from_half(u16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// The same for two numbers, the first in the lower half.
__device__ __forceinline__ u32 to_halves(float first, float second) {
#if __CUDA_ARCH__ >= 800
  u32 bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
#else
  return to_half(first) | (u32)to_half(second) << 16;
#endif
}

__device__ __forceinline__ float plus(float x, float y) {
  float out;
  asm("add.rn.f32 %0, %1, %2;" : "=f"(out) : "f"(x), "f"(y));
  return out;
}

__device__ __forceinline__ float minus(float x, float y) {
  float out;
  asm("sub.rn.f32 %0, %1, %2;" : "=f"(out) : "f"(x), "f"(y));
  return out;
}

__device__ __forceinline__ float times(float x, float y) {
  float out;
  asm("mul.rn.f32 %0, %1, %2;" : "=f"(out) : "f"(x), "f"(y));
  return out;
}

__device__ __forceinline__ float lower(float x, float y) {
  float out;
  asm("min.f32 %0, %1, %2;" : "=f"(out) : "f"(x), "f"(y));
  return out;
}

__device__ __forceinline__ float higher(float x, float y) {
  float out;
  asm("max.f32 %0, %1, %2;" : "=f"(out) : "f"(x), "f"(y));
  return out;
}

// The number with the bits of `mark` where `kept` has none: one instruction.
__device__ __forceinline__ float marked(float value, u32 kept, u32 mark) {
  u32 bits;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;"
      : "=r"(bits)
      : "r"(__float_as_uint(value)), "r"(kept), "r"(mark));
  return __uint_as_float(bits);
}

__device__ __forceinline__ float magnitude(float value) {
  return __uint_as_float(__float_as_uint(value) & 0x7fffffffu);
}

__device__ __forceinline__ double widened(float value) {
  double out;
  asm("cvt.f64.f32 %0, %1;" : "=d"(out) : "f"(value));
  return out;
}

__device__ __forceinline__ float narrowed(double value) {
  float out;
  asm("cvt.rn.f32.f64 %0, %1;" : "=f"(out) : "d"(value));
  return out;
}

__device__ __forceinline__ u32 shared_address(const void* pointer) {
  return (u32)__cvta_generic_to_shared(pointer);
}

// Four 8 x 8 matrices of halves; lane l brings the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(u32 (&out)[4], const u16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row)));
}

// sums (16, 8) += a (16, 16) b (16, 8): products exact, sums in single precision, cut off.
__device__ __forceinline__ void multiply(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

#ifdef WGMMA
// What `multiply_wide` reads: 8 x 8 halves lie together, the next eight rows follow them, and the next
// eight numbers of a row are `step` halves further on.
typedef u32 Operand;

__device__ __forceinline__ Operand operand(const u16* first, int step) {
  return shared_address(first) >> 4 | (u32)(step >> 3) << 16;
}

__device__ __forceinline__ Operand further(Operand from, int halves) { return from + (halves >> 3); }

// What was written to shared memory before is seen by the products that follow the next barrier.
__device__ __forceinline__ void show_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void products_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// sums (64, 128) = rows (64, 16) codewords (16, 128), plus what they were if `add`: by four warps together,
// in the background.  A thread has, of every eight columns, what `multiply` gives it of 16 rows.
__device__ __forceinline__ void multiply_wide(float (&sums)[16][4], Operand rows,
                                              Operand codewords, bool add) {
  asm volatile(
      "{\n.reg .pred more;\n.reg .b64 a, b;\nsetp.ne.b32 more, %66, 0;\n"
      "mov.b64 a, {%64, 8};\nmov.b64 b, {%65, 8};\n"  // 8: of 16 bytes, to the next eight rows
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
      "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
      "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
      "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63 "
      "}, a, b, more, 1, 1, 0, 0;\n}"
      :
        "+f"(sums[0][0]), "+f"(sums[0][1]), "+f"(sums[0][2]), "+f"(sums[0][3]),
        "+f"(sums[1][0]), "+f"(sums[1][1]), "+f"(sums[1][2]), "+f"(sums[1][3]),
        "+f"(sums[2][0]), "+f"(sums[2][1]), "+f"(sums[2][2]), "+f"(sums[2][3]),
        "+f"(sums[3][0]), "+f"(sums[3][1]), "+f"(sums[3][2]), "+f"(sums[3][3]),
        "+f"(sums[4][0]), "+f"(sums[4][1]), "+f"(sums[4][2]), "+f"(sums[4][3]),
        "+f"(sums[5][0]), "+f"(sums[5][1]), "+f"(sums[5][2]), "+f"(sums[5][3]),
        "+f"(sums[6][0]), "+f"(sums[6][1]), "+f"(sums[6][2]), "+f"(sums[6][3]),
        "+f"(sums[7][0]), "+f"(sums[7][1]), "+f"(sums[7][2]), "+f"(sums[7][3]),
        "+f"(sums[8][0]), "+f"(sums[8][1]), "+f"(sums[8][2]), "+f"(sums[8][3]),
        "+f"(sums[9][0]), "+f"(sums[9][1]), "+f"(sums[9][2]), "+f"(sums[9][3]),
        "+f"(sums[10][0]), "+f"(sums[10][1]), "+f"(sums[10][2]), "+f"(sums[10][3]),
        "+f"(sums[11][0]), "+f"(sums[11][1]), "+f"(sums[11][2]), "+f"(sums[11][3]),
        "+f"(sums[12][0]), "+f"(sums[12][1]), "+f"(sums[12][2]), "+f"(sums[12][3]),
        "+f"(sums[13][0]), "+f"(sums[13][1]), "+f"(sums[13][2]), "+f"(sums[13][3]),
        "+f"(sums[14][0]), "+f"(sums[14][1]), "+f"(sums[14][2]), "+f"(sums[14][3]),
        "+f"(sums[15][0]), "+f"(sums[15][1]), "+f"(sums[15][2]), "+f"(sums[15][3])
      : "r"(rows), "r"(codewords), "r"((int)add));
}

__device__ __forceinline__ void products_end() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// A copy of many bytes that one thread starts, and what all wait for: the arrival of `bytes`, time
// after time, of which `turn` is 0 and 1 alternately.
typedef u64 Arrival;

__device__ __forceinline__ void arrival_init(Arrival* arrival) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(arrival)) : "memory");
}

__device__ __forceinline__ void arrival_expect(Arrival* arrival, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                   shared_address(arrival)),
               "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void copy_bulk(void* shared, const void* global, u32 bytes,
                                          Arrival* arrival) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(arrival))
      : "memory");
}

__device__ __forceinline__ void arrival_wait(Arrival* arrival, u32 turn) {
  u32 there;
  do {
    asm volatile(
        "{\n.reg .pred there;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 there, [%1], %2;\n"
        "selp.u32 %0, 1, 0, there;\n}"
        : "=r"(there)
        : "r"(shared_address(arrival)), "r"(turn)
        : "memory");
  } while (!there);
}

// Waits until all products are there.
__device__ __forceinline__ void products_wait(float (&sums)[16][4]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
  for (int i = 0; i < 64; i++) asm volatile("" : "+f"(sums[i / 4][i % 4])::"memory");
}
#endif

// Sixteen bytes into shared memory, in the background where the GPU can.
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
#else
  *(uint4*)shared = *(const uint4*)global;
#endif
}

__device__ __forceinline__ void copies_end() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `LEFT` groups of this thread's copies are under way.
template <int LEFT>
__device__ __forceinline__ void copies_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

// Keeps the compiler from reading ahead across it, for want of registers.
__device__ __forceinline__ void one_by_one() { asm volatile("" ::: "memory"); }

#endif

// The same for doubles, of which none are lost.
__device__ __forceinline__ double plus(double x, double y) { return x + y; }
__device__ __forceinline__ double minus(double x, double y) { return x - y; }
__device__ __forceinline__ double times(double x, double y) { return x * y; }
__device__ __forceinline__ double higher(double x, double y) { return y > x ? y : x; }
__device__ __forceinline__ double magnitude(double value) { return fabs(value); }
__device__ __forceinline__ double widened(double value) { return value; }

template <typename T>
__device__ __forceinline__ T warp_min(T value) {
  for (int step = LANES / 2; step > 0; step /= 2) {
    T other = __shfl_xor_sync(ALL, value, step);
    value = other < value ? other : value;
  }
  return value;
}
