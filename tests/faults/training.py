"""Faults of training: averages, expiry, masks, dropout, several processes, k-means."""

from ._fault import Fault

TRAIN, QUANTIZER = "tests/test_train.py", "tests/test_quantizer.py"
DISTRIBUTED, ONCE = "tests/test_distributed.py", "tests/test_train_once.py"

AVERAGES = (
    Fault(
        "decay is the share of the present in the counts",
        "_counted",
        "decay * state.counts.astype(np.float64) + (1 - decay) * np.asarray(counts)",
        "(1 - decay) * state.counts.astype(np.float64) + decay * np.asarray(counts)",
        f"{TRAIN}::test_moving_averages_are_the_formula",
    ),
    Fault(
        "codewords are moved by the sums before this batch",
        "_average",
        "total / share",
        "past / share",
        f"{TRAIN}::test_moving_averages_are_the_formula",
    ),
    Fault(
        "on a device, codewords are moved by the sums before this batch",
        "_averaged_there",
        "moved = new_sums / put(share)[:, None]",
        "moved = put(past) / put(share)[:, None]",
        "tests/test_cupy.py::test_training_steps_are_those_of_the_host",
    ),
    Fault(
        "counts are not smoothed",
        "smoothed",
        "return (counts + epsilon) / (total + len(counts) * epsilon) * total",
        "return counts",
        f"{TRAIN}::test_moving_averages_are_the_formula",
    ),
    Fault(
        "codewords are mapped back in the order in which rows chose them",
        "_used",
        "return used, places[codes]\n",
        "return used, np.arange(len(codes), dtype=np.int32) % max(1, len(used))\n",
        "tests/test_quantizer_training.py::test_quantized_is_exactly_decode_of_the_codes_by_the_codewords_before_the_step",
    ),
    Fault(
        "what rows are given does not end where dropout says",
        "advance",
        "if q < stages[n]:",
        "if q <= stages[n]:",
        "tests/test_quantizer_training.py",
    ),
    Fault(
        "of float64 vectors what is handed back is mapped otherwise than decode maps",
        "through",
        "shown = tables.decoded(stage, used, quantized.dtype, dispatch.mapped_out)",
        "shown = table.astype(quantized.dtype)",
        "tests/test_quantizer_training.py::test_of_large_maps_only_chosen_codewords_are_mapped_back_and_to_the_same_bits",
    ),
    Fault(
        "small maps are summed in float32",
        "Map.summed",
        "return np.float64 if self.given[0].size < LARGE else dtype",
        "return dtype",
        "tests/test_composed.py::test_a_map_is_rounded_once_whatever_rows_are_beside",
    ),
    Fault(
        "a count of zero carries its sum",
        "_counted",
        "_Averaging(~(state.counts > 0), held",
        "_Averaging(~(state.counts >= 0), held",
        f"{TRAIN}::test_a_codeword_with_no_count_does_not_explode",
    ),
    Fault(
        "an unused codeword shrinks to zero",
        "_counted",
        "held = new_counts <= 100 * epsilon",
        "held = new_counts < 0",
        f"{TRAIN}::test_a_codeword_idle_for_long_does_not_shrink_to_zero",
    ),
    Fault(
        "what is handed back is quantized by the codewords after the step",
        "forward",
        "learned.codes, learned.quantized, learned.codebooks",
        "learned.codes, core.decode(learned.codes, training.codebooks_of(learned.states, "
        "projections), learned.per_row), learned.codebooks",
        "tests/test_quantizer_training.py::test_quantized_is_exactly_decode_of_the_codes_by_the_codewords_before_the_step",
    ),
)

EXPIRY = (
    Fault(
        "a replaced codeword keeps its old sum and count",
        "_expired",
        "counts[dead] = start",
        "pass",
        f"{TRAIN}::test_a_dead_codeword_becomes_a_vector_with_its_sum_and_count",
    ),
    Fault(
        "a codeword with a count at the threshold dies",
        "_expired",
        "dead = np.flatnonzero(counts < threshold)",
        "dead = np.flatnonzero(counts <= threshold)",
        f"{TRAIN}::test_a_dead_codeword_becomes_a_vector_with_its_sum_and_count",
    ),
    Fault(
        "codewords are replaced before the averages move",
        "step_of",
        "if isinstance(sums, steps.Tally) and sums.small and isinstance(vectors, Drawn):",
        "state = expire(state, vectors, threshold, relative=relative)\n"
        "codewords, new_sums, new_counts, largest = "
        "_averaged(state, counts, sums, decay, epsilon)\n"
        "return _state(codewords, new_sums, new_counts, largest, state.initialized)\n"
        "if isinstance(sums, steps.Tally) and sums.small and isinstance(vectors, Drawn):",
        "tests/test_quantizer_training.py::test_decay_and_expiry_reach_the_training_step",
    ),
    Fault(
        "a relative threshold is taken for an absolute one",
        "_expired",
        "threshold = relative * start",
        "threshold = relative",
        f"{TRAIN}::test_a_relative_threshold_is_a_share_of_the_mean_count",
    ),
    Fault(
        "replacements of deeper stages are vectors, not residuals",
        "learn",
        "return core.searched(left, codebooks, stage)",
        "return core.searched(seen[rows], codebooks, stage)",
        f"{ONCE}::test_codewords_are_replaced_by_what_their_stage_quantizes_with_several_ranks_too",
    ),
    Fault(
        "vectors of a joint tally are not rounded to its grid, so that a split shows",
        "Adder.add_sums",
        "rounded = np.rint(x.astype(np.float64) / self.grid) * self.grid",
        "rounded = x.astype(np.float64)",
        "tests/test_train_refine.py::test_any_split_and_any_order_of_adding_gives_the_same_bits",
    ),
    Fault(
        "refinement by tasks forgets the sums of all blocks but the first",
        "_summed",
        "sums += more",
        "pass",
        "tests/peers/test_dask_fit.py::test_refined_codebooks_are_those_of_memory",
    ),
    Fault(
        "vectors that judge a refinement are among those that k-means sees",
        "parts",
        "rows = np.setdiff1d(taken, judge, assume_unique=True)",
        "pass",
        "tests/test_train_refining.py::test_no_codebook_is_made_of_the_vectors_that_judge",
    ),
    Fault(
        "codebooks of nine tenths of the vectors are returned where a refinement is not taken",
        "fit",
        "states = by_stages(task, task.data(rows), rng, Checkpoint(None, x, rng, asked))",
        "pass",
        "tests/test_train_refining.py::"
        "test_codebooks_that_are_not_taken_are_those_of_plain_fit_to_the_bit",
    ),
    Fault(
        "sums are cut to grids so fine that adding them rounds",
        "grids",
        "within = BITS - SPARE - max(1, rows).bit_length()",
        "within = BITS - SPARE",
        "tests/test_exact_sums.py::test_the_sum_of_many_rows_is_not_rounded_on_any_grid",
    ),
    Fault(
        "what codewords leave is taken to be no finer than the vectors",
        "Extent.less",
        "either = self | other",
        "either = self",
        "tests/test_exact_sums.py::test_residuals_of_all_stages_are_added_up_exactly",
    ),
    Fault(
        "rows that choose another codeword stay in the old sum",
        "Assigned.again",
        "both = np.concatenate([-rows, rows])",
        "both = np.concatenate([0 * rows, rows])",
        "tests/test_exact_sums.py::test_sums_that_follow_moving_rows_are_those_of_all_rows",
    ),
    Fault(
        "processes round what they add up to grids of their own",
        "Ranks.add_up",
        "each.onto(Extent(int(top), int(bottom)), self.total)",
        "each",
        "tests/test_distributed.py::test_real_numbers_end_in_the_bits_of_one_process",
    ),
    Fault(
        "a frozen stage moves where several processes train",
        "learn",
        "moved[stage] = states[stage]",
        "pass",
        "tests/test_train_start.py::test_processes_freeze_together",
    ),
    Fault(
        "vectors that wait are not copied",
        "Collected.more",
        "rows = arrays.namespace(rows).concat([rows])",
        "pass",
        "tests/test_train_online.py::test_an_array_that_is_used_again_is_collected_as_it_was",
    ),
)

MASKS = (
    Fault(
        "padding takes part in all of training",
        "learn",
        "np.arange(x.shape[0]) if valid is None else np.flatnonzero(valid)",
        "np.arange(x.shape[0])",
        "tests/test_quantizer_training.py::test_a_masked_batch_trains_as_its_valid_vectors_alone",
    ),
    Fault(
        "padding takes part in the first codewords",
        "learn",
        "everyone = seen",
        "everyone = arrays.to_numpy(x)",
        "tests/test_quantizer_training.py::test_the_first_codewords_of_a_masked_batch_are_of_its_valid_vectors_alone",
    ),
    Fault(
        "padding takes part in the averages",
        "Passage._here",
        "tally = steps.Tally(searched, chosen, len(part.codebook))",
        "tally = steps.Tally(part.searched, part.codes, len(part.codebook))",
        "tests/test_quantizer_training.py::test_a_masked_batch_trains_as_its_valid_vectors_alone",
    ),
    Fault(
        "padding takes part in the loss",
        "Passage._here",
        "distances = steps.squared_distances(searched, part.codebook, chosen)",
        "distances = steps.squared_distances(part.searched, part.codebook, part.codes)",
        "tests/test_quantizer_training.py::test_a_masked_batch_trains_as_its_valid_vectors_alone",
    ),
)

DROPOUT = (
    Fault(
        "dropout never gives the last stage",
        "draw_stages",
        "rng.integers(1, n_q + 1, size=len(chosen))",
        "rng.integers(1, max(2, n_q), size=len(chosen))",
        f"{TRAIN}::test_dropout_draws_the_share_of_rows_it_was_asked_for_and_all_numbers_of_stages",
    ),
    Fault(
        "dropout spares a batch of one",
        "draw_stages",
        "count = int(expected) + (rng.random() < expected - int(expected))",
        "count = int(expected)",
        f"{TRAIN}::test_dropout_of_a_half_does_not_spare_a_batch_of_one",
    ),
    Fault(
        "on a device, dropped rows are given one stage too many",
        "decode",
        "arrays.asarray(stages > stage, codes)",
        "arrays.asarray(stages >= stage, codes)",
        "tests/test_cupy.py::test_training_steps_are_those_of_the_host",
    ),
    Fault(
        "losses under dropout are of rows that the stage was not given",
        "_loss",
        "np.flatnonzero(stages > stage)",
        "np.flatnonzero(stages >= stage)",
        "tests/test_quantizer_training.py::test_losses_under_dropout_average_over_the_rows_active_at_a_stage",
    ),
)

PROCESSES = (
    Fault(
        "each process draws from a seed of its own",
        "Ranks.meet",
        "tuple(int(part) for part in everyone[all_reduce.size :])",
        "seed",
        f"{DISTRIBUTED}::test_ranks_end_where_one_ends_with_all_the_rows",
    ),
    Fault(
        "a process hands out the rows of the next one's places",
        "Ranks.rows",
        "first = int(self.counts[: self.all_reduce.rank].sum())",
        "first = int(self.counts[: self.all_reduce.rank + 1].sum())",
        f"{DISTRIBUTED}::test_ranks_end_where_one_ends_with_all_the_rows",
    ),
    Fault(
        "sums of all processes are asked for and not used",
        "learn",
        "step(states, counted, sums, drawn_from_all, **rule)",
        "step(states, *zip(*added, strict=True), drawn_from_all, **rule)",
        f"{DISTRIBUTED}::test_ranks_end_where_one_ends_with_all_the_rows",
    ),
    Fault(
        "all processes drop the same stages",
        "learn",
        "[*seed, DROPOUT, all_reduce.rank]",
        "[*seed, DROPOUT]",
        f"{DISTRIBUTED}::test_dropout_draws_for_each_rank_its_own_and_keeps_the_codewords_common",
    ),
    Fault(
        "a hook that returns another shape is believed",
        "AllReduce.__call__",
        "if summed.shape != buffer.shape:",
        "if summed.ndim != buffer.ndim:",
        f"{DISTRIBUTED}::test_a_hook_that_returns_something_else_is_refused_and_nothing_changes",
    ),
)

FIRST_CODEWORDS = (
    Fault(
        "first codewords of deeper stages are vectors, not residuals",
        "first_codewords",
        "residual = core.residual(residual, codes, stage)",
        "core.residual(residual, codes, stage)",
        f"{TRAIN}::test_first_codewords_of_a_stage_are_of_what_the_stages_before_it_leave",
    ),
    Fault(
        "k-means ends one round too early",
        "lloyd",
        "last = iteration == iterations - 1",
        "last = iteration >= iterations - 2",
        f"{TRAIN}::test_lloyd_is_that_of_the_textbook",
    ),
    Fault(
        "sums of fresh codewords are means, not means times counts",
        "state_of",
        "made = CodebookState(codewords, sums, counts, initialized=True)",
        "made = CodebookState(codewords, codewords, counts, initialized=True)",
        f"{TRAIN}::test_a_step_on_the_same_batch_leaves_fresh_codewords_nearly_still",
    ),
    Fault(
        "a codeword that no row chose has the sum zero",
        "state_of",
        "sums = np.where(used[:, None], found.sums, found.codebook)",
        "sums = found.sums",
        f"{TRAIN}::test_no_codeword_is_zero_for_want_of_data {TRAIN}",
    ),
    Fault(
        "offline: rows of a later batch lose the codewords of the first",
        "Data.read",
        "[arrays.take(each, places) for each in self.codes]",
        "[each[: len(left)] for each in self.codes]",
        f"{TRAIN}::test_fit_reads_a_memory_map_in_batches_and_gives_what_it_gives_in_memory",
    ),
    Fault(
        "offline: the first rows are taken for those that were drawn",
        "Data._taken",
        "arrays.take(self.x, places if self.rows is None else self.rows[places])",
        "arrays.take(self.x, places)",
        f"{TRAIN}::test_fit_draws_its_rows_from_all_there_are",
    ),
    Fault(
        "offline: the last rows are not looked at",
        "first_bad",
        "range(0, x.shape[0], ROWS)",
        "range(0, x.shape[0] - ROWS, ROWS)",
        f"{ONCE}::test_one_bad_number_gives_the_same_answer_whatever_rows_are_drawn",
    ),
    Fault(
        "offline: numbers that leave no space for a residual are let through",
        "Data.check_reach",
        "if self.norm * (1 + 1e-6) + largest <",
        "if self.norm * 1e-6 + largest <",
        f"{ONCE}::test_numbers_too_large_for_a_residual_are_refused_all_the_same",
    ),
    Fault(
        "offline: unused codewords stay where they are",
        "lloyd",
        "if refill is not None:",
        "if False:",
        f"{TRAIN}::test_unused_codewords_are_filled_again",
    ),
    Fault(
        "an interrupted fit goes on with other random numbers",
        "Checkpoint.resume",
        "self.rng.bit_generator.state = self.after",
        "pass",
        "tests/test_reliability.py::test_an_interrupted_fit_goes_on_to_the_same_codewords",
    ),
    Fault(
        "a checkpoint of another fit is taken over",
        "Checkpoint._load",
        'if about.get("asked") != _plain(self.asked):',
        'if about["asked"].keys() != self.asked.keys():',
        "tests/test_reliability.py::test_a_checkpoint_of_another_fit_is_refused",
    ),
    Fault(
        "states and codebooks are taken over one after the other",
        "ResidualVectorQuantizer._use",
        "self._states, self._projections, self.codebooks = tuple(states), projections, codebooks",
        "self._states, self._projections = tuple(states), projections\nself.codebooks = codebooks",
        "tests/test_reliability.py::test_a_training_step_may_be_interrupted_at_any_line",
    ),
    Fault(
        "a damaged checkpoint leaves the generator where the file says",
        "Checkpoint._load",
        "self.rng.bit_generator.state = stood",
        "pass",
        "tests/test_reliability.py::test_a_damaged_checkpoint_is_refused_and_nothing_has_changed",
    ),
    Fault(
        "stages of a checkpoint may have any shape",
        "Checkpoint._stages",
        "if [each.shape for each in parts] != list(shapes.values()):",
        "if len(parts) != len(shapes):",
        "tests/test_reliability.py::test_a_damaged_checkpoint_is_refused_and_nothing_has_changed",
    ),
)

FAULTS = (*AVERAGES, *EXPIRY, *MASKS, *DROPOUT, *PROCESSES, *FIRST_CODEWORDS)
