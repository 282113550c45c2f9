"""Do the codes of transformers' codecs depend on the batch? Random weights; facts of the docs."""

import numpy as np
import pytest
import torch
import transformers

from rvq_np import checkpoints
from rvq_np.testing import batch_invariance_tests
from rvq_np.testing.batches import batch_drifts

torch.set_num_threads(1)
SIGNALS = [np.random.default_rng(n).standard_normal(960 * k).astype(np.float32) * 0.3
           for n, k in enumerate((7, 4, 10))]  # fmt: skip


def encodec():
    config = transformers.EncodecConfig(
        num_filters=4, upsampling_ratios=[4, 2], num_lstm_layers=1, hidden_size=16,
        codebook_size=64, codebook_dim=16, target_bandwidths=[24.0], sampling_rate=800,
    )  # fmt: skip
    model = transformers.EncodecModel(config).eval()
    books = [layer.codebook for layer in model.quantizer.layers]
    return model, books, "embed", 8, lambda model, x: model.encoder(x)


def dac():
    config = transformers.DacConfig(
        encoder_hidden_size=4, downsampling_ratios=[4, 2], decoder_hidden_size=16, n_codebooks=4,
        codebook_size=64, codebook_dim=4,
    )  # fmt: skip
    model = transformers.DacModel(config).eval()
    for each in model.quantizer.quantizers:
        for way in (each.in_proj, each.out_proj):
            way.weight.data.normal_(0, way.weight.shape[1] ** -0.5)
    books = [each.codebook for each in model.quantizer.quantizers]
    return model, books, "weight", 8, lambda model, x: model.encoder(x)


def mimi():
    config = transformers.MimiConfig(
        hidden_size=16, num_filters=4, upsampling_ratios=[4, 2], codebook_size=64,
        codebook_dim=16, vector_quantization_hidden_dimension=16, num_quantizers=4,
        num_semantic_quantizers=1, num_hidden_layers=2, intermediate_size=32,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8, upsample_groups=16,
        sampling_rate=800, frame_rate=50,
    )  # fmt: skip
    model = transformers.MimiModel(config).eval()
    stacks = (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    )
    books = [layer.codebook for stack in stacks for layer in stack.layers]
    for book in books:
        book.cluster_usage.fill_(1)
        book.initialized.fill_(1)

    def encoder(model, x):
        out = model.encoder(x)[0].transpose(1, 2)
        return model.downsample(model.encoder_transformer(out)[0].transpose(1, 2))

    return model, books, "embed_sum", 32, encoder


MADE = {"encodec": encodec, "dac": dac, "mimi": mimi}


def codec(name, folder):
    """Return encode, latents and the quantizer of a model with random weights."""
    torch.manual_seed(0)
    model, books, codebook, hop, encoder = MADE[name]()
    x = padded(SIGNALS)
    with torch.no_grad():  # codewords among the latents, or there would be no near-ties
        rows = encoder(model, x).transpose(1, 2).flatten(0, 1)
        for q, book in enumerate(books):
            value = getattr(book, codebook).data
            chosen = rows[torch.randperm(len(rows))[: len(value)]][:, : value.shape[1]]
            value.copy_(chosen * 0.6**q)
            if hasattr(book, "inited"):
                book.inited.fill_(1)
    model.save_pretrained(folder)
    quantizer = checkpoints.load(folder)

    @torch.no_grad()
    def latents(batch):
        out = encoder(model, padded(batch))
        return [
            each[:, : len(signal) // hop].T.numpy() for each, signal in zip(out, batch, strict=True)
        ]

    @torch.no_grad()
    def encode(batch):
        out = encoder(model, padded(batch))
        if name == "mimi":
            codes = model.quantizer.encode(out)
        elif name == "dac":
            codes = model.quantizer(out)[1].transpose(0, 1)
        else:
            codes = model.quantizer.encode(out, 24.0)
        return [codes[:, n, : len(signal) // hop].numpy() for n, signal in enumerate(batch)]

    return encode, latents, quantizer


def padded(batch):
    longest = max(map(len, batch))
    return torch.from_numpy(np.stack([np.pad(x, (0, longest - len(x))) for x in batch]))[:, None]


@pytest.mark.parametrize("name", MADE)
def test_what_depends_on_the_batch_is_reported(name, tmp_path):
    encode, latents, quantizer = codec(name, tmp_path)
    drifts = {
        each.way: each
        for each in batch_drifts(encode, SIGNALS, latents=latents, quantizer=quantizer)
    }
    assert drifts["again"].changed == 0
    # Padding reaches the last frames through convolutions, and nothing masks it.
    longer = drifts["beside longer ones"]
    assert longer.by_quantizer <= longer.changed < longer.frames


@pytest.mark.parametrize("name", MADE)
def test_our_quantizer_adds_nothing_to_what_the_network_changes(name, tmp_path):
    import rvq_np

    _, latents, quantizer = codec(name, tmp_path)

    def ours(batch):
        return [rvq_np.encode(np.ascontiguousarray(each), quantizer) for each in latents(batch)]

    for each in batch_drifts(ours, SIGNALS, latents=latents, quantizer=quantizer):
        assert each.by_quantizer == 0
    made = batch_invariance_tests(encode=ours, signals=SIGNALS)()
    made.test_codes_are_the_same_again()
