"""Faults of quantizers made of several, of stages and bandwidth, and of the class."""

from ._fault import Fault

COMPOSED, QUANTIZER = "tests/test_composed.py", "tests/test_quantizer.py"
VALUES = "tests/test_values.py"

COMPOSITION = (
    Fault(
        "groups come one after the other instead of taking turns",
        "Grouped.__init__",
        "[n for stage in range(deepest) for n, part in enumerate(made) if stage < part.n_q]",
        "[n for n, part in enumerate(made) for stage in range(deepest) if stage < part.n_q]",
        COMPOSED,
    ),
    Fault(
        "what the last of parallel parts decodes to is not added",
        "Parallel.out_of",
        "for each in vectors[1:]:",
        "for each in vectors[1:-1]:",
        COMPOSED,
    ),
    Fault(
        "frames that share a code are summed, not averaged",
        "_means",
        "return total / stride",
        "return total",
        COMPOSED,
    ),
    Fault(
        "each frame of a mean is divided before it is added",
        "_means",
        "total = frames[:, 0, :]",
        "frames, stride = frames / stride, 1\ntotal = frames[:, 0, :]",
        f"{COMPOSED}::test_a_mean_is_a_sum_before_it_is_divided",
    ),
    Fault(
        "a code that frames share goes to frames far apart",
        "_each",
        "arrays.namespace(rows).repeat(rows, stride, axis=0)",
        "arrays.namespace(rows).tile(rows, (stride, 1))",
        COMPOSED,
    ),
    Fault(
        "stages with strides all quantize the vectors themselves",
        "_strided",
        "left = left - _each(",
        "left = left - 0 * _each(",
        COMPOSED,
    ),
    Fault(
        "vectors that the map around a quantizer overflows are let through",
        "Projected._limit",
        "return float(min((space / sums).min(), np.finfo(dtype).max / 2))",
        "return float(np.finfo(dtype).max / 2)",
        f"{COMPOSED}::test_vectors_that_a_map_would_overflow_are_refused",
    ),
    Fault(
        "the fingerprint forgets how parts are put together",
        "Composed._print",
        'f"{self.KIND}{self.order[:n_q]}{self.dim}"',
        'f"{self.dim}"',
        f"{COMPOSED}::test_how_quantizers_are_composed_is_in_the_fingerprint",
    ),
    Fault(
        "a map around a quantizer is left out on the way back",
        "Projected.out_of",
        "return self._through(self.project_out, vectors[0])",
        "return vectors[0]",
        COMPOSED,
    ),
    Fault(
        "a map around a quantizer has no bias",
        "map_of",
        "Map(linear.weight, linear.bias)",
        "Map(linear.weight, 0 * linear.bias)",
        COMPOSED,
    ),
    Fault(
        "the fingerprint of codebooks forgets the metric",
        "Stage.digest",
        'if self.metric != "euclidean":',
        "if self.metric != self.metric:",
        "tests/test_cosine.py::test_the_fingerprint_knows_the_metric",
    ),
    Fault(
        "codebooks can be changed",
        "Value.__setattr__",
        "self._refuse(name)",
        "vars(self)[name] = value",
        f"{VALUES}::test_nothing_of_a_value_can_be_changed",
    ),
    Fault(
        "a slice of codebooks makes tables of its own",
        "Codebooks._cut",
        "vars(some).update(_shared=self._shared, _part=part)",
        "del part",
        f"{VALUES}::test_every_bandwidth_shares_the_tables_of_its_stages",
    ),
    Fault(
        "a slice of a slice is one of the whole",
        "Codebooks._cut",
        "first = 0 if self._part is None else self._part.start",
        "first = 0",
        f"{VALUES}::test_every_bandwidth_shares_the_tables_of_its_stages",
    ),
    Fault(
        "composed quantizers that differ in the type of their vectors are equal",
        "Composed.identity",
        "return (self.fingerprint, self.dtype)",
        "return (self.fingerprint,)",
        f"{VALUES}::test_every_part_of_a_value_counts",
    ),
)

BANDWIDTH = (
    Fault(
        "a stage is lost where an exact bitrate rounds down",
        "Config.stages_for",
        "spent / per_stage * NUDGE",
        "spent / per_stage",
        f"{QUANTIZER}::test_no_stage_is_lost_to_rounding_on_exact_bitrates",
    ),
    Fault(
        "a negative bandwidth is accepted",
        "Config.budget",
        "if spent is None or spent < 0:",
        "if spent is None:",
        f"{QUANTIZER}::test_refused_input_leaves_everything_as_it_was",
    ),
    Fault(
        "too little bandwidth for a stage gives none",
        "Config.stages_for",
        "return max(1, fitting)",
        "return fitting",
        f"{QUANTIZER}::test_stages_are_the_most_that_fit_at_least_one_at_most_all",
    ),
    Fault(
        "training uses all stages whatever the bandwidth",
        "ResidualVectorQuantizer._passed",
        "self.config.asked(call, sample_rate, bandwidth, n_q)",
        "self.config.asked(call, sample_rate, None if self.training else bandwidth, n_q)",
        f"{QUANTIZER}::test_bandwidth_is_obeyed_in_training_too",
    ),
    Fault(
        "without a sample rate the bandwidth is that of one vector per second",
        "Config._rate_or_bits",
        "return IN_BITS if sample_rate is None",
        "return 1.0 if sample_rate is None",
        f"{QUANTIZER}::test_the_sample_rate_matters_for_bandwidth_only",
    ),
    Fault(
        "the stages of decode's n_q are the last ones of the codes",
        "Config.first_stages",
        "return codes[: stop - start]",
        "return codes[start - stop :]",
        f"{QUANTIZER}::test_the_sample_rate_matters_for_bandwidth_only",
    ),
    Fault(
        "n_q and bandwidth are both taken, and n_q counts",
        "Config.asked",
        "if bandwidth is not None:\n    raise",
        "if bandwidth is not None and n_q is None:\n    raise",
        f"{QUANTIZER}::test_numbers_of_stages_that_do_not_fit_are_refused",
    ),
    Fault(
        "a quantizer with a stage that is not trained says that it is trained",
        "of_training",
        "if count == len(trained)",
        "if count",
        "tests/test_display.py::test_the_repr_says_what_state_the_quantizer_is_in",
    ),
)

CLASS = (
    Fault(
        "codes come back with time before the batch",
        "Batch.codes",
        "self._xp.reshape(codes, (codes.shape[0], *shape))",
        "self._xp.permute_dims(\n"
        "    self._xp.reshape(codes, (codes.shape[0], shape[1], shape[0])), (0, 2, 1)\n"
        ")",
        f"{QUANTIZER}::test_time_is_the_last_axis_and_vectors_the_middle_one",
    ),
    Fault(
        "vectors of a batch are read with dimension and time mixed up",
        "as_rows",
        "return xp.reshape(xp.permute_dims(x, (0, 2, 1)), (",
        "return xp.reshape(x, (",
        f"{QUANTIZER}::test_time_is_the_last_axis_and_vectors_the_middle_one",
    ),
    Fault(
        "decoding from a later stage reads the codewords of the first",
        "ResidualVectorQuantizer.decode",
        "codebooks = self.codebooks[start:]",
        "codebooks = self.codebooks",
        f"{QUANTIZER}::test_stages_from_st_on_take_the_input_for_a_residual_and_decode_mirrors_it",
    ),
    Fault(
        "a name of the state dict is another than ESPnet's",
        "entries",
        "named[names.book(stage, names.SUMS)] = state.sums",
        'named[names.book(stage, "embedding_avg")] = state.sums',
        f"{QUANTIZER}::test_the_names_and_shapes_are_espnets",
    ),
    Fault(
        "the state dict is no copy",
        "state_dict",
        "np.array(value, dtype=np.float32) for name",
        "np.asarray(value, dtype=np.float32) for name",
        f"{QUANTIZER}::test_a_state_dict_is_a_copy",
    ),
    Fault(
        "a state with an entry too many is taken over",
        "from_state_dict",
        'problems += [f"extra {name}" for name in given if name not in expected]',
        "pass",
        f"{QUANTIZER}::test_a_state_that_does_not_fit_is_refused_with_every_mismatch",
    ),
    Fault(
        "NaN and infinity go through",
        "Batch._checked",
        "validation.finite(call, x, codebooks)",
        "pass",
        f"{QUANTIZER}::test_refused_input_leaves_everything_as_it_was",
    ),
    Fault(
        "a batch that is refused has drawn random numbers",
        "ResidualVectorQuantizer._passed",
        "batch = layout.Batch(call, x, self.codebooks, mask)\n"
        "seed = None\n"
        "if self.training:\n"
        "    seed = self._rng.integers(1 << 32, size=passes.SEED).tolist()",
        "seed = None\n"
        "if self.training:\n"
        "    seed = self._rng.integers(1 << 32, size=passes.SEED).tolist()\n"
        "batch = layout.Batch(call, x, self.codebooks, mask)\n"
        "if self.training:\n"
        "    pass",
        f"{QUANTIZER}::test_refused_input_leaves_everything_as_it_was",
    ),
    Fault(
        "eval learns from the batch",
        "ResidualVectorQuantizer._passed",
        "if self.training:\n    seed",
        "if self is not None:\n    seed",
        "tests/test_quantizer_training.py::test_a_fresh_quantizer_trains_as_in_torch_and_eval_never_does",
    ),
)

STREAMS = (
    Fault(
        "frames of a stream that wait for their block are lost",
        "StreamEncoder.push",
        "[np.array(waiting[whole:])] if whole < len(waiting) else []",
        "[]",
        "tests/test_streaming.py::test_frames_wait_for_their_block",
    ),
    Fault(
        "frames of a stream that wait belong to the caller still",
        "StreamEncoder.push",
        "[np.array(waiting[whole:])]",
        "[waiting[whole:]]",
        "tests/test_streaming.py::test_frames_wait_for_their_block",
    ),
)

FAULTS = (*COMPOSITION, *BANDWIDTH, *CLASS, *STREAMS)
