"""Faults of files: the container, checkpoints, our own models, the command line."""

from ._fault import Fault

BITSTREAM, CHECKPOINTS = "tests/test_bitstream.py", "tests/test_checkpoints.py"
FLIPPED = f"{BITSTREAM}::test_no_bit_of_a_file_goes_unchecked"
LET_THROUGH = f"{BITSTREAM}::test_what_the_checksums_let_through_is_refused"
FORMAT, READER = "rvq_np/bitstream/_format.py", "rvq_np/bitstream/reader.py"

CONTAINER = (
    Fault(
        "the checksum of a level is not looked at",
        READER,
        "if crc32(data) != part.checksum:",
        "if len(data) != part.length:",
        FLIPPED,
    ),
    Fault(
        "the checksum of a chunk's header is not looked at",
        FORMAT,
        "if tag != CHUNK or checksum != crc32(content[8:]) or frames",
        "if tag != CHUNK or frames",
        FLIPPED,
    ),
    Fault(
        "the checksum of the index is not looked at",
        FORMAT,
        'if not whole or crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):',
        "if not whole:",
        FLIPPED,
    ),
    Fault(
        "the checksum of the header is not looked at",
        FORMAT,
        'if crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):',
        "if len(content) != length:",
        FLIPPED,
    ),
    Fault(
        "the checksum of a slot is not looked at",
        FORMAT,
        "good = checksum == crc32(fields[:-4]) and generation > 0",
        "good = generation > 0",
        FLIPPED,
    ),
    Fault(
        "the second slot is not looked at",
        FORMAT,
        "for start in (0, SLOT.size):",
        "for start in (0, 0):",
        f"{BITSTREAM}::test_either_slot_alone_finds_everything",
    ),
    Fault(
        "appending writes over the index that is in use",
        "rvq_np/bitstream/writer.py",
        "begin = reader.slot.offset + reader.slot.length",
        "begin = reader.slot.offset",
        f"{BITSTREAM}::test_an_append_that_stops_anywhere_leaves_what_was_there",
    ),
    Fault(
        "appending tells of its chunks before it writes them",
        "rvq_np/bitstream/writer.py",
        "    body.write(codes)\n    slot = body.finish(reader.slot)\n",
        "    from io import BytesIO\n\n"
        "    told = Body(BytesIO(), reader.header, begin, list(reader.index), chunk_frames, True)\n"
        "    told.write(codes)\n"
        "    target.seek(len(reader.header.to_bytes()))\n"
        "    target.write(2 * told.finish(reader.slot).to_bytes())\n"
        "    body.write(codes)\n"
        "    slot = body.finish(reader.slot)\n",
        f"{BITSTREAM}::test_an_append_that_stops_anywhere_leaves_what_was_there",
    ),
    Fault(
        "a dropped code is read as word zero",
        READER,
        "stages[q][..., place] = codes[..., inside]",
        "stages[q][..., place] = np.maximum(codes[..., inside], 0)",
        f"{BITSTREAM}::test_dropped_codes_are_not_word_zero",
    ),
    Fault(
        "a prefix of the levels is the last of them",
        READER,
        "self._codes(chunk, theirs[:n_q])",
        "self._codes(chunk, theirs[-n_q:])",
        f"{BITSTREAM}::test_any_range_of_frames_and_prefix_of_levels",
    ),
    Fault(
        "all levels are read whatever is asked for",
        READER,
        "begin, end = parts[0].offset, parts[-1].offset + parts[-1].length",
        "begin, end = parts[0].offset, chunk.end",
        f"{BITSTREAM}::test_a_prefix_of_the_levels_reads_only_its_bytes",
    ),
    Fault(
        "codes are read for other codebooks",
        READER,
        "prints[n_q - 1] != fingerprints(quantizer, n_q)[-1]",
        "prints[0] == prints[n_q - 1] != fingerprints(quantizer, n_q)[-1]",
        f"{BITSTREAM}::test_codes_are_not_read_for_other_codebooks",
    ),
    Fault(
        "a code beyond the words of its level is let through",
        "rvq_np/bitstream/_stages.py",
        "if _unpack(data, dropped, width, codes) >= symbols:",
        "if _unpack(data, dropped, width, codes) > symbols:",
        LET_THROUGH,
    ),
    Fault(
        "a code that crosses two words loses its upper bits",
        "rvq_np/kernels/plain_bits.py",
        "            if shift + width > 32:\n",
        "            if shift + width > 33:\n",
        f"{BITSTREAM}::test_packing_is_the_same_with_and_without_numba",
    ),
    Fault(
        "a range coded level need not end where it should",
        "rvq_np/bitstream/_stages.py",
        "if read != len(uint32s) or (states != START).any():",
        "if read < 0:",
        f"{BITSTREAM}::test_a_range_coded_level_ends_with_its_last_word_and_where_it_began",
    ),
)

MODELS = (
    Fault(
        "weight norm is not divided by the norm",
        "rvq_np/checkpoints/_stack.py",
        "(v / np.where(norms > 0, norms, 1))",
        "v",
        CHECKPOINTS,
    ),
    Fault(
        "bfloat16 is shifted by one bit too few",
        "rvq_np/checkpoints/_file.py",
        "(halves << 16)",
        "(halves << 15)",
        f"{CHECKPOINTS}::test_other_float_types_are_read_exactly",
    ),
    Fault(
        "tensors that overlap are accepted",
        "rvq_np/checkpoints/_file.py",
        "if entry.start < end:",
        "if entry.stop < end:",
        f"{CHECKPOINTS}::test_tensors_that_overlap_are_refused",
    ),
    Fault(
        "a header as long as it likes is read",
        "rvq_np/checkpoints/_file.py",
        " or length > HEADER_LIMIT:",
        ":",
        f"{CHECKPOINTS}::test_a_huge_header_is_not_read_even_if_the_file_is_as_large",
    ),
    Fault(
        "a pickle is opened",
        "rvq_np/checkpoints/_file.py",
        "        if path.suffix in PICKLES:\n",
        '        if path.suffix == ".pickle":\n',
        f"{CHECKPOINTS}::test_a_pickle_is_refused_unread_with_the_code_that_converts_it",
    ),
    Fault(
        "a shard is looked for anywhere",
        "rvq_np/checkpoints/_file.py",
        "        if name not in beside:\n",
        "        if not (index.parent / name).is_file():\n",
        f"{CHECKPOINTS}::test_a_shard_is_a_file_beside_the_index",
    ),
    Fault(
        "words of a Mimi are sums",
        "rvq_np/checkpoints/mimi.py",
        "return sums / np.maximum(counts, LEAST)[..., None]",
        "return sums",
        CHECKPOINTS,
    ),
    Fault(
        "the rates of a SNAC are not read",
        "rvq_np/checkpoints/snac.py",
        "_stack.factorized(tensors, prefix, strides)",
        "_stack.factorized(tensors, prefix, [1] * count)",
        f"{CHECKPOINTS}::test_the_config_tells_a_snac_by_its_strides",
    ),
    Fault(
        "a codebook that was never initialized is accepted",
        "rvq_np/checkpoints/_stack.py",
        'and not tensors[f"{book}.{flag}"].all():',
        'and not tensors[f"{book}.{flag}"].size:',
        f"{CHECKPOINTS}::test_a_codebook_that_was_never_initialized_is_refused",
    ),
    Fault(
        "a model file of a later version is read",
        "rvq_np/modelfile.py",
        'if about["version"] != VERSION:',
        'if about["version"] < VERSION:',
        "tests/test_modelfile.py::test_a_later_version_is_refused",
    ),
    Fault(
        "a file that could not be written takes the place of the old one",
        "rvq_np/newfile.py",
        "        if kind is None:\n            self.commit()\n",
        "        if self.file:\n            self.commit()\n",
        "tests/test_cli.py::test_bad_files_are_one_line_each",
    ),
)

CLAIMS = (
    Fault(
        "a model may claim any number of levels",
        "rvq_np/quantizer.py",
        "            if config.n_q > len(tensors):",
        "            if not tensors:",
        "tests/test_modelfile.py::test_a_lie_about_sizes_reserves_no_memory",
    ),
)

COMMANDS = (
    Fault(
        "a command that failed exits as if it had not",
        "rvq_np/cli/__init__.py",
        "        return 1\n    except KeyboardInterrupt",
        "        return 0\n    except KeyboardInterrupt",
        "tests/test_cli.py::test_bad_files_are_one_line_each",
    ),
    Fault(
        "vectors of three axes are decoded with dimension and time mixed up",
        "rvq_np/cli/vectors.py",
        "start : start + x.shape[1]] = x.transpose(0, 2, 1)",
        "start : start + x.shape[1]] = x.reshape(x.shape[0], x.shape[2], x.shape[1])",
        "tests/test_cli.py::test_three_axes_are_batch_dimension_time",
    ),
    Fault(
        "a file of codes is whole if its index is",
        "rvq_np/cli/commands.py",
        "        reader.verify()\n",
        "",
        "tests/test_cli_files.py",
    ),
    Fault(
        "a result is mapped without room for it on the disk",
        "rvq_np/cli/files.py",
        "            _reserve(new.file)\n",
        "",
        "tests/test_reliability.py::test_room_is_taken_before_a_result_is_mapped",
    ),
    Fault(
        "an archive with damaged data ends in a traceback",
        "rvq_np/cli/vectors.py",
        "                with _readable(path):\n",
        "                if True:\n",
        "tests/test_cli_files.py::test_an_archive_with_damaged_data_is_one_line",
    ),
    Fault(
        "a sound is as long as its header says",
        "rvq_np/demo/wav.py",
        "yield file, max(0, min(file.getnframes(), there))",
        "yield file, file.getnframes()",
        "tests/test_cli_files.py::test_a_sound_is_as_long_as_its_file_whatever_it_claims",
    ),
)

KERNELS = (
    Fault(
        "a damaged cache of kernels stays as it is",
        "rvq_np/kernels/jit.py",
        "                after()\n",
        "                pass\n",
        "tests/test_reliability.py::test_a_damaged_cache_costs_time_only",
    ),
    Fault(
        "a cache that cannot be written ends the call",
        "rvq_np/kernels/jit.py",
        "cache.save_overload = _or_nothing(cache.save_overload, lambda: None)",
        "pass",
        "tests/test_reliability.py::test_a_cache_on_a_full_disk_costs_time_only",
    ),
)

FAULTS = (*CONTAINER, *MODELS, *CLAIMS, *COMMANDS, *KERNELS)
