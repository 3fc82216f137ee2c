"""The manifest names a T5's weights as transformers does, and refuses bases beyond the protocol's limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from braid_common.base.t5_config import T5Config
from wire.errors import WireError
from wire.limits import MAX_SIDE, MAX_WEIGHTS
from wire.manifest import DECODER_BLOCK_WEIGHTS, ENCODER_BLOCK_WEIGHTS, manifest_digest, t5_weights
from wire.run import Weight

BASE = T5Config(vocab_size=50, d_model=64, d_kv=16, d_ff=80, n_heads=3, n_encoder_blocks=2, n_decoder_blocks=3)


def test_counts_per_block() -> None:
    """Seven weights in an encoder block, eleven in a decoder block; the decoder's come last in both scopes."""
    everything, decoder = t5_weights(BASE, "all"), t5_weights(BASE, "decoder")

    assert (len(everything), len(decoder)) == (2 * ENCODER_BLOCK_WEIGHTS + 3 * DECODER_BLOCK_WEIGHTS, 33)
    assert everything[-33:] == decoder
    assert len({weight.name for weight in everything}) == len(everything)


@pytest.mark.slow
def test_names_and_shapes_are_those_of_transformers() -> None:
    """Every weight of the manifest is a parameter of the real module tree, of that shape; no matrix is forgotten."""
    transformers = pytest.importorskip("transformers")
    import torch

    config = transformers.T5Config(**BASE.to_json())
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(config)
    trainable = {
        name.removesuffix(".weight"): tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and "relative_attention_bias" not in name and ".block." in name
    }

    assert {w.name: (w.rows, w.columns) for w in t5_weights(T5Config.parse(config.to_dict()), "all")} == trainable


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_encoder_blocks": 200, "n_decoder_blocks": 200}, f"200 \\+ 200 layers, at most {MAX_WEIGHTS} weights"),
        ({"d_ff": MAX_SIDE + 1}, "side 131073, at most 131072"),
        ({"n_heads": 10**5}, "side 1600000"),
    ],
)
def test_beyond_the_limits(change: dict[str, int], said: str) -> None:
    """A base whose weights no message could list or carry is refused by what is too large."""
    with pytest.raises(WireError, match=said):
        t5_weights(replace(BASE, **change), "all")


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


def test_which_tokens_a_weight_multiplies() -> None:
    """The encoder's weights and cross-attention's keys and values read the source, all others what was written."""
    everything = t5_weights(BASE, "all")

    assert [weight for weight in everything if weight.is_encoder] == list(everything[: 2 * ENCODER_BLOCK_WEIGHTS])
    cross = {weight.name for weight in everything if weight.reads_source and not weight.is_encoder}
    assert cross == {f"decoder.block.{i}.layer.1.EncDecAttention.{part}" for i in range(3) for part in "kv"}
