// What encode.cu is told of a stage, besides its arrays: columns of `whole` and of `real`.
#pragma once

#include "device.cuh"

// Codewords, and where its own begin in each array of all stages.
enum { SIZE, WORDS_AT, SCREEN_AT, HALF_AT, CENTRE_AT, WHOLE };

// The power of two that codewords are scaled by, and the largest of their norms, of the norms of what
// rounding took from them, and of half their squared norms, all after scaling.
enum { UNIT, LARGEST, REST, HALF, REAL_COUNT };
