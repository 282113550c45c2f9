"""The example of docs/without_torch.md: a codec by onnxruntime and rvq_np, with torch's tokens."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from helpers import regret

import rvq_np
from rvq_np import checkpoints, cli

ROOT = Path(__file__).parents[2]
BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "onnx"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Refuse())
"""
MEMORY = r"""
import re
from pathlib import Path
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
print("megabytes", int(peak.group(1)) >> 10)
"""


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """Return a DAC with random weights, and a folder with all that the example needs."""
    folder = tmp_path_factory.mktemp("codec")
    torch.manual_seed(0)
    config = transformers.DacConfig(
        encoder_hidden_size=8, downsampling_ratios=[4, 2], decoder_hidden_size=16, n_codebooks=4,
        codebook_size=64, codebook_dim=4,
    )  # fmt: skip
    model = transformers.DacModel(config).eval()
    for each in model.quantizer.quantizers:
        for way in (each.in_proj, each.out_proj):
            way.weight.data.normal_(0, way.weight.shape[1] ** -0.5)
    audio = torch.randn(1, 1, 4000)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that this exporter has a successor, which needs more
        for name, part, given in (
            ("audio", model.encoder, audio), ("latents", model.decoder, model.encoder(audio))
        ):  # fmt: skip
            out = "latents" if name == "audio" else "audio"
            torch.onnx.export(
                part, (given,), folder / ("encoder.onnx" if name == "audio" else "decoder.onnx"),
                input_names=[name], output_names=[out], dynamic_axes={name: {0: "b", 2: "t"}},
                dynamo=False,
            )  # fmt: skip
    np.save(folder / "audio.npy", audio.numpy())
    model.save_pretrained(folder / "dac")
    line = ["convert", str(folder / "dac"), "-o", str(folder / "codebooks.safetensors")]
    assert cli.main(line) == 0
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/without_torch.md").read_text(), re.S)
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + code + MEMORY], cwd=folder, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return model, folder, done.stdout


@torch.no_grad()
def test_the_tokens_are_those_of_torch(codec):
    model, folder, _ = codec
    audio = torch.from_numpy(np.load(folder / "audio.npy"))
    tokens = model.encode(audio).audio_codes[0].numpy()
    codes = np.load(folder / "codes.npy")
    assert codes.shape == tokens.shape
    assert (codes != tokens).any(axis=0).mean() <= 0.01  # near-ties
    quantizer = checkpoints.load(folder / "codebooks.safetensors")
    frames = model.encoder(audio)[0].T.numpy()
    regret.assert_nearest(frames, list(tokens), quantizer, through=True)
    np.testing.assert_array_equal(rvq_np.bitstream.read(folder / "audio.rvq").codes, codes)


@torch.no_grad()
def test_the_audio_is_that_of_torch(codec):
    model, folder, _ = codec
    codes = torch.from_numpy(np.load(folder / "codes.npy").astype(np.int64))[None]
    expected = model.decode(audio_codes=codes).audio_values.numpy()
    decoded = np.load(folder / "decoded.npy")
    np.testing.assert_allclose(decoded.ravel(), expected.ravel(), atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_it_takes_little_memory(codec):
    _, _, out = codec
    megabytes = int(re.search(r"megabytes (\d+)", out).group(1))
    assert megabytes < 300
