"""Faults of files: the container, checkpoints, our own models, the command line."""

from ._fault import Fault

BITSTREAM, CHECKPOINTS = "tests/test_bitstream.py", "tests/test_checkpoints"
FAMILIES = f"{CHECKPOINTS}_families.py"
FLIPPED = "tests/test_bitstream_refused.py::test_no_bit_of_a_file_goes_unchecked"
LET_THROUGH = "tests/test_bitstream_refused.py::test_what_the_checksums_let_through_is_refused"

CONTAINER = (
    Fault(
        "the checksum of a stage is not looked at",
        "Reader._codes",
        "if crc32(data) != part.checksum:",
        "if len(data) != part.length:",
        FLIPPED,
    ),
    Fault(
        "the checksum of a chunk's header is not looked at",
        "read_chunk",
        "if tag != CHUNK or checksum != crc32(content[8:]) or frames",
        "if tag != CHUNK or frames",
        FLIPPED,
    ),
    Fault(
        "the checksum of the index is not looked at",
        "read_index",
        'if not whole or crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):',
        "if not whole:",
        FLIPPED,
    ),
    Fault(
        "the checksum of the header is not looked at",
        "read_header",
        'if crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):',
        "if len(content) != length:",
        FLIPPED,
    ),
    Fault(
        "the checksum of a slot is not looked at",
        "read_slots",
        "good = checksum == crc32(fields[:-4]) and generation > 0",
        "good = generation > 0",
        FLIPPED,
    ),
    Fault(
        "the second slot is not looked at",
        "read_slots",
        "for start in (0, SLOT.size):",
        "for start in (0, 0):",
        f"{BITSTREAM}::test_either_slot_alone_finds_everything",
    ),
    Fault(
        "appending writes over the index that is in use",
        "append",
        "begin = reader.slot.offset + reader.slot.length",
        "begin = reader.slot.offset",
        f"{BITSTREAM}::test_an_append_that_stops_anywhere_leaves_what_was_there",
    ),
    Fault(
        "appending tells of its chunks before it writes them",
        "append",
        "body.write(codes)\nslot = body.finish(reader.slot)",
        "from io import BytesIO\n"
        "\n"
        "reported = Body(BytesIO(), reader.header, begin, list(reader.index), chunk_frames, True)\n"
        "reported.write(codes)\n"
        "target.seek(len(reader.header.to_bytes()))\n"
        "target.write(2 * reported.finish(reader.slot).to_bytes())\n"
        "body.write(codes)\n"
        "slot = body.finish(reader.slot)",
        f"{BITSTREAM}::test_an_append_that_stops_anywhere_leaves_what_was_there",
    ),
    Fault(
        "a dropped code is read as codeword zero",
        "Reader.read",
        "stages[q][..., place] = codes[..., inside]",
        "stages[q][..., place] = np.maximum(codes[..., inside], 0)",
        f"{BITSTREAM}::test_dropped_codes_are_not_codeword_zero",
    ),
    Fault(
        "a prefix of the stages is the last of them",
        "Reader.read",
        "self._codes(chunk, theirs[:n_q])",
        "self._codes(chunk, theirs[-n_q:])",
        f"{BITSTREAM}::test_any_range_of_frames_and_prefix_of_stages",
    ),
    Fault(
        "all stages are read whatever is asked for",
        "Reader._codes",
        "begin, end = parts[0].offset, parts[-1].offset + parts[-1].length",
        "begin, end = parts[0].offset, chunk.end",
        f"{BITSTREAM}::test_a_prefix_of_the_stages_reads_only_its_bytes",
    ),
    Fault(
        "codes are read for other codebooks",
        "Reader.check",
        "prints[n_q - 1] != fingerprints(quantizer, n_q)[-1]",
        "prints[0] == prints[n_q - 1] != fingerprints(quantizer, n_q)[-1]",
        f"{BITSTREAM}::test_codes_are_not_read_for_other_codebooks",
    ),
    Fault(
        "a code beyond the codewords of its stage is let through",
        "from_bytes",
        "if _unpack(data, dropped, width, codes) >= symbols:",
        "if _unpack(data, dropped, width, codes) > symbols:",
        LET_THROUGH,
    ),
    Fault(
        "a code that crosses two codewords loses its upper bits",
        "unpack",
        "if shift + width > 32:",
        "if shift + width > 33:",
        f"{BITSTREAM}::test_packing_is_the_same_with_and_without_numba",
    ),
    Fault(
        "a range coded stage need not end where it should",
        "_decode",
        "if read != len(uint32s) or (states != START).any():",
        "if read < 0:",
        "tests/test_bitstream_refused.py::test_a_range_coded_stage_ends_with_its_last_codeword_and_where_it_began",
    ),
)

MODELS = (
    Fault(
        "weight norm is not divided by the norm",
        "_fused",
        "(v / np.where(norms > 0, norms, 1))",
        "v",
        FAMILIES,
    ),
    Fault(
        "bfloat16 is shifted by one bit too few",
        "Entry.values",
        "(halves << 16)",
        "(halves << 15)",
        f"{CHECKPOINTS}_families.py::test_other_float_types_are_read_exactly",
    ),
    Fault(
        "tensors that overlap are accepted",
        "read_header",
        "if entry.start < end:",
        "if entry.stop < end:",
        f"{CHECKPOINTS}_files.py::test_tensors_that_overlap_are_refused",
    ),
    Fault(
        "a header as long as it likes is read",
        "read_header",
        "or length > HEADER_LIMIT:",
        ":",
        f"{CHECKPOINTS}_files.py::test_a_huge_header_is_not_read_even_if_the_file_is_as_large",
    ),
    Fault(
        "a pickle is opened",
        "_files",
        'if path.suffix.lower() in PICKLES or kinds.of(path).name == "pickle":',
        'if path.suffix == ".pickle":',
        f"{CHECKPOINTS}_files.py::test_a_pickle_is_refused_unread_with_the_code_that_converts_it",
    ),
    Fault(
        "a shard is looked for anywhere",
        "_shards",
        "if name not in beside:",
        "if not (index.parent / name).is_file():",
        f"{CHECKPOINTS}_files.py::test_a_shard_is_a_file_beside_the_index",
    ),
    Fault(
        "codewords of a Mimi are sums",
        "summed",
        "codebook = sums / np.maximum(counts, LEAST)[..., None]",
        "codebook = sums",
        FAMILIES,
    ),
    Fault(
        "a map beside the codebooks is dropped",
        "_within",
        "return name.startswith(scope)",
        "return False",
        f"{CHECKPOINTS}_nothing_dropped.py",
    ),
    Fault(
        "the first family in the alphabet has a file",
        "_most_specific",
        "if count == most",
        "if count",
        f"{CHECKPOINTS}_of_2026.py::test_a_file_says_its_family_or_is_asked",
    ),
    Fault(
        "what fills a codebook up for Faiss is near",
        "_filled",
        "largest * 2.0**20",
        "largest",
        "tests/test_export_faiss.py",
    ),
    Fault(
        "the codes of groups are packed as their stages take turns",
        "_parts",
        "order = sorted(order, key=lambda q: quantizer.order[q])",
        "order = sorted(order)",
        "tests/test_export_faiss.py",
    ),
    Fault(
        "the sizes of a GGUF tensor are taken in their order",
        "_described",
        "tuple(reversed(sizes))",
        "tuple(sizes)",
        f"{CHECKPOINTS}_gguf.py::test_each_float_type_is_read_exactly",
    ),
    Fault(
        "tensors of a GGUF file may share their bytes",
        "_placed",
        "if start < end:",
        "if start < 0:",
        f"{CHECKPOINTS}_gguf.py::test_a_damaged_file_is_refused_by_name",
    ),
    Fault(
        "a tensor beside those that names has is dropped",
        "_refuse_others",
        "if beside and",
        "if not beside and",
        f"{CHECKPOINTS}_gguf.py::test_a_tensor_beside_those_that_are_named_must_be_named",
    ),
    Fault(
        "codewords that a converter divided are divided again",
        "summed",
        'name.endswith(f".{DIVIDED}")',
        "False",
        f"{CHECKPOINTS}_gguf.py::test_codewords_that_a_converter_divided_are_taken_as_they_are",
    ),
    Fault(
        "the rates of a SNAC are not read",
        "build",
        "_stack.factorized(tensors, prefix, strides)",
        "_stack.factorized(tensors, prefix, [1] * count)",
        f"{CHECKPOINTS}_families.py::test_the_config_tells_a_snac_by_its_strides",
    ),
    Fault(
        "a codebook that was never initialized is accepted",
        "initialized",
        'and not tensors[f"{book}.{flag}"].all():',
        'and not tensors[f"{book}.{flag}"].size:',
        f"{CHECKPOINTS}_refused.py::test_a_codebook_that_was_never_initialized_is_refused",
    ),
    Fault(
        "a model file of a later version is read",
        "load_whole",
        'if about["version"] != VERSION:',
        'if about["version"] < VERSION:',
        "tests/test_modelfile.py::test_a_later_version_is_refused",
    ),
    Fault(
        "a file that could not be written takes the place of the old one",
        "NewFile.__exit__",
        "if kind is None:\n    self.commit()",
        "if self.file:\n    self.commit()",
        "tests/test_cli.py::test_bad_files_are_one_line_each",
    ),
)

CLAIMS = (
    Fault(
        "a model may claim any number of stages",
        "ResidualVectorQuantizer.load",
        "if config.n_q > len(tensors):",
        "if not tensors:",
        "tests/test_modelfile.py::test_a_lie_about_sizes_reserves_no_memory",
    ),
)

COMMANDS = (
    Fault(
        "a command that failed exits as if it had not",
        "main",
        "    return 1\nexcept KeyboardInterrupt",
        "    return 0\nexcept KeyboardInterrupt",
        "tests/test_cli.py::test_bad_files_are_one_line_each",
    ),
    Fault(
        "vectors of three axes are decoded with dimension and time mixed up",
        "sink",
        "start : start + x.shape[1]] = x.transpose(0, 2, 1)",
        "start : start + x.shape[1]] = x.reshape(x.shape[0], x.shape[2], x.shape[1])",
        "tests/test_cli.py::test_three_axes_are_batch_dimension_time",
    ),
    Fault(
        "a file of codes is whole if its index is",
        "verify",
        "reader.verify()",
        "pass",
        "tests/test_cli_files.py",
    ),
    Fault(
        "a result is mapped without space for it on the disk",
        "written",
        "_reserve(new.file)",
        "pass",
        "tests/test_reliability.py::test_space_is_taken_before_a_result_is_mapped",
    ),
    Fault(
        "an archive with damaged data ends in a traceback",
        "_npz",
        "with _readable(path):",
        "if True:",
        "tests/test_cli_files.py::test_an_archive_with_damaged_data_is_one_line",
    ),
    Fault(
        "a sound is as long as its header says",
        "_standard",
        "return Sound(rate, max(0, min(file.getnframes(), there)), next_samples)",
        "return Sound(rate, file.getnframes(), next_samples)",
        "tests/test_cli_files.py::test_a_sound_is_as_long_as_its_file_whatever_it_claims",
    ),
)

WRITER = (
    Fault(
        "a new file takes the place of a device or a pipe",
        "is_replaced",
        "return stat.S_ISREG(found.st_mode) and _descriptor(path) is None",
        "return _descriptor(path) is None",
        "tests/test_files.py::test_a_pipe_receives_everything",
    ),
    Fault(
        "a new file takes the place of a link",
        "NewFile.__init__",
        "self._place = os.path.realpath(path)",
        "self._place = os.path.abspath(path)",
        "tests/test_files.py::test_a_link_stays_and_its_target_is_replaced",
    ),
    Fault(
        "a file that is replaced gets the mode of a new one",
        "NewFile.commit",
        "os.chmod(self._name, _owned(self._name, self._old))",
        "os.chmod(self._name, 0o644)",
        "tests/test_files.py::test_mode_stays_and_new_files_have_that_of_the_process",
    ),
    Fault(
        "errors name the temporary file",
        "_named",
        "raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error",
        "raise",
        "tests/test_files.py::test_errors_name_what_the_user_named",
    ),
    Fault(
        "an output may be one of the inputs",
        "_refuse_inputs",
        "if any(_is_same(one, path) for one in held):",
        "if path in held:",
        "tests/test_cli_outputs.py::test_an_input_is_never_the_output",
    ),
    Fault(
        "an ending is what it is in small letters only",
        "_ending",
        "own = os.path.splitext(path)[1].lower()",
        "own = os.path.splitext(path)[1]",
        "tests/test_cli_outputs.py::test_endings_are_the_same_in_any_case_of_letters",
    ),
    Fault(
        "what a command prints goes into its own output",
        "of",
        "return Output(atomic.STDOUT, endings[0], sys.stderr)",
        "return Output(atomic.STDOUT, endings[0], sys.stdout)",
        "tests/test_cli_outputs.py::test_standard_output_holds_what_a_file_would",
    ),
)

SOUNDS = (
    Fault(
        "a sound of another rate is taken for one of the model's",
        "source",
        "expected = front.rate if front.rate is not None else rate",
        "expected = rate",
        "tests/test_sounds.py::test_another_rate_is_refused_or_resampled_never_taken_for_the_models",
    ),
    Fault(
        "an unknown front end is one of samples",
        "front_end",
        "if recorded is None:",
        "recorded = recorded or FrontEnd('samples', dim)\nif recorded is None:",
        "tests/test_frontend.py::test_what_cannot_be_applied_is_refused_with_what_is_missing",
    ),
    Fault(
        "every part of a sound begins with silence",
        "Analysis.__call__",
        "self._last = content[-dim:].copy()",
        "self._last = np.zeros(dim)",
        "tests/test_frontend.py::test_parts_of_any_size_are_the_whole",
    ),
    Fault(
        "half a window is lost between two parts of a decoded sound",
        "Synthesis.__call__",
        "samples[0] += self._half",
        "pass",
        "tests/test_frontend.py::test_parts_of_any_size_are_the_whole",
    ),
    Fault(
        "a model that is saved again loses its front end",
        "ResidualVectorQuantizer.load",
        "quantizer.front_end = front_end",
        "pass",
        "tests/test_frontend.py::test_a_record_comes_back_from_every_file",
    ),
    Fault(
        "whole numbers of 24 bits are read as of 32",
        "_samples",
        "padded[:, 4 - width :] = raw",
        "padded[:, :width] = raw",
        "tests/test_sounds.py::test_the_forms_that_recorders_write_are_read",
    ),
    Fault(
        "a Faiss index with other contents is taken for a residual quantizer",
        "_index",
        "if kind not in SERVED or depth > DEEPEST:",
        "if not kind.isalnum() or depth > DEEPEST:",
        "tests/test_kinds.py::test_another_faiss_index_is_named_with_what_to_do",
    ),
    Fault(
        "info prints bars that the terminal cannot show",
        "bars",
        "return PLAIN",
        "return BARS",
        "tests/test_terminal.py::test_info_prints_what_the_terminal_has",
    ),
)

KERNELS = (
    Fault(
        "a damaged cache of kernels stays as it is",
        "_or_nothing",
        "after()",
        "pass",
        "tests/test_reliability.py::test_a_damaged_cache_costs_time_only",
    ),
    Fault(
        "a cache that cannot be written ends the call",
        "_spare",
        "cache.save_overload = _or_nothing(cache.save_overload, lambda: None)",
        "pass",
        "tests/test_reliability.py::test_a_cache_on_a_full_disk_costs_time_only",
    ),
)

FAULTS = (*CONTAINER, *MODELS, *CLAIMS, *COMMANDS, *WRITER, *SOUNDS, *KERNELS)
