// What encode.cu is reported of a stage, besides its arrays: columns of `whole` and of `real`.
#pragma once

#include "device.cuh"

// Codewords, and where its own begin in each array of all stages.
enum { SIZE, CODEWORDS_AT, SCREEN_AT, HALF_AT, CENTRE_AT, WHOLE };

// The power of two that codewords are scaled by, and the largest of their norms, of the norms of what
// rounding took from them, and of half their squared norms, all after scaling.
enum { UNIT, LARGEST, REST, HALF, REAL_COUNT };

// Where number d of a codeword is in the screen: of each 128 codewords, eight numbers of each lie
// together, and then the next eight of each, as the products read them.
constexpr int TOGETHER = 128;

__device__ __forceinline__ i64 place_of(int codeword, int d, int padded) {
  return ((i64)(codeword / TOGETHER) * (padded / 8) + d / 8) * (TOGETHER * 8) +
         codeword % TOGETHER * 8 + d % 8;
}
