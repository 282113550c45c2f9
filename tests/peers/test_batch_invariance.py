"""Do the codes of transformers' codecs depend on the batch? Small models, random weights.

``docs/conformance.md`` has the facts of larger ones, which `conformance.batches` finds. Counts of
frames depend on the processor; what is tested here does not.
"""

import json

import numpy as np
import pytest
import torch
from conformance import batches, codecs

import rvq_np
from rvq_np.testing import batch_invariance_tests
from rvq_np.testing.batches import batch_drifts

torch.set_num_threads(1)
SIGNALS = codecs.noise([960 * k for k in (7, 4, 10)])
CAUSAL = {"encodec", "mimi"}
KNOWN = json.loads(batches.KNOWN.read_text())


def drifts_of(codec, encode):
    found = batch_drifts(
        encode, SIGNALS, latents=codec.latents, quantizer=codec.quantizer, variants=codec.variants
    )
    return {each.way: each for each in found}


@pytest.mark.parametrize("name", codecs.SMALL)
def test_what_depends_on_the_batch_is_reported(name, tmp_path):
    codec = codecs.made(name, SIGNALS, tmp_path, codecs.SMALL[name])
    drifts = drifts_of(codec, codec.encode)
    assert drifts["again"].changed == 0
    # Padding reaches the last frames through convolutions that look ahead, and nothing masks it.
    longer = drifts["beside longer ones"]
    by_network = longer.changed - longer.by_quantizer
    assert by_network <= longer.frames / 50 if name in CAUSAL else by_network > 0
    assert longer.changed < longer.frames / 4
    assert drifts["everything in bfloat16"].changed > longer.frames / 20


@pytest.mark.parametrize("name", codecs.SMALL)
@torch.no_grad()
def test_the_codec_is_encoded_as_its_model_does(name, tmp_path):
    codec = codecs.made(name, SIGNALS, tmp_path, codecs.SMALL[name])
    options = {"bandwidth": 2.4} if name == "encodec" else {}
    for signal in SIGNALS:
        x = torch.from_numpy(signal)[None, None]
        codes = codec.model.encode(x, **options).audio_codes
        codes = codes[0, 0] if name == "encodec" else codes[0]
        (mine,) = codec.encode([signal])
        np.testing.assert_array_equal(codes[:, : mine.shape[1]], mine)
        assert 0 <= codes.shape[1] - mine.shape[1] <= 1


@pytest.mark.parametrize("name", codecs.SMALL)
def test_our_quantizer_adds_nothing_to_what_the_network_changes(name, tmp_path):
    codec = codecs.made(name, SIGNALS, tmp_path, codecs.SMALL[name])

    def ours(batch):
        return [
            rvq_np.encode(np.ascontiguousarray(each), codec.quantizer)
            for each in codec.latents(batch)
        ]

    for each in batch_drifts(ours, SIGNALS, latents=codec.latents, quantizer=codec.quantizer):
        assert each.by_quantizer == 0
    made = batch_invariance_tests(encode=ours, signals=SIGNALS)()
    made.test_codes_are_the_same_again()


@pytest.mark.parametrize("name", codecs.LARGE)
def test_the_facts_that_are_written_are_of_the_same_kind(name):
    ways = {each["way"]: each for each in KNOWN[name]["ways"]}
    assert ways["again"]["changed"] == 0
    longer = ways["beside longer ones"]
    assert (longer["changed"] == longer["by_quantizer"]) == (name in CAUSAL)
    for way, changed in KNOWN[name]["rvq_np"].items():
        assert changed <= ways[way]["changed"] - ways[way]["by_quantizer"]
