"""The manifest names a T5's weights as transformers does, and refuses configs that are not a FLAN-T5's."""

from __future__ import annotations

from typing import Any

import pytest

from wire.errors import WireError
from wire.limits import MAX_WEIGHTS
from wire.manifest import DECODER_BLOCK_WEIGHTS, ENCODER_BLOCK_WEIGHTS, manifest_digest, t5_weights
from wire.messages import Weight

CONFIG: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 64,
    "d_kv": 16,
    "num_heads": 3,
    "d_ff": 80,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "feed_forward_proj": "gated-gelu",
}


def test_counts_per_block() -> None:
    """Seven weights in an encoder block, eleven in a decoder block; the decoder's come last in both scopes."""
    everything, decoder = t5_weights(CONFIG, "all"), t5_weights(CONFIG, "decoder")

    assert (len(everything), len(decoder)) == (2 * ENCODER_BLOCK_WEIGHTS + 3 * DECODER_BLOCK_WEIGHTS, 33)
    assert everything[-33:] == decoder
    assert len({weight.name for weight in everything}) == len(everything)


@pytest.mark.parametrize("count", [None, 0])
def test_decoder_layers_default_to_the_encoders(count: int | None) -> None:
    """transformers writes null, or leaves the key out, where both stacks are equally deep."""
    config = {**CONFIG, "num_decoder_layers": count}

    assert len(t5_weights(config, "decoder")) == 2 * DECODER_BLOCK_WEIGHTS


@pytest.mark.slow
def test_names_and_shapes_are_those_of_transformers() -> None:
    """Every weight of the manifest is a parameter of the real module tree, of that shape; no matrix is forgotten."""
    transformers = pytest.importorskip("transformers")
    import torch

    config = transformers.T5Config(**CONFIG, vocab_size=50)
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(config)
    trainable = {
        name.removesuffix(".weight"): tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and "relative_attention_bias" not in name and ".block." in name
    }

    assert {w.name: (w.rows, w.columns) for w in t5_weights(config.to_dict(), "all")} == trainable


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "bert"}, "model_type t5 with a gated feed-forward"),
        ({"feed_forward_proj": "relu"}, "gated feed-forward"),
        ({"is_gated_act": False}, "gated feed-forward"),
        ({"d_model": None}, "d_model is None"),
        ({"d_ff": "80"}, "d_ff is 80, a whole number"),
        ({"d_kv": 16.0}, "d_kv is 16.0"),
        ({"num_heads": True}, "num_heads is True"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_decoder_layers": -1}, "num_decoder_layers is -1"),
        ({"num_layers": 10**12}, f"at most {MAX_WEIGHTS} weights"),
        ({"d_ff": 10**12}, "side 1000000000000, at most"),
        ({"num_heads": 10**5}, "side 1600000"),
        ({"d_model": [[0] * 99]}, r"d_model is \[\["),
    ],
)
def test_not_a_flan_t5(change: dict[str, Any], said: str) -> None:
    """A config of another model, with a missing or odd number, or beyond the limits is refused by what is wrong."""
    with pytest.raises(WireError, match=said):
        t5_weights({**CONFIG, **change}, "all")


def test_digest_sees_names_shapes_and_order() -> None:
    """Any difference that would put a tensor on the wrong weight changes the digest."""
    first, second = Weight(name="a", rows=2, columns=3), Weight(name="b", rows=2, columns=3)
    lists = [
        (first, second),
        (second, first),
        (first,),
        (first, Weight(name="c", rows=2, columns=3)),
        (first, Weight(name="b", rows=3, columns=2)),
        (first, Weight(name="b", rows=23, columns=3)),
    ]

    assert len({manifest_digest(weights) for weights in lists}) == len(lists)
