"""GGUF files as ggml's own package writes them: the same tensors here."""

import gguf
import numpy as np
import pytest
from gguf.quants import quantize
from helpers.checkpoint_files import numbers

from rvq_np import checkpoints
from rvq_np.errors import CheckpointError
from rvq_np.files import gguf as ours

BOOKS = [numbers(q, 6, 32) for q in range(3)]
NAMES = {"vq.q{}.codebook": "centroids.{}"}


def written(folder, kind, align=None):
    writer = gguf.GGUFWriter(folder / "model.gguf", "codec")
    if align:
        writer.add_custom_alignment(align)
    writer.add_uint32("codec.n_q", 3)
    writer.add_array("tokens", ["a", "bc"])
    writer.add_array("rates", [1, 2, 3])
    writer.add_tensor("enc.weight", quantize(np.ones((4, 64), np.float32), Q8), raw_dtype=Q8)
    for q, book in enumerate(BOOKS):
        raw = kind if kind in (BF16, Q8) else None
        data = quantize(book, kind) if raw else book.astype(TYPES[kind])
        writer.add_tensor(f"vq.q{q}.codebook", data, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


F32, F16, BF16, Q8 = (gguf.GGMLQuantizationType[each] for each in ("F32", "F16", "BF16", "Q8_0"))
TYPES = {F32: np.float32, F16: np.float16}


@pytest.mark.parametrize("align", [None, 128])
@pytest.mark.parametrize("kind", [F32, F16, BF16])
def test_codebooks_are_those_that_were_written(kind, align, tmp_path):
    path = written(tmp_path, kind, align)
    for stage, book in zip(checkpoints.load(path, names=NAMES), BOOKS, strict=True):
        np.testing.assert_array_equal(stage.codebook, book)
    entries, about = ours.read_header(path)
    reader = gguf.GGUFReader(path)
    assert about["codec.n_q"] == 3
    assert {each.name: (each.tensor_type.name, each.data_offset) for each in reader.tensors} == {
        name: (entry.dtype, entry.start) for name, entry in entries.items()
    }


def test_a_quantized_codebook_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="has type Q8_0; expected floats"):
        checkpoints.load(written(tmp_path, Q8), names=NAMES)


def test_the_types_are_those_of_the_package():
    theirs = {each.value: each.name for each in gguf.GGMLQuantizationType}
    assert theirs.items() <= ours.TYPES.items()
