"""A pytest class of properties for a file format: reading returns the codes, or raises."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from .. import arguments
from .parts import codes as drawn_codes
from .properties import given


class _Case(NamedTuple):
    codes: np.ndarray
    sizes: list[int]


SIZES = [1, 2, 3, 10, 255, 256, 257, 1000, 1024, 2**16, 2**16 + 1]


@st.composite
def _cases(
    draw: Any, dropped: bool = False, most: int = 9, min_stages: int = 1, least: int = 0
) -> _Case:
    """Draw codes (n, N) or (n, B, T) for codebooks of any size, with 1 and 2**16 + 1.

    Sizes next to a power of two find widths in bits that are off by one, and stages of different
    sizes find one width used for all.
    """
    sizes = draw(st.lists(st.sampled_from(SIZES), min_size=min_stages, max_size=5))
    shape = draw(
        st.one_of(
            st.tuples(st.integers(least, most)),
            st.tuples(st.integers(least, 3), st.integers(least, most // 3)),
        )
    )
    return _Case(draw(drawn_codes(sizes, shape=shape, dropped=dropped)), sizes)


def container_tests(
    *,
    write: Callable[..., Any],
    read: Callable[..., Any],
    error: type[Exception] | tuple[type[Exception], ...],
    drops: bool = True,
) -> type:
    """Build a pytest class for a container of codes; bind it to a name that starts with ``Test``.

    Parameters
    ----------
    write : callable
        ``write(path, codes (n, N) or (n, B, T) int32, *, sizes)`` writes a file; `sizes` are the
        codebook sizes of the stages, and -1 is a dropped code.
    read : callable
        ``read(path, n_q=None)`` returns an object with ``codes`` and ``sizes``, of the first `n_q`
        stages.
    error : type or tuple of types
        The exceptions that `read` raises on purpose. Any other is a failure.
    drops : bool, optional
        Whether -1 can be written.

    Returns
    -------
    tests : type
        As `rvq_tests`.

    Raises
    ------
    ParameterError
        If an argument has an invalid value.

    Examples
    --------
    >>> from rvq_np.testing import container_tests
    >>> TestMine = container_tests(write=print, read=print, error=ValueError)
    """
    arguments.function("container_tests", "write", write)
    arguments.function("container_tests", "read", read)
    drops = arguments.flag("container_tests", "drops", drops)
    errors = error if isinstance(error, tuple) else (error,)
    if not errors or not all(isinstance(each, type) and issubclass(each, Exception)
                             for each in errors):  # fmt: skip
        expected = "a class of exceptions, or a tuple of them"
        raise arguments.refused("container_tests", "error", error, expected)

    @contextmanager
    def file() -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "codes.rvq"

    def same(found: Any, case: _Case, stages: int | None = None) -> None:
        codes = np.asarray(found.codes)
        assert codes.dtype.kind in "iu"
        np.testing.assert_array_equal(codes, case.codes[:stages], strict=False)
        assert codes.shape == case.codes[:stages].shape
        assert list(found.sizes) == case.sizes[:stages]

    def same_or_error(path: Path, content: bytes, case: _Case) -> None:
        path.write_bytes(content)
        for stages in (None, *range(1, len(case.sizes) + 1)):
            try:
                found = read(path) if stages is None else read(path, n_q=stages)
            except error:
                continue
            same(found, case, stages)

    few = 1 / 6  # of the usual examples: each reads more than a hundred files

    class Tests:
        @given(_cases(most=40))
        def test_codes_come_back(self, case: _Case) -> None:
            """For any codebook sizes, number of stages and shape, also empty.

            huggingface/transformers#34521
            """
            with file() as path:
                write(path, case.codes, sizes=case.sizes)
                same(read(path), case)

        @given(_cases(dropped=True))
        def test_a_dropped_code_is_not_code_zero(self, case: _Case) -> None:
            """-1 is read as -1, also beside the last code of a codebook of 2^n codewords.

            kyutai-labs/moshi#122
            """
            if not drops:
                pytest.skip("drops is False: -1 is not written")
            with file() as path:
                write(path, case.codes, sizes=case.sizes)
                same(read(path), case)

        @given(_cases(dropped=drops, min_stages=2))
        def test_the_first_stages_can_be_read_alone(self, case: _Case) -> None:
            """As many stages as requested, with their codes and sizes.

            descriptinc/descript-audio-codec#40
            """
            with file() as path:
                write(path, case.codes, sizes=case.sizes)
                for stages in range(1, len(case.sizes) + 1):
                    same(read(path, n_q=stages), case, stages)

        @given(_cases(dropped=drops), _cases())
        def test_the_same_codes_are_the_same_bytes(self, case: _Case, other: _Case) -> None:
            """And a second file replaces the first.

            No report known.
            """
            with file() as path:
                write(path, case.codes, sizes=case.sizes)
                content = path.read_bytes()
                write(path, other.codes, sizes=other.sizes)
                same(read(path), other)
                write(path, case.codes, sizes=case.sizes)
                assert path.read_bytes() == content

        @given(_cases(dropped=drops, most=6), examples=few)
        def test_a_file_cut_short_gives_what_was_asked_for_or_an_error(self, case: _Case) -> None:
            """At every length: all frames of the requested stages, never fewer.

            No report known.
            """
            with file() as path:
                write(path, case.codes, sizes=case.sizes)
                content = path.read_bytes()
                for length in range(len(content)):
                    same_or_error(path, content[:length], case)

        @given(_cases(dropped=drops, most=3, least=1), examples=few)
        def test_a_flipped_bit_gives_the_same_codes_or_an_error(self, case: _Case) -> None:
            """For every bit of the file: other codes than the written ones must not be returned.

            facebookresearch/encodec#94
            """
            with file() as path:
                write(path, case.codes, sizes=case.sizes)
                content = path.read_bytes()
                for bit in range(8 * len(content)):
                    changed = bytearray(content)
                    changed[bit // 8] ^= 1 << bit % 8
                    path.write_bytes(changed)
                    try:
                        found = read(path)
                    except error:
                        continue
                    same(found, case)

        @given(_cases(dropped=drops), st.binary(min_size=1, max_size=40))
        def test_bytes_after_the_end_change_nothing_or_are_an_error(
            self, case: _Case, more: bytes
        ) -> None:
            """Two concatenated files are not one longer file.

            No report known.
            """
            with file() as path:
                write(path, case.codes, sizes=case.sizes)
                same_or_error(path, path.read_bytes() + more, case)

        @given(st.binary(max_size=200), _cases(), st.data())
        def test_random_bytes_are_an_error(self, content: bytes, case: _Case, data: Any) -> None:
            """Alone, and after the first bytes of a file of codes; never unpickled, never a crash.

            descriptinc/descript-audio-codec#53
            """
            with file() as path:
                path.write_bytes(content)
                with pytest.raises(error):
                    read(path)
                write(path, case.codes, sizes=case.sizes)
                whole = path.read_bytes()
                start = whole[: data.draw(st.integers(0, len(whole) - 1))]
                if not whole.startswith(start + content[:1]) and content:
                    same_or_error(path, start + content, case)

        @given(_cases(min_stages=1), st.data())
        def test_a_code_that_names_no_codeword_is_not_written_as_another(
            self, case: _Case, data: Any
        ) -> None:
            """Refused by `write` with any exception, or read unchanged; not cut to its low bits.

            huggingface/transformers#34521
            """
            codes = case.codes.copy()
            if not codes.size:
                return
            stage = data.draw(st.integers(0, len(case.sizes) - 1))
            codes[stage].flat[0] = data.draw(st.sampled_from([case.sizes[stage], -2, 2**30]))
            with file() as path:
                try:
                    write(path, codes, sizes=case.sizes)
                except Exception:
                    return
                same(read(path), _Case(codes, case.sizes))

    return Tests
