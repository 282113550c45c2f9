"""A bounded run of the fuzzing in docs/reliability.md, and faults that it has to find."""

import contextlib
import inspect
import io
import random
import textwrap

import pytest
from fuzzing import corpus, mutations, places, run, targets
from helpers import paths

from rvq_np import bitstream
from rvq_np.bitstream import Reader, _format, _stages
from rvq_np.errors import BitstreamError

pytestmark = pytest.mark.slow
INPUTS = {
    "container": 20_000, "safetensors": 4_000, "cli": 500, "published": 2_000, "models": 1_000,
    "places": 1_500,
}  # fmt: skip


@pytest.mark.parametrize("target", run.TARGETS)
def test_every_damaged_file_is_read_or_refused(target):
    result = run.fuzz(target, INPUTS[target], seed=7)
    assert result.findings == 0
    assert result.accepted + result.refused == INPUTS[target]
    assert min(result.accepted, result.refused) > INPUTS[target] / 100
    expected = {each.__name__ for each in mutations.BYTES}
    if target in ("safetensors", "published", "models"):
        expected.add("rewritten")
    if target == "places":
        expected = {f"input {each}" for each in places.INPUTS}
        expected |= {f"output {each}" for each in places.OUTPUTS}
    assert set(result.kinds) == expected
    assert result.grown < 256 << 20


def test_an_input_can_be_replayed():
    made = [targets.Container().input(random.Random("3 17"), {}) for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize("content", corpus.containers())
def test_sealing_leaves_a_good_file_as_it_is(content):
    assert mutations.sealed(content) == content


def test_sealing_gets_damage_past_the_checksums():
    """Without it all damage would end at the first of them, and nothing behind be tried."""
    shares, whole = [], corpus.containers()[2]
    for seal in (bytes, mutations.sealed):
        ended = 0
        for number in range(2000):
            content = bytearray(whole)
            mutations.set_byte(random.Random(number), content, [])
            try:
                bitstream.read(io.BytesIO(seal(content)))
            except BitstreamError as error:
                ended += "checksum" in str(error)
        shares.append(ended / 2000)
    assert shares[0] > 0.6  # of the others, some bytes were set to what they were
    assert shares[1] < shares[0] / 3


@contextlib.contextmanager
def no_counts():
    """A stage may claim to hold any number of codes."""
    with paths.patched((_stages, "check", lambda *_: None)):
        yield


@contextlib.contextmanager
def no_ends():
    """A range coded stage may end anywhere and in any state."""
    real = _stages._decode

    def decode(data, subtract, symbols, codes):
        with contextlib.suppress(BitstreamError):
            real(data, subtract, symbols, codes)

    with paths.patched((_stages, "_decode", decode)):
        yield


@contextlib.contextmanager
def no_largest():
    """Packed symbols out of the range of a codebook pass."""
    with paths.patched((_stages, "_unpack", _unpack_unchecked(_stages._unpack))):
        yield


def _unpack_unchecked(real):
    def unpack(*arguments):
        real(*arguments)
        return 0

    return unpack


@contextlib.contextmanager
def without(holder, name, check):
    """A check is left out of the source of a function."""
    real = getattr(holder, name)
    source = textwrap.dedent(inspect.getsource(real))
    assert source.count(check) == 1
    space = dict(real.__globals__)
    exec("from __future__ import annotations\n" + source.replace(check, "False"), space)
    with paths.patched((holder, name, space[name])):
        yield


FAULTS = {
    "counts": no_counts,
    "ends": no_ends,
    "largest": no_largest,
    "sum of a stage": lambda: without(Reader, "_codes", "crc32(data) != part.checksum"),
    "sum of a chunk": lambda: without(_format, "read_chunk", "checksum != crc32(content[8:])"),
    "sum of the index": lambda: without(
        _format, "read_index", 'crc32(content[:-4]) != int.from_bytes(content[-4:], "little")'
    ),
    "sum of the header": lambda: without(
        _format, "read_header", 'crc32(content[:-4]) != int.from_bytes(content[-4:], "little")'
    ),
    "last state": lambda: without(_stages, "_decode", "(states != START).any()"),
    "last bits": lambda: without(_stages, "from_bytes", "data[-1] >> len(codes) * width % 8"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault, capsys):
    with FAULTS[fault]():
        result = run.fuzz("container", 20_000, seed=7)
    assert result.findings > 0
    assert "of seed 7" in capsys.readouterr().err
