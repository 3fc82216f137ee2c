"""Bases that no board could use: the server says so, by name and with the remedy, before any board hears of them."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aggregator.errors import ExitCode
from aggregator.settings import base_model
from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import tensor_shapes
from tests.fakes.aggregator_command import call
from tests.fakes.models.bases import word_tokenizer, write_base, write_weights
from tests.fakes.runs import TINY_T5

Break = Callable[[Path], object]

CASES = Path(__file__).parents[4] / "shared" / "cases"
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 307867048\n"
NORM = "encoder.final_layer_norm.weight"


def configured(**changes: Any) -> Break:
    """A config.json in which these keys are other ones."""
    return lambda folder: (folder / CONFIG).write_text(json.dumps({**TINY_T5, **changes}))


def written(name: str, content: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(content)


def without(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def cut(name: str, left_bytes: int) -> Break:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:left_bytes])


def stored(dtype: str = "BF16", **changes: list[int] | None) -> Break:
    """Weights of another type, or with tensors of other shapes; None leaves one out."""

    def write(folder: Path) -> None:
        shapes = {**tensor_shapes(T5Config.parse(TINY_T5)), **changes}
        write_weights(folder / WEIGHTS, {name: shape for name, shape in shapes.items() if shape is not None}, dtype)

    return write


def tokenizer(**changes: Any) -> Break:
    return lambda folder: (folder / TOKENIZER).write_text(json.dumps({**word_tokenizer(120), **changes}))


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def sentencepiece(folder: Path) -> None:
    (folder / TOKENIZER).rename(folder / "spiece.model")


def adapter(folder: Path) -> None:
    (folder / CONFIG).rename(folder / "adapter_config.json")


def deep(folder: Path) -> None:
    write_base(folder, {**TINY_T5, "num_layers": 300})


def infinite(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-2] + struct.pack("<H", 0x7F80))  # bf16's infinity


def in_shards(then: Break) -> Break:
    """The same base in three files, with an index."""

    def write(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        write_base(folder, TINY_T5, shards=3)
        then(folder)

    return write


SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"

BROKEN: dict[str, tuple[Break, str]] = {
    "not there": (without(CONFIG), "has no config.json: download the model again"),
    "an adapter": (adapter, "is an adapter and no base"),
    "config.json cut": (cut(CONFIG, 40), "config.json is not JSON"),
    "config.json of LFS": (written(CONFIG, POINTER), "config.json is a Git LFS pointer"),
    "T5 v1.0": (configured(feed_forward_proj="relu"), "this is T5 v1.0"),
    "mT5": (configured(model_type="mt5"), "mT5 is not supported"),
    "UMT5": (configured(model_type="umt5"), "UMT5 is not supported"),
    "LongT5": (configured(model_type="longt5"), "LongT5 is not supported"),
    "T5Gemma": (configured(model_type="t5gemma"), "T5Gemma is not supported"),
    "ByT5": (configured(tokenizer_class="ByT5Tokenizer"), "ByT5 reads bytes"),
    "Switch": (configured(model_type="switch_transformers"), "Switch Transformers is not supported"),
    "GPT-2": (configured(model_type="gpt2"), "model_type is 'gpt2', t5 is needed"),
    "an encoder": (configured(architectures=["T5EncoderModel"]), "T5EncoderModel, which writes no text"),
    "text for a number": (configured(d_model="768"), "d_model is '768', a whole number"),
    "a fraction": (configured(d_ff=80.5), "d_ff is 80.5"),
    "null": (configured(num_heads=None), "num_heads is None"),
    "a list": (configured(num_layers=[1]), r"num_layers is [1]"),
    "true": (configured(num_layers=True), "num_layers is True"),
    "negative": (configured(d_kv=-16), "d_kv is -16"),
    "huge": (configured(d_ff=10**15), "d_ff is 1000000000000000"),
    "infinite": (written(CONFIG, json.dumps({**TINY_T5, "d_ff": float("inf")}).encode()), "d_ff is inf"),
    "too many layers": (deep, "at most 2048 weights are allowed"),
    "two ends": (configured(eos_token_id=[1, 2]), "eos_token_id is [1, 2], one id is needed"),
    "an end outside": (configured(eos_token_id=120), "eos_token_id is 120"),
    "text for a flag": (configured(tie_word_embeddings="no"), "tie_word_embeddings is 'no'"),
    "another width": (configured(d_model=32), "shape [120, 64], config.json says [120, 32]"),
    "one layer more": (configured(num_layers=2), "lacks tensor encoder.block.1"),
    "an unknown storage": (configured(braid_storage="int3"), "stored as 'int3', which this version does not know"),
    "no weights": (without(WEIGHTS), "has no .safetensors file"),
    "pickled weights": (pickled, "pytorch_model.bin is a pickle, which is never read"),
    "weights of LFS": (written(WEIGHTS, POINTER), "`git lfs pull`"),
    "weights cut": (cut(WEIGHTS, 9000), "model.safetensors is damaged or truncated: it has 9000 of"),
    "weights empty": (written(WEIGHTS, b""), "it has 0 bytes"),
    "weights that are none": (written(WEIGHTS, b"PK\x03\x04 a zip file, long enough to be one"), "is damaged"),
    "a tensor missing": (stored(**{NORM: None}), f"lacks tensor {NORM}"),
    "a tensor too many": (stored(surprise=[1]), "has unknown tensor surprise"),
    "a tensor of another shape": (stored(**{NORM: [63]}), f"{NORM} has shape [63]"),
    "whole numbers": (stored("I8"), "is stored as I8, a float type is needed"),
    "infinity": (infinite, "holds NaN or infinity"),
    "a shard missing": (in_shards(without(SHARD)), f"has no {SHARD}, which"),
    "a shard cut": (in_shards(cut(SHARD, 5000)), f"{SHARD} is damaged or truncated: it has 5000 of"),
    "a shard of LFS": (in_shards(written(SHARD, POINTER)), "`git lfs pull`"),
    "no index": (in_shards(without(INDEX)), f"has neither {WEIGHTS} nor {INDEX}"),
    "an index cut": (in_shards(cut(INDEX, 99)), f"{INDEX} is damaged"),
    "no tokenizer": (without(TOKENIZER), "has no tokenizer.json"),
    "sentencepiece alone": (sentencepiece, "has spiece.model but no tokenizer.json: make it with transformers"),
    "tokenizer of LFS": (written(TOKENIZER, POINTER), "`git lfs pull`"),
    "tokenizer cut": (cut(TOKENIZER, 300), "tokenizer.json cannot be read"),
    "tokenizer without a model": (tokenizer(model=None), "tokenizer.json cannot be read"),
    "tokenizer of an unknown kind": (tokenizer(model={"type": "Bytes"}), "tokenizer.json cannot be read"),
    "tokenizer without pieces": (tokenizer(model={"type": "BPE", "vocab": {}}), "holds no pieces"),
    "tokenizer too large": (tokenizer(added_tokens=[{"id": 120, "content": "<x>"}]), "knows 121 pieces"),
    "tokenizer without the end": (
        tokenizer(model={"type": "Unigram", "vocab": [["<pad>", 0.0]]}),
        "has no piece 1, which config.json names as eos_token_id",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_base_is_refused_where_it_enters(kind: str, tmp_path: Path) -> None:
    """`aggregator init` gives the reason in one sentence, and `serve` the same where a base goes bad later."""
    break_it, said = BROKEN[kind]
    base, server = tmp_path / "base", tmp_path / "server"
    write_base(base, TINY_T5)
    assert call("init", server, "--model", base)[0] == 0
    break_it(base)

    for arguments in (("init", tmp_path / "other", "--model", base), ("serve", server, "--port", 0)):
        code, text = call(*arguments)
        error, hint, *more = text.splitlines()
        assert code == ExitCode.BASE, text
        if kind == "infinity" and arguments[0] == "serve":
            said = "is not the base model that this run was made for"  # the digest shows it; no value is read again
        assert error.startswith("error: ") and said in error, text
        assert hint.startswith("  → ") and not more
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"eos_token_id": [1], "pad_token_id": None, "d_kv": 16.0},
        {"tie_word_embeddings": False, "architectures": ["T5ForConditionalGeneration"]},
    ],
)
def test_a_whole_base_is_taken(changes: dict[str, Any], shards: int, tmp_path: Path) -> None:
    """In one file or in several, its numbers in whatever types mean them."""
    write_base(tmp_path / "base", {**TINY_T5, **changes}, shards=shards)

    code, text = call("init", tmp_path / "server", "--model", tmp_path / "base")

    assert code == 0, text


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not beside this checkout")
def test_the_shared_config_is_used(tmp_path: Path) -> None:
    """A config.json with a list for eos and null for padding is that of its base, whose numbers are plain."""
    config = json.loads((CASES / "config_eos_list.json").read_text())
    write_base(tmp_path / "base", config)

    assert call("init", tmp_path / "server", "--model", tmp_path / "base")[0] == 0


@pytest.mark.slow  # loads the library that boards read text with
def test_a_tokenizer_is_read_as_boards_read_it(tmp_path: Path) -> None:
    """Beyond its pieces: a normaliser that does not exist is found where the library is installed."""
    write_base(tmp_path / "base", TINY_T5)
    tokenizer(normalizer={"type": "Imaginary"})(tmp_path / "base")

    code, text = call("init", tmp_path / "server", "--model", tmp_path / "base")

    assert code == ExitCode.BASE
    assert f"{TOKENIZER} cannot be read" in text


def test_reading_a_large_base_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is read twice, with what is done and what is left; a small base is read without a word."""
    write_base(tmp_path / "base", TINY_T5)
    assert "in all" not in call("init", tmp_path / "quiet", "--model", tmp_path / "base")[1]
    monkeypatch.setattr(base_model, "MANY_BYTES", 1)

    code, text = call("init", tmp_path / "told", "--model", tmp_path / "base")

    assert code == 0
    assert "reading the base, its values and then its digest" in text
    assert re.search(r" are read, after ", text)
