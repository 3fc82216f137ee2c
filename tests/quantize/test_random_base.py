"""A random base of a FLAN-T5's shape: true sizes, every format, finite through the model, the same for a seed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import tensor_shapes
from quantize import random_base
from quantize.base import FORMATS, BaseFormatError, load_base
from quantize.random_base import SHAPES, write_random_base

# The same code at sizes that are all unequal, and small enough to write in no time.
TINY = T5Config(vocab_size=160, d_model=48, d_kv=16, d_ff=80, n_heads=2, n_encoder_blocks=2, n_decoder_blocks=2)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a shape small enough for a fast test."""
    monkeypatch.setattr(random_base, "SHAPES", {**SHAPES, "tiny": TINY})
    return "tiny"


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [("small", 76_961_152), ("base", 247_577_856), ("large", 783_150_080), ("xl", 2_849_757_184)],
)
def test_shapes_have_the_published_parameter_counts(shape: str, parameters: int) -> None:
    """Each shape has as many parameters as the FLAN-T5 of its name."""
    assert sum(torch.Size(sizes).numel() for sizes in tensor_shapes(SHAPES[shape]).values()) == parameters


@pytest.mark.parametrize("format", FORMATS)
def test_loads_in_every_format(tiny: str, tmp_path: Path, format: str) -> None:
    """The folder is a base: load_base takes it in each format, with an output layer of its own."""
    write_random_base(tmp_path / "base", tiny, seed=1)

    base = load_base(tmp_path / "base", format)

    assert base.weights["lm_head"] is not base.weights["shared"]
    assert base.weights["decoder.block.1.layer.1.EncDecAttention.q"].shape == (32, 48)


def test_values_keep_activations_at_their_size(tiny: str, tmp_path: Path) -> None:
    """A linear layer's output is about as large as its input, a query √d_kv times smaller: T5's initialisation."""
    write_random_base(tmp_path / "base", tiny, seed=1)
    base = load_base(tmp_path / "base", "fp32")
    vectors = torch.randn(400, 48, generator=torch.Generator().manual_seed(2))

    wide = vectors @ base.weights["encoder.block.0.layer.1.DenseReluDense.wi_0"].dense(torch.float32).T
    query = vectors @ base.weights["encoder.block.0.layer.0.SelfAttention.q"].dense(torch.float32).T

    assert float(wide.std()) == pytest.approx(1.0, rel=0.1)
    assert float(query.std()) == pytest.approx(16**-0.5, rel=0.1)
    assert torch.equal(base.plain["decoder.final_layer_norm.weight"], torch.ones(48))


def test_same_seed_same_bytes(tiny: str, tmp_path: Path) -> None:
    """A seed gives the same files again; another seed gives other values."""

    def digest(name: str, seed: int) -> str:
        write_random_base(tmp_path / name, tiny, seed=seed)
        return hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()

    assert digest("first", 3) == digest("second", 3)
    assert digest("third", 4) != digest("first-again", 3)


def test_one_word_is_one_token(tmp_path: Path, tiny: str) -> None:
    """The tokenizers library reads the tokenizer, and every word w0, w1… is one id below the vocabulary's size."""
    write_random_base(tmp_path / "base", tiny, seed=1)
    tokenizer = Tokenizer.from_file(str(tmp_path / "base" / "tokenizer.json"))

    ids = tokenizer.encode("w0 w1  w156\nunheard-of", add_special_tokens=False).ids

    assert ids == [3, 4, 159, 2]
    assert tokenizer.get_vocab_size() == TINY.vocab_size
    assert tokenizer.decode([3, 1], skip_special_tokens=True) == "w0"


def test_unknown_shape_lists_the_shapes(tmp_path: Path) -> None:
    """A name that is no shape is refused with the names that are, and nothing is written."""
    with pytest.raises(BaseFormatError, match=r"'huge'.*small, base, large, xl, xxl"):
        write_random_base(tmp_path / "base", "huge", seed=1)

    assert not (tmp_path / "base").exists()


def test_folder_with_files_is_left_alone(tiny: str, tmp_path: Path) -> None:
    """Nothing is ever written over."""
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(BaseFormatError, match="not empty"):
        write_random_base(tmp_path, tiny, seed=1)

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_small_runs_through_transformers_in_bf16(tmp_path: Path) -> None:
    """The true small shape has finite logits in bf16, and its loss starts near log(vocabulary)."""
    from transformers import T5Config as TheirConfig
    from transformers import T5ForConditionalGeneration

    write_random_base(tmp_path / "base", "small", seed=1)
    base = load_base(tmp_path / "base", "bf16")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    # transformers 5 ties the head whatever the config says; it is replaced below.
    model = T5ForConditionalGeneration(TheirConfig(**config | {"dropout_rate": 0.0})).bfloat16()
    model.lm_head.weight = torch.nn.Parameter(base.weights["lm_head"].dense(torch.bfloat16))
    matrices = {f"{name}.weight": weight.dense(torch.bfloat16) for name, weight in base.weights.items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(matrices[name] if name in matrices else base.plain[name])
    ids = torch.randint(3, 32128, (2, 24), generator=torch.Generator().manual_seed(3))

    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids[:, :7].contiguous()).loss

    assert 10.0 < float(loss) < 12.0
