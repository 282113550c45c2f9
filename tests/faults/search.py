"""Faults of search and ties, of projections and decoding: the kernels and the array API backend."""

from ._fault import Fault

BACKENDS, KERNELS, CODEC = "tests/test_backends.py", "tests/test_kernels.py", "tests/test_codec.py"
NUMBA = f"{BACKENDS}::TestNumba"
PLAIN = f"{BACKENDS}::TestPlain"
ARRAY_API = f"{BACKENDS}::TestArrayApi"
BOUNDS = f"{CODEC}::test_the_bound_covers_sums_that_round_one_way_all_along"

TIES = (
    Fault(
        "a tie of float32 goes to the highest index",
        "_is_nearer",
        "return math.fsum(terms.tolist()) < 0.0",
        "return math.fsum(terms.tolist()) <= 0.0",
        PLAIN,
    ),
    Fault(
        "a tie of float64 goes to the highest index",
        "nearest_of",
        "return min(candidates, key=",
        "return min(reversed(candidates), key=",
        f"{PLAIN}Float64",
    ),
    Fault(
        "a tie that compiled expansions settle goes to the highest index",
        "_exactly",
        "if order >= 0:",
        "if order > 0:",
        NUMBA,
    ),
    Fault(
        "compiled: the last of equal codewords is the one that is kept",
        "measure",
        "repeat[k] = True\nbreak",
        "repeat[other] = True\nbreak",
        NUMBA,
    ),
    Fault(
        "without Numba: the last of equal codewords is the one that is kept",
        "repeats",
        "for k, row in enumerate(rows.tolist())], bool)",
        "for k, row in enumerate(rows.tolist()[::-1])][::-1], bool)",
        PLAIN,
    ),
    Fault(
        "compiled: codewords of one hash are taken for equal without a look",
        "measure",
        "if hashes[other] == hashes[k] and same(codewords, other * width, k * width, width):",
        "if hashes[other] & 15 == hashes[k] & 15:",
        "tests/test_kernels_bounds.py::test_repeats_are_those_of_numpy_whatever_the_hash",
    ),
    Fault(
        "compiled: a codeword of minus zeros is no repeat of one of zeros",
        "_hash",
        "if number == sign:",
        "if number == sign and number < 1:",
        "tests/test_kernels_bounds.py::test_repeats_are_those_of_numpy_whatever_the_hash",
    ),
    Fault(
        "a stage with two codewords is not searched",
        "_Packed.__init__",
        "if usable.sum() == 1 else -1",
        "if usable.sum() <= 2 else -1",
        NUMBA,
    ),
    Fault(
        "a row is taken for its neighbour above without a look",
        "_pick",
        "if i > 0 and same(rows, row, row - width, width):",
        "if i > 0:",
        NUMBA,
    ),
    Fault(
        "a codeword of minus zeros is no repeat of one of zeros",
        "repeats",
        "plain = np.ascontiguousarray(codewords + 0.0)",
        "plain = np.ascontiguousarray(codewords)",
        f"{CODEC}::test_repeated_codewords_are_never_chosen_twice_over",
    ),
    Fault(
        "compiled: what float64 cannot separate is not settled",
        "settle",
        "if count > 1:\n    return _exactly(",
        "if count < 0:\n    return _exactly(",
        NUMBA,
    ),
    Fault(
        "without Numba: what float64 cannot separate is not settled",
        "settle",
        "if stop - i > 1:",
        "if stop - i < 0:",
        PLAIN,
    ),
    Fault(
        "without Numba: what the screen cannot separate is not settled",
        "_nearest_block",
        "settle(rows, codewords, seen, those, close, codes)",
        "pass",
        PLAIN,
    ),
    Fault(
        "array API: what the screen cannot separate is not settled",
        "_screened",
        "decided = (close == 1) & (",
        "decided = (close >= 1) & (",
        ARRAY_API,
    ),
    Fault(
        "an expansion forgets what its last sum rounded off",
        "_grow",
        "if error != 0.0:",
        "if error != 0.0 and i + 1 < count:",
        f"{NUMBA}::test_codes_near_ties_are_those_of_the_definition",
    ),
    Fault(
        "rows that no expansion can hold are left without a code",
        "encode",
        "if lost:",
        "if lost < 0:",
        f"{KERNELS}::test_rows_no_expansion_can_hold_are_decided_by_hand",
    ),
)

BOUND = (
    Fault(
        "whole numbers: the bound forgets what rounding a row left",
        "_round",
        "slack = rest + (norm + rest) * share + distant",
        "slack = (norm + rest) * share + distant",
        "tests/test_kernels_bounds.py::test_no_bound_is_above_the_score",
    ),
    Fault(
        "whole numbers: half norms are not lowered by what float32 rounds",
        "_Packed.finish",
        "self.lowered = 8 * U",
        "self.lowered = 0.0",
        "tests/test_kernels_bounds.py::test_no_bound_is_above_the_score",
    ),
    Fault(
        "float32 screen: its sums are taken for exact",
        "_Packed.finish",
        "self.lowered = terms / (1 - terms) if terms < 0.5 else np.inf",
        "self.lowered = 0.0",
        "tests/test_kernels_bounds.py::test_no_bound_is_above_the_score",
    ),
    Fault(
        "the bound of float32 sums counts one rounding only",
        "error_bounds",
        "gamma(type_info, terms)",
        "gamma(type_info, 1)",
        BOUNDS,
    ),
    Fault(
        "the bound of float64 sums counts one rounding only",
        "error_bounds",
        "gamma(wide_info, wide_terms) * (1 + 1e-9)",
        "gamma(wide_info, 1) * (1 + 1e-9)",
        "tests/test_kernels_bounds.py::test_scores_of_a_far_row_may_round_one_way_all_along",
    ),
    Fault(
        "squares that underflow are taken for nothing",
        "LOST",
        "LOST = 2.0**-1021",
        "LOST = 0.0",
        f"{KERNELS}::test_ties_are_settled_where_squares_underflow",
    ),
    Fault(
        "a far row's slack forgets the half norms it counts too much",
        "_round",
        "distant = 0.5 * real[q, col.HEAVIEST]",
        "distant = 0.0",
        "tests/test_kernels_bounds.py::test_no_bound_is_above_the_score_at_any_two_norms",
    ),
    Fault(
        "codewords are packed without taking the centre away",
        "pack",
        "move(codewords, k * width, centre, 0, moved, 0, unit, width)",
        "move(codewords, k * width, 0.0 * centre, 0, moved, 0, unit, width)",
        "tests/test_kernels_bounds.py::test_no_bound_is_above_the_score",
    ),
    Fault(
        "distances in float64 are taken for exact",
        "settle",
        "share = (width + 4) * U64 * (1.0 + 1e-9)",
        "share = 0.0",
        f"{NUMBA}::test_codes_near_ties_are_those_of_the_definition "
        "tests/test_kernels_bounds.py::test_codes_where_all_but_coincides_are_those_of_the_definition",
    ),
    Fault(
        "without Numba: distances in float64 are taken for exact",
        "distances",
        "return values, 2.0 * (left.shape[1] + 4) * U64 * (1.0 + 1e-9), lost",
        "return values, 0.0, lost",
        "tests/test_codec.py::test_distances_that_float64_rounds_to_one_are_compared_exactly",
    ),
    Fault(
        "a sum of squares of any length is taken for exact on a grid",
        "on_grid",
        "bits = (53 - math.frexp(np.float64(width))[1]) // 2",
        "bits = 40",
        "tests/test_kernels_bounds.py::test_whole_numbers_beyond_the_grid_are_not_said_to_be_exact",
    ),
    Fault(
        "without Numba: a sum of squares of any length is taken for exact on a grid",
        "on_grid",
        "bits = (53 - math.frexp(left.shape[1])[1]) // 2",
        "bits = 40",
        "tests/test_kernels_bounds.py::test_whole_numbers_beyond_the_grid_are_not_said_to_be_exact",
    ),
    Fault(
        "the error of a far row's score counts the codeword shortened as well",
        "settle",
        "error = error_of(norm, own, width, share, least)",
        "error = error_of(norm, own * power * power, width, share, least)",
        f"{KERNELS}::test_ties_are_settled_where_squares_underflow",
    ),
    Fault(
        "without Numba: the bound counts one rounding only",
        "Seen.of",
        "_gamma(width + 16, kind)",
        "_gamma(1, kind)",
        BOUNDS,
    ),
    Fault(
        "whole numbers: the bound forgets what rounding a codeword left",
        "sides",
        "bounding = max(bounding, (missed[k] * (1.0 + 1e-9) + 2.0**-1000) / ratio)",
        "bounding = max(bounding, 0.0)",
        "tests/test_kernels_bounds.py::test_no_bound_is_above_the_score_of_a_codeword_that_is_rounded_unlike_the_others",
    ),
)

RESIDUALS = (
    Fault(
        "without Numba: the residual is never rounded to float32",
        "encode",
        'rows = np.array(x[start : start + ROWS], dtype=stages[0].codebook.dtype, order="C")\n'
        "for stage, out",
        'rows = np.array(x[start : start + ROWS], dtype=np.float64, order="C")\nfor stage, out',
        f"{PLAIN}::test_the_residual_is_rounded_after_each_stage",
    ),
    Fault(
        "float64 vectors with float32 codewords are searched in float32",
        "working_dtype",
        "return np.result_type(np.float32 if narrow else like, codewords_dtype)",
        "return np.dtype(codewords_dtype)",
        f"{CODEC}::test_float64_vectors_with_float32_codewords_are_settled_in_float64",
    ),
    Fault(
        "array API: nothing is subtracted between stages",
        "encode",
        "rows = rows - xp.take(stage.table, chosen, axis=0)",
        "rows = rows - 0 * xp.take(stage.table, chosen, axis=0)",
        ARRAY_API,
    ),
    Fault(
        "compiled: the residual is what the first stage's codewords leave",
        "_subtract",
        "codeword = table_at + codes[q, start + i] * dim",
        "codeword = codes[q, start + i] * dim",
        NUMBA,
    ),
    Fault(
        "a tally adds up residuals of the stage before the last",
        "add_up",
        "if q + 1 < len(stages):",
        "if q + 2 < len(stages):",
        f"{CODEC}::test_tallies_of_two_parts_add_up_to_that_of_the_whole",
    ),
)

EDGES = (
    Fault(
        "the last tile is left out unless it is full",
        "over_rows",
        "range(0, rows, tile))",
        "range(0, rows - rows % tile, tile))",
        f"{BACKENDS}::test_rows_that_do_not_fill_a_tile_are_served",
    ),
    Fault(
        "compiled: the last row of a block is not screened",
        "_screen",
        "while i < count:",
        "for place in range(bounds.shape[1] if i < count else 0):  # of another row\n"
        "    bounds[count - 1, place] = bounds[0, place]\n"
        "while i < count - 1:",
        f"{KERNELS}::test_any_number_of_rows_gives_the_same_codes",
    ),
    Fault(
        "compiled: codewords in the last vector of a panel are not collected",
        "collect",
        "for v in range(VECTORS):\n    part = within(",
        "for v in range(VECTORS - 1):\n    part = within(",
        f"{KERNELS}::test_two_equally_near_codewords_anywhere_are_both_found",
    ),
    Fault(
        "compiled: the last panel of a run is not met",
        "_screen",
        "end = min(begin + run, n_panels)",
        "end = max(begin + 1, min(begin + run, n_panels) - 1)",
        "tests/test_kernels_bounds.py::test_no_bound_is_above_the_score",
    ),
    Fault(
        "without Numba: a block ends one row too early",
        "nearest",
        "part = slice(start, start + step)\ncodes[part] = seen",
        "part = slice(start, start + max(1, min(step, len(rows) - start) - 1))\ncodes[part] = seen",
        PLAIN,
    ),
    Fault(
        "array API: codes that the host settled go to the first rows",
        "_settled",
        "all_codes[to_numpy(open_rows)] = settled",
        "all_codes[: len(settled)] = settled",
        ARRAY_API,
    ),
)

WAYS = (
    Fault(
        "a call takes the workspace of another",
        "run",
        "space = workspaces.pop()",
        "space = workspaces[-1]",
        f"{KERNELS}::test_a_call_within_a_call_has_a_workspace_of_its_own",
    ),
    Fault(
        "stages are taken for others, as many",
        "packed",
        "key = (screen, stages.part.start, stages.part.stop, stages.part.step)",
        "key = (screen, len(stages))",
        f"{KERNELS}::test_any_stages_of_a_whole_are_searched_by_their_own_codewords",
    ),
    Fault(
        "a beam keeps one hypothesis too few",
        "_best",
        "expected = min(beam, count)",
        "expected = max(1, min(beam, count) - 1)",
        "tests/test_codec_beams.py::test_the_beam_search_is_that_of_its_definition",
    ),
    Fault(
        "a compiled beam keeps one hypothesis too few",
        "_select",
        "return min(kept, beam)",
        "return min(kept, max(1, beam - 1))",
        "tests/test_codec_beams.py::test_beams_on_compiled_screens_are_those_of_numpy",
    ),
    Fault(
        "hypotheses of a beam that tie come in the wrong order",
        "ranked",
        "key=lambda n: (keys[n], n)",
        "key=lambda n: (keys[n], -n)",
        "tests/test_codec_beams.py::test_the_beam_search_is_that_of_its_definition",
    ),
    Fault(
        "a compiled beam does not ask whether float64 can order its hypotheses",
        "_select",
        "if not errors[i] - errors[i - 1] > ",
        "if 0.0 > ",
        "tests/test_codec_beams.py::test_the_beam_search_is_that_of_its_definition",
    ),
    Fault(
        "rows whose other codewords moved are not searched again",
        "Followed._follow",
        "self.others -= moved[order[movers]] if movers < len(order) else 0.0",
        "self.others -= 0.0",
        f"{CODEC}::test_codes_that_follow_moving_codewords_are_those_of_the_search",
    ),
    Fault(
        "a repeated codeword that moves away from its twin is not seen",
        "Followed._follow",
        "moved[np.isinf(before.half)] = np.inf",
        "moved[np.isinf(before.half)] = 0.0",
        f"{CODEC}::test_a_repeated_codeword_that_moves_away_from_its_twin_is_seen",
    ),
    Fault(
        "a screen that the next one does not better is not asked again",
        "judge",
        'kept["screen"], kept["stays"] = screens[rank - 1], True',
        'kept["stays"] = True',
        f"{KERNELS}::test_a_screen_that_the_next_one_does_not_better_serves_again",
    ),
)

PROJECTIONS = (
    Fault(
        "a beam maps all rows at once, so that they round each other",
        "search_beams",
        "plain.search_beams(x, stages, beam_size, codes, project)",
        "plain.search_beams(x, stages, beam_size, codes)",
        "tests/test_kernels_maps.py::test_a_beam_over_projections_does_not_depend_on_the_rows_beside",
    ),
    Fault(
        "the next panel of a map begins with the last column of the one before",
        "map_rows",
        "size = (dim + 1) * width",
        "size = dim * width",
        "tests/test_kernels_maps.py::test_maps_are_numpys_on_a_grid",
    ),
    Fault(
        "rows that fill a block are taken from beside the last",
        "_panel_code",
        'b.select(b.icmp_signed("<", here, last), here, last)',
        'b.select(b.icmp_signed("<", here, last), here, number(0))',
        "tests/test_kernels_maps.py::test_maps_are_numpys_on_a_grid",
    ),
    Fault(
        "folded: what a map rounds of a row is not allowed for",
        "folded",
        "away = grown * np.linalg.norm(weight) * sizes",
        "away = 0 * sizes",
        "tests/test_folded_maps.py",
    ),
    Fault(
        "folded: what a map rounds of its bias is not allowed for",
        "folded",
        "apart = grown * np.linalg.norm(bias) * sizes",
        "apart = 0 * sizes",
        "tests/test_folded_maps.py",
    ),
    Fault(
        "folded: the bias of the map takes part in no score",
        "folded",
        "scores = 0.5 * squares - codewords @ moved",
        "scores = 0.5 * squares",
        "tests/test_folded_maps.py",
    ),
    Fault(
        "folded: rows that are left open go to the first codeword",
        "pick_folded",
        "near = left\nif near == 1:",
        "near = left\nif near >= 1:",
        "tests/test_folded_maps.py",
    ),
    Fault(
        "the last stage uses its rows up",
        "_subtract",
        "elif more:",
        "else:",
        "tests/test_codec.py::test_vectors_are_left_alone_by_the_last_stage_too",
    ),
    Fault(
        "codewords that another thread should pack are left as they lie in memory",
        "_Packed.shares",
        "range(0, self.n_panels, worth)",
        "range(0, min(worth, self.n_panels), worth)",
        f"{KERNELS}::test_panels_are_packed_by_several_threads_as_by_one",
    ),
    Fault(
        "a few rows are mapped by what the block before them gave",
        "encode",
        "searched, place = mapped, place * whole[q, col.WIDTH]",
        "searched, place = mapped, 0",
        f"{KERNELS}",
    ),
    Fault(
        "without Numba: a projection has no bias",
        "project",
        "(rows.astype(np.float64) @ into.weight + into.bias)",
        "(rows.astype(np.float64) @ into.weight)",
        f"{BACKENDS}::test_projected_stages_give_the_same_codes_on_every_path",
    ),
    Fault(
        "compiled: a projection has no bias",
        "panels_of",
        "= bias[part], weight[part].T",
        "= 0.0, weight[part].T",
        f"{BACKENDS}::test_projected_stages_give_the_same_codes_on_every_path",
    ),
    Fault(
        "array API: a projection has no bias",
        "_projected",
        "mapped = xp.matmul(wide, stage.weight_in) + stage.bias_in",
        "mapped = xp.matmul(wide, stage.weight_in)",
        f"{BACKENDS}::test_projected_stages_give_the_same_codes_on_every_path",
    ),
    Fault(
        "the projection is folded into the codewords that are searched",
        "with_table",
        "return replace(made, table=decoded(stage, slice(None), dtype, transform))",
        "return codeword_tables(decoded(stage, slice(None), dtype, transform))",
        f"{CODEC}::test_projected_stages_keep_their_regret_bound",
    ),
    Fault(
        "what a code decodes to has no bias",
        "decoded",
        "out = map_of(stage.project_out)",
        "out = Map(stage.project_out.weight, 0 * stage.project_out.bias)",
        f"{CODEC}::test_projected_stages_keep_their_regret_bound",
    ),
    Fault(
        "codewords that are searched by cosine are not normalized",
        "search_tables",
        "replace(codeword_tables(normalized(codewords), measure), table=codewords, unit=True)",
        "replace(codeword_tables(codewords, measure), table=codewords, unit=True)",
        "tests/test_cosine.py",
    ),
    Fault(
        "a code of a cosine stage decodes to the normalized codeword",
        "search_tables",
        "replace(codeword_tables(normalized(codewords), measure), table=codewords, unit=True)",
        "replace(codeword_tables(normalized(codewords), measure), unit=True)",
        "tests/test_cosine.py",
    ),
)

DECODE = (
    Fault(
        "array API: codewords are added from the last stage to the first",
        "decode",
        "for q in range(codes.shape[0]):",
        "for q in reversed(range(codes.shape[0])):",
        ARRAY_API,
    ),
    Fault(
        "array API: the sum begins with the first codeword, not with zero",
        "decode",
        "total = codewords + 0.0 if",
        "total = codewords if",
        f"{CODEC}::test_decode_starts_from_zero_so_that_no_minus_zero_comes_out",
    ),
    Fault(
        "compiled: decoding leaves out the last stage",
        "decode",
        "gather.decode(codes, stages.table",
        "gather.decode(codes[: max(1, len(codes) - 1)], stages.table",
        NUMBA,
    ),
    Fault(
        "a code one beyond the last codeword is let through",
        "_some_dropped",
        "int(xp.max(row)) < size",
        "int(xp.max(row)) <= size",
        "tests/test_codec_refused.py::test_decode_says_what_is_wrong",
    ),
    Fault(
        "a dropped code adds the first codeword",
        "decode",
        "lambda stage: codes[stage, :] >= 0",
        "lambda stage: codes[stage, :] >= -1",
        "tests/test_dropped.py",
    ),
    Fault(
        "the bias of a map stands for stages that are all dropped",
        "_apart",
        "if not (dropped and quantizer.maps()):",
        "if not (dropped and quantizer.maps() and False):",
        "tests/test_dropped.py",
    ),
)

FAULTS = (*TIES, *BOUND, *RESIDUALS, *EDGES, *WAYS, *PROJECTIONS, *DECODE)
