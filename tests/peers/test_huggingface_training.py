"""Our quantizer in training inside Hugging Face's DAC, and as the codebooks of its EnCodec.

DAC's is the quantizer there that trains: a straight-through gradient, a commitment, and codebooks
pulled by a loss, all of which its model asks of it. EnCodec's, Mimi's and X-Codec's only encode and
decode: no gradient passes them and nothing moves their codewords. DAC searches by the cosine, ours
by distance, which is the same as long as codewords have norm one: at the first step they do.
"""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from rvq_np import demo
from rvq_np.grad.torch import ResidualVectorQuantizer

with warnings.catch_warnings():  # of packages that transformers asks for, not of ours
    warnings.simplefilter("ignore")
    from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

torch.set_num_threads(1)

STAGES, CODEWORDS, WIDTH, HIDDEN = 3, 32, 8, 32
RATE = 250  # frames a second
STEPS = 30


class InDac(nn.Module):
    """Our quantizer with the arguments and results of ``DacResidualVectorQuantizer``."""

    def __init__(self, quantizer):
        super().__init__()
        self.ours = quantizer

    def forward(self, hidden_state, n_quantizers=None):
        per_stage = self.ours.get_bandwidth_per_quantizer(RATE)
        stages = STAGES if n_quantizers is None or self.training else n_quantizers
        result = self.ours(hidden_state, RATE, stages * per_stage)
        loss = result.quantization_loss
        loss = hidden_state.new_zeros(()) if loss is None else loss
        latents = hidden_state[:, :0]  # only from_latents, a tool for analysis, wants them
        # DAC adds losses up over stages, ESPnet's class and ours take the mean.
        return (
            result.quantized, result.codes.transpose(0, 1), latents,
            stages * result.penalty, stages * loss,
        )  # fmt: skip

    def from_codes(self, audio_codes):
        quantized = self.ours.decode(audio_codes.transpose(0, 1))
        return quantized, quantized[:, :0], audio_codes


def dac():
    """Return a small DAC of random weights; its codewords have norm one."""
    torch.manual_seed(0)
    model = DacModel(
        DacConfig(
            encoder_hidden_size=8, downsampling_ratios=[4, 4, 4], decoder_hidden_size=32,
            n_codebooks=STAGES, codebook_size=CODEWORDS, codebook_dim=WIDTH, hidden_size=HIDDEN,
            quantizer_dropout=0.0, sampling_rate=demo.RATE,
        )
    )  # fmt: skip
    with torch.no_grad():
        for stage in model.quantizer.quantizers:
            stage.codebook.weight.copy_(nn.functional.normalize(stage.codebook.weight))
            # Out is the inverse of in, as far as there is one; small weights choose one codeword.
            stage.in_proj.weight.mul_(20)
            stage.out_proj.weight[:, :, 0] = torch.linalg.pinv(stage.in_proj.weight[:, :, 0])
        for module in model.encoder.modules():
            if isinstance(module, nn.Conv1d):
                module.reset_parameters()
    return model


def with_ours(model):
    """Put our quantizer into the model's place for its own, in the same state; return the model."""
    ours = ResidualVectorQuantizer(
        HIDDEN, WIDTH, STAGES, CODEWORDS, kmeans_init=False, codebook_training="gradient"
    )
    state = ours.state_dict()
    for place, stage in enumerate(model.quantizer.quantizers):
        layer = f"vq.layers.{place}."
        state[f"{layer}_codebook.embed"] = stage.codebook.weight
        for name, conv in (("project_in", stage.in_proj), ("project_out", stage.out_proj)):
            state[f"{layer}{name}.weight"] = conv.weight[:, :, 0]
            state[f"{layer}{name}.bias"] = conv.bias
    ours.load_state_dict(state)
    model.quantizer = InDac(ours)
    return model


@pytest.fixture(scope="module")
def audio():
    """Four clips of speech (4, 1, 6400), their power being one."""
    clips = [clip.samples[8000:14400] for clip in demo.shipped_clips("train")[:4]]
    samples = np.stack(clips)[:, None].astype(np.float32)
    return torch.from_numpy(samples / samples.std())


def distance(made, audio):
    """Return how far spectra are apart; of samples alone little is learnt in a few steps."""
    length = min(made.shape[-1], audio.shape[-1])
    one, other = (
        torch.stft(each.reshape(4, -1)[:, :length], 256, window=torch.hann_window(256),
                   return_complex=True).abs()
        for each in (made, audio)
    )  # fmt: skip
    logs = ((one + 0.01).log() - (other + 0.01).log()).abs().mean()
    return (one - other).norm() / other.norm() + logs


def train(model, audio):
    """Train as DAC does but for its discriminator; return the reconstruction of every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        output = model(audio)
        error = distance(output.audio_values, audio)
        optimizer.zero_grad()
        (error + output.loss.mean()).backward()
        optimizer.step()
        losses.append(error.item())
    return losses


def test_the_first_step_of_dac_is_the_same(audio):
    """To float32's rounding: 1e-6 of audio in [-1, 1]; a run here was 1e-7 apart."""
    theirs, ours = dac(), with_ours(dac())
    found, expected = ours(audio), theirs(audio)
    assert torch.equal(found.audio_codes.long(), expected.audio_codes)
    assert all(len(codes.unique()) > 3 for codes in expected.audio_codes.unbind(1))
    torch.testing.assert_close(found.audio_values, expected.audio_values, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.loss, expected.loss.mean(), rtol=1e-4, atol=1e-6)


def test_dac_learns_with_our_quantizer_as_with_its_own(audio):
    """From one state: 2 % apart on the median of the steps, 10 % over the last five (a run here).

    DAC's gradients also pass through the residuals, which ours hold fixed; that, more than the
    cosine, is what sets them apart. Where projections in and out are no inverses of each other,
    they differ more: there DAC's fell faster.
    """
    theirs, ours = dac(), with_ours(dac())
    before = {name: each.clone() for name, each in ours.quantizer.named_parameters()}
    one, other = (np.array(train(model, audio)) for model in (ours, theirs))
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert np.median(np.abs(one / other - 1)) < 0.06
    assert one[-5:].mean() == pytest.approx(other[-5:].mean(), rel=0.2)
    for curve in (one, other):
        assert curve[-5:].mean() < 0.65 * curve[0]
    for name, each in ours.quantizer.named_parameters():  # all of it learns, codewords as well
        assert not torch.equal(each, before[name]), name


def test_dac_encodes_and_decodes_by_our_quantizer(audio):
    """Its own methods, with as many codebooks as are asked for."""
    theirs, ours = dac().eval(), with_ours(dac()).eval()
    with torch.no_grad():
        for stages in (1, STAGES, None):
            found, expected = (
                model.encode(audio, n_quantizers=stages).audio_codes for model in (ours, theirs)
            )
            assert found.shape == (4, stages or STAGES, expected.shape[2])
            assert torch.equal(found.long(), expected)
            made, other = (
                model.decode(audio_codes=codes).audio_values
                for model, codes in ((ours, found), (theirs, expected))
            )
            torch.testing.assert_close(made, other, rtol=0, atol=1e-6)


def encodec():
    """Return a small EnCodec of random weights and random codewords."""
    torch.manual_seed(0)
    model = EncodecModel(
        EncodecConfig(
            target_bandwidths=[2.5, 5.0], sampling_rate=demo.RATE, hidden_size=16, num_filters=4,
            upsampling_ratios=[4, 4, 4], num_lstm_layers=1, codebook_size=CODEWORDS,
        )
    )  # fmt: skip
    assert len(model.quantizer.layers) == 4
    for stage in model.quantizer.layers:
        stage.codebook.embed.normal_(0, 0.05)
    return model


class InEncodec(nn.Module):
    """Our quantizer with the methods of ``EncodecResidualVectorQuantizer``."""

    def __init__(self, quantizer):
        super().__init__()
        self.ours = quantizer

    def encode(self, embeddings, bandwidth=None):
        return self.ours.encode(embeddings, RATE, bandwidth)

    def decode(self, codes):
        return self.ours.decode(codes)


def test_encodec_gives_the_same_codes_and_can_be_trained(audio):
    """Its own quantizer gives the encoder no gradient; ours does, and its codewords move."""
    model = encodec()
    ours = ResidualVectorQuantizer(16, 16, 4, CODEWORDS, kmeans_init=False)
    state = ours.state_dict()
    for place, stage in enumerate(model.quantizer.layers):
        for name in ("embed", "embed_avg"):
            state[f"vq.layers.{place}._codebook.{name}"] = stage.codebook.embed
    ours.load_state_dict(state)
    with torch.no_grad():
        expected = [model(audio, bandwidth=bandwidth) for bandwidth in (2.5, 5.0)]
        model.quantizer = InEncodec(ours.eval())
        for bandwidth, other in zip((2.5, 5.0), expected, strict=True):
            found = model(audio, bandwidth=bandwidth)
            assert torch.equal(found.audio_codes.long(), other.audio_codes)
            torch.testing.assert_close(found.audio_values, other.audio_values, rtol=0, atol=1e-5)
    ours.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(STEPS):
        result = ours(model.encoder(audio), RATE)
        error = distance(model.decoder(result.quantized), audio)
        optimizer.zero_grad()
        (error + result.penalty).backward()
        assert model.encoder.layers[0].conv.bias.grad.abs().max() > 0
        optimizer.step()
        losses.append(error.item())
    assert losses[-1] < 0.8 * losses[0]
