"""Faults of the CUDA source and of what launches it, seen on the emulated GPU."""

from ._fault import Fault

CUPY = "tests/test_cupy.py"
KIT = f"{CUPY}::TestDefault"
HARD = f"{CUPY}::test_codewords_and_vectors_of_any_kind_have_the_codes_of_numpy"
GROUPS = f"{CUPY}::test_groups_of_warps_have_the_codes_of_numpy"
TILES = f"{CUPY}::test_many_tiles_of_rows_and_codewords_have_the_codes_of_numpy"

SCREEN = (
    Fault(
        "the GPU settles nothing",
        "encode.cu:decide",
        "open = __ballot_sync(ALL, lane < min(count, OWN) && close != 1)",
        "open = __ballot_sync(ALL, lane < min(count, OWN) && close != 1) & 0",
        KIT,
    ),
    Fault(
        "the GPU's screen forgets what rounding took from a row",
        "encode.cu:round_rows",
        "float slack = rest * most_codewords + (norm + rest) * codeword_rest;",
        "float slack = (norm + rest) * codeword_rest;",
        f"{KIT} {HARD}",
    ),
    Fault(
        "the GPU's screen forgets what rounding took from the codewords",
        "encode.cu:round_rows",
        "float slack = rest * most_codewords + (norm + rest) * codeword_rest;",
        "float slack = rest * most_codewords;",
        f"{KIT} {HARD}",
    ),
    Fault(
        "the GPU's screen trusts the sums of tensor cores",
        "encode.cu:summing",
        "return (1.5f * width + 32.0f) * 2.4e-7f;",
        "return 0.0f;",
        f"{CUPY}::test_the_bound_covers_sums_that_are_cut_off",
    ),
    Fault(
        "the GPU's screen forgets the place in the last bits of a score",
        "encode.cu:round_rows",
        "slack += 3.2e-5f *",
        "slack += 0.0f *",
        f"{CUPY}::test_the_bound_covers_the_place_of_a_codeword",
    ),
    Fault(
        "the second codeword of a class is forgotten",
        "encode.cu:screen_codewords",
        "second = lower(second, higher(first, score));",
        "second = lower(second, NONE);",
        f"{KIT} {HARD}",
    ),
    Fault(
        "a class forgets the codewords of earlier tiles",
        "encode.cu:flush",
        "m.second[at] = lower(lower(second, next), higher(first, low));",
        "m.second[at] = second;",
        f"{CUPY}::test_more_codewords_than_eight_bits_tell_apart_in_a_class",
    ),
    Fault(
        "no barrier between tiles of codewords",
        "encode.cu:screen_codewords",
        "__syncthreads();\nmeet(m, sums, row",
        "meet(m, sums, row",
        TILES,
    ),
    Fault(
        "no barrier before rows are decided",
        "encode.cu:screen_codewords",
        "copies_wait<0>();\n__syncthreads();\nreturn turns;",
        "copies_wait<0>();\nreturn turns;",
        TILES,
    ),
    Fault(
        "no barrier after open rows are settled",
        "encode.cu:encode",
        "settle_all(q == 0 ? x : rows, own, size, width, padded, wide);\n__syncthreads();",
        "settle_all(q == 0 ? x : rows, own, size, width, padded, wide);",
        f"{TILES} {GROUPS}",
    ),
    Fault(
        "products wait for what has arrived before",
        "encode.cu:screen_codewords",
        "arrival_wait(m.arrivals + buffer, turns >> buffer & 1);",
        "arrival_wait(m.arrivals + buffer, ~turns >> buffer & 1);",
        GROUPS,
    ),
    Fault(
        "products are used before they are there",
        "encode.cu:screen_codewords",
        "products_wait(sums[0]);",
        "",
        GROUPS,
    ),
    Fault(
        "codewords are read before their copies have arrived",
        "encode.cu:screen_codewords",
        "copies_wait<BUFFERS - 2>();",
        "copies_wait<BUFFERS - 1>();",
        TILES,
    ),
    Fault(
        "small floats are lost when a codeword is subtracted on the GPU",
        "encode.cu:round_rows",
        "piece[i].number[k] = minus(piece[i].number[k], codeword[i].number[k]);",
        "piece[i].number[k] = piece[i].number[k] - codeword[i].number[k];",
        f"{HARD} tests/test_cupy_adversarial.py",
    ),
    Fault(
        "shared memory is a little short",
        "shared_bytes",
        "+ 2 * 4 * block",
        "+ 4 * block",
        KIT,
    ),
    Fault(
        "the place of a codeword is cut to seven bits",
        "encode.cu:PLACE",
        "constexpr u32 PLACE = 0xffu;",
        "constexpr u32 PLACE = 0x7fu;",
        f"{CUPY}::test_more_codewords_than_eight_bits_tell_apart_in_a_class",
    ),
    Fault(
        "codewords of the GPU's screen are not moved by their mean",
        "codewords.cu:round_codewords",
        "moved = widened(codeword[d]) - widened(centre[d]);",
        "moved = widened(codeword[d]);",
        HARD,
    ),
)

SETTLED = (
    Fault(
        "a tie on the GPU goes to whichever comes last",
        "encode.cu:settle",
        "if (order < 0 || order == 0 && other < nearest) nearest = other;",
        "if (order <= 0) nearest = other;",
        KIT,
    ),
    Fault(
        "the GPU takes double precision for exact",
        "exact.cuh:reach",
        "return best * (1.0 + 3.0 * share(width)) + 4.0 * width * LOST;",
        "return best;",
        KIT,
    ),
    Fault(
        "the GPU's register loses the carries of its digits",
        "exact.cuh:compare",
        "carry = value >> 32;",
        "carry = 0;",
        KIT,
    ),
    Fault(
        "the GPU's register drops the upper half of a product",
        "exact.cuh:add_product",
        "u64 digit = part < 2 ? low : high;",
        "u64 digit = part < 2 ? low : 0;",
        f"{CUPY}::TestFloat64",
    ),
    Fault(
        "subnormal numbers have another exponent on the GPU",
        "exact.cuh:split",
        "exponent = (biased ? biased : 1) - 150;",
        "exponent = biased - 150;",
        f"{CUPY}::test_numbers_next_to_nothing_are_distinguished",
    ),
)

OTHERS = (
    Fault(
        "a beam on the GPU takes a tie's later codeword",
        "beam.cu:pick",
        "if (compare(x, a, y, b, width, digits) < 0) least = other;",
        "if (compare(x, a, y, b, width, digits) <= 0) least = other;",
        f"{CUPY}::test_beams_on_whole_numbers_are_those_of_numpy",
    ),
    Fault(
        "a beam on the GPU forgets where it came from",
        "beam.cu:rank",
        "const int* history = before + (n_row * alive + least / expected) * stage;",
        "const int* history = before + n_row * alive * stage;",
        f"{CUPY}::test_beams_on_whole_numbers_are_those_of_numpy",
    ),
    Fault(
        "sums on the GPU are of a single grid",
        "gather.cu:cut",
        "if (g + 1 < grids) {",
        "if (false) {",
        f"{CUPY}::test_tallies_have_the_bits_of_the_host",
    ),
    Fault(
        "decoding on the GPU starts from the first codeword",
        "gather.cu:add_up",
        "for (int i = 0; i < COUNT; i++) ((REAL*)&total[k])[i] = 0;",
        "for (int i = 0; i < COUNT; i++) ((REAL*)&total[k])[i] = (REAL)-0.0;",
        f"{CUPY}::test_decoding_starts_from_zero",
    ),
    Fault(
        "rows of a code are put in one place",
        "gather.cu:sort_rows",
        "__popc(same & ((1u << lane) - 1))",
        "0",
        f"{CUPY}::test_tallies_have_the_bits_of_the_host",
    ),
    Fault(
        "NaN does not come through the ends of rows",
        "gather.cu:find_ends",
        "if (wrong) low = high",
        "if (false) low = high",
        f"{CUPY}::test_the_ends_of_rows_come_at_once",
    ),
    Fault(
        "the GPU computes on the current device, not on the array's",
        "there",
        "return nullcontext() if device is None else device",
        "return nullcontext()",
        f"{CUPY}::test_averages_are_of_sums_on_any_device",
    ),
    Fault(
        "k-means on the GPU waits in every round",
        "assign",
        "counts, sums = _added(rows, codes, prepared, [extent])\nreturn counts[0], sums[0]",
        "counts, sums = _added(rows, codes, prepared, [extent])\n"
        "return cupy.asarray(counts[0].get()), sums[0]",
        f"{CUPY}::test_kmeans_on_the_gpu_does_not_wait_between_rounds",
    ),
    Fault(
        "a fit copies vectors off the GPU",
        "fit",
        "x = x if core.stays(x) else arrays.to_numpy(x)",
        "x = arrays.to_numpy(x)",
        f"{CUPY}::test_fitting_leaves_the_vectors_where_they_are",
    ),
    Fault(
        "a stage on the GPU begins where the one before it did",
        "encode",
        "part, own = x[start : start + step], codes[:, start : start + step]",
        "part, own = x[start : start + step], codes[:, :step]",
        f"{CUPY}::test_rows_in_slabs_have_the_same_codes",
    ),
)

FAULTS = (*SCREEN, *SETTLED, *OTHERS)
