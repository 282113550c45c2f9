"""Constrained generation by a tiny random model of transformers: no invalid ID, ever."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")

from rvq_np.semantic_ids import Trie, Vocabulary, from_tokens  # noqa: E402

SIZES, FIRST, BEGIN, END = (6, 5, 7), 10, 3, 1
VOCABULARY = Vocabulary(SIZES, FIRST, begin=BEGIN, end=END)
BARE = Vocabulary(SIZES, FIRST)


@pytest.fixture(scope="module")
def catalogue():
    rng = np.random.default_rng(3)
    codes = np.stack([rng.integers(0, size, 12) for size in SIZES])
    codes[0] %= 2  # fewer first codes than beams
    return codes


def decoder_only():
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
        eos_token_id=END, pad_token_id=0, initializer_range=2.0,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(config).eval()


def encoder_decoder():
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0,
        decoder_start_token_id=0, eos_token_id=END,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.T5ForConditionalGeneration(config).eval()


WAYS = {
    "greedy": dict(do_sample=False),
    "sampled": dict(do_sample=True, num_return_sequences=8, temperature=3.0),
    "beams": dict(num_beams=6, num_return_sequences=6, do_sample=False),
}


def constrained(trie, vocabulary, processor, prompt=None):
    if processor:
        own = trie.logits_processor(vocabulary, prompt, end=END)
        return {"logits_processor": transformers.LogitsProcessorList([own])}
    own = trie.prefix_allowed_tokens_fn(vocabulary, prompt, end=END)
    return {"prefix_allowed_tokens_fn": own}


def check(tokens, catalogue, distinct):
    """Every sequence is one ID of the catalogue, its end, and padding."""
    length = len(SIZES)
    assert (tokens[:, length] == END).all()
    assert (tokens[:, length + 1 :] == 0).all()
    codes = from_tokens(tokens[:, :length], BARE)
    found = Trie(catalogue, SIZES).find(codes)
    assert (found >= 0).all()
    if distinct:
        assert len({tuple(each) for each in codes.T.tolist()}) == distinct


@pytest.mark.parametrize("processor", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_decoder_writes_ids_of_the_catalogue_only(catalogue, way, processor):
    trie = Trie(catalogue, SIZES)
    prompt = torch.tensor([[5, 6, BEGIN], [7, 8, BEGIN]])
    made = decoder_only().generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, **WAYS[way],
        **constrained(trie, VOCABULARY, processor),
    )  # fmt: skip
    tokens = made[:, prompt.shape[1] :].numpy()
    for some in np.split(tokens, 2):
        check(some, catalogue, 6 if way == "beams" else 0)


@pytest.mark.parametrize("processor", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_encoder_and_decoder_write_ids_of_the_catalogue_only(catalogue, way, processor):
    trie = Trie(catalogue, SIZES)
    made = encoder_decoder().generate(
        torch.tensor([[5, 6, 7, END]]), max_new_tokens=8, **WAYS[way],
        **constrained(trie, BARE, processor, prompt=1),
    )  # fmt: skip
    check(made[:, 1:].numpy(), catalogue, 6 if way == "beams" else 0)


def test_both_ways_allow_the_same(catalogue):
    trie, rng = Trie(catalogue, SIZES), np.random.default_rng(1)
    one = trie.prefix_allowed_tokens_fn(VOCABULARY)
    many = trie.logits_processor(VOCABULARY)
    for length in range(1, 7):
        tokens = rng.integers(0, 30, (20, length))
        tokens[::2, max(0, length - 3)] = BEGIN
        tokens[::4, max(0, length - 3) + 1 :] = FIRST
        scores = many(torch.tensor(tokens), torch.zeros(20, 40))
        for row, score in zip(tokens, scores, strict=True):
            allowed = torch.nonzero(score == 0).ravel().tolist()
            assert sorted(one(0, torch.tensor(row))) == allowed


def test_the_page_goes_from_files_to_items(tmp_path, monkeypatch):
    """What docs/semantic_ids.md shows, as it stands there."""
    from pathlib import Path

    from tokenizers import Tokenizer, models, pre_tokenizers

    from rvq_np import semantic_ids

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    chosen = rng.choice(np.prod(SIZES), 40, replace=False)
    codes = np.stack(np.unravel_index(chosen, SIZES))
    semantic_ids.write("ids.parquet", [f"B{n}" for n in range(30)], codes[:, :30], SIZES)
    semantic_ids.append("ids.parquet", [f"N{n}" for n in range(10)], codes[:, 30:])
    known = {each: n for n, each in enumerate(["<unk>", "</s>", "more", "like", "this"])}
    base = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=base, eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    page = Path(__file__).parents[2] / "docs" / "semantic_ids.md"
    (script,) = [each.split("```")[0] for each in page.read_text().split("```py\n")[1:]]
    names = {"tokenizer": tokenizer, "model": decoder_only()}
    exec(compile(script, str(page), "exec"), names)
    items = [f"B{n}" for n in range(30)] + [f"N{n}" for n in range(10)]
    found = [name for (name,) in names["items"]]
    assert len(set(found)) == 10
    assert set(found) <= set(items)
    assert names["texts"][0] == "".join(semantic_ids.to_tokens(codes)[0])
    assert semantic_ids.Trie.load("ids.trie.safetensors").n_items == 40
