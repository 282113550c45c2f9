"""Arguments of `encode`, `decode` and `tally` that cannot be are refused, each by name."""

import numpy as np
from helpers.codec_cases import CODEWORDS, X, refused

from rvq_np import Codebooks, Linear, Stage, codec, decode, encode
from rvq_np.errors import (
    CodeRangeError,
    DtypeError,
    LevelsError,
    NonFiniteError,
    ParameterError,
    ShapeError,
)

CODES = np.zeros((2, 4), np.int32)


def with_value(value, place):
    x = np.ones((3, 4, 2), np.float32)
    x[place] = value
    return x


def test_encode_says_what_is_wrong():
    refused(
        ShapeError,
        ValueError,
        r"encode: x has shape \(4, 3\); its last axis must be 2, the length of a vector here. "
        r"For \(B, D, T\), move axis 1",
        encode,
        np.ones((4, 3)),
        CODEWORDS,
    )
    refused(ShapeError, ValueError, r"encode: x has shape \(\);", encode, np.float32(1), CODEWORDS)
    refused(
        DtypeError,
        TypeError,
        r"encode: x has dtype int64; expected floating-point numbers",
        encode,
        np.ones((4, 2), np.int64),
        CODEWORDS,
    )
    refused(DtypeError, TypeError, "encode: x has dtype complex64", encode, X * 1j, CODEWORDS)
    refused(
        NonFiniteError,
        ValueError,
        r"encode: x holds nan at \(1, 2, 0\); expected finite",
        encode,
        with_value(np.nan, (1, 2, 0)),
        CODEWORDS,
    )
    refused(
        NonFiniteError,
        ValueError,
        r"encode: x holds -inf at \(2, 3, 1\)",
        encode,
        with_value(-np.inf, (2, 3, 1)),
        CODEWORDS,
    )
    refused(
        LevelsError,
        ValueError,
        r"encode: n_q is 3; expected 1 to 2, as there are 2 stages",
        encode,
        X,
        CODEWORDS,
        3,
    )
    refused(LevelsError, ValueError, r"encode: n_q is 0; expected 1 to 2", encode, X, CODEWORDS, 0)
    refused(
        LevelsError,
        ValueError,
        r"encode: n_q is 1.0; expected a whole number",
        encode,
        X,
        CODEWORDS,
        1.0,
    )
    refused(
        ParameterError,
        ValueError,
        r"encode: beam_size is 0; expected a whole number from 1",
        encode,
        X,
        CODEWORDS,
        beam_size=0,
    )
    refused(ParameterError, ValueError, r"beam_size is True", encode, X, CODEWORDS, beam_size=True)
    refused(
        NonFiniteError,
        ValueError,
        r"encode: x reaches 3e\+38, so that a residual may overflow.*pass x as float64",
        encode,
        np.full((1, 2), 3e38, np.float32),
        CODEWORDS * np.float32(1e37),
    )


def test_a_projection_that_would_overflow_is_refused():
    pair = Linear(np.full((3, 2), 100.0), np.zeros(3)), Linear(np.ones((2, 3)), np.zeros(2))
    books = Codebooks([Stage(np.float32([[0, 0, 0], [1, 2, 3]]), *pair)])
    refused(NonFiniteError, ValueError, "may overflow",
            encode, np.full((1, 2), 3e37, np.float32), books)  # fmt: skip
    assert encode(np.full((1, 2), 3e35, np.float32), books).shape == (1, 1)


def test_numbers_that_overflow_float32_work_as_float64():
    x, codewords = np.full((1, 2), 3e38, np.float32), CODEWORDS * np.float32(1e37)
    np.testing.assert_array_equal(encode(x.astype(np.float64), codewords), [[2], [1]])


def test_decode_says_what_is_wrong():
    refused(
        DtypeError,
        TypeError,
        r"decode: codes have dtype float32; expected integers",
        decode,
        CODES.astype(np.float32),
        CODEWORDS,
    )
    refused(DtypeError, TypeError, "decode: codes have dtype bool", decode, CODES > 0, CODEWORDS)
    refused(
        LevelsError,
        ValueError,
        r"decode: codes have 3 rows, one per stage, but there are 2 stages; pass codes\[:2\]",
        decode,
        np.zeros((3, 4), np.int32),
        CODEWORDS,
    )
    bad = CODES.copy()
    bad[1, 2] = 3
    refused(
        CodeRangeError,
        IndexError,
        r"decode: code 3 at \(1, 2\) names no codeword; expected 0 to 2 at stage 1",
        decode,
        bad,
        CODEWORDS,
    )
    bad[1, 2] = -2
    refused(
        CodeRangeError,
        IndexError,
        r"decode: code -2 at \(1, 2\) names no codeword; expected .*, or -1 where the stage is dr",
        decode,
        bad,
        CODEWORDS,
    )
    refused(ShapeError, ValueError, r"decode: codes has shape \(\)", decode, np.int32(1), CODEWORDS)


def test_tally_says_what_is_wrong():
    refused(
        ShapeError,
        ValueError,
        r"tally: x has shape \(4, 2\), codes \(2, 5\); expected codes",
        codec.tally,
        X,
        np.zeros((2, 5), np.int32),
        CODEWORDS,
    )
    refused(CodeRangeError, IndexError, "tally: code 9", codec.tally, X, CODES + 9, CODEWORDS)
    dropped = "tally: code -1 at .* names no codeword; expected 0 to 2 at stage 0.$"
    refused(CodeRangeError, IndexError, dropped, codec.tally, X, CODES * 0 - 1, CODEWORDS)
