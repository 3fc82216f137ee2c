"""A config.json is read once: what is in it comes out, and what is odd about it is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid_common.base.t5_config import FLAN_T5, MAX_LAYERS, MAX_SIZE, T5Config

CONFIG: dict[str, Any] = {
    "model_type": "t5",
    "feed_forward_proj": "gated-gelu",
    "vocab_size": 120,
    "d_model": 64,
    "d_kv": 16,
    "num_heads": 3,
    "d_ff": 80,
    "num_layers": 2,
    "num_decoder_layers": 3,
}

SIZES = st.integers(1, MAX_SIZE)
CONFIGS = st.builds(
    T5Config,
    vocab_size=st.integers(3, MAX_SIZE),
    d_model=SIZES,
    d_kv=SIZES,
    d_ff=SIZES,
    n_heads=SIZES,
    n_encoder_blocks=st.integers(1, MAX_LAYERS),
    n_decoder_blocks=st.integers(1, MAX_LAYERS),
    n_buckets=st.integers(4, 1000),
    max_distance=st.integers(1001, MAX_SIZE),
    epsilon=st.floats(0, 1, exclude_max=True),
    scales_output=st.booleans(),
    may_tie=st.booleans(),
    pad_id=st.integers(0, 2),
    eos_id=st.integers(0, 2),
    start_id=st.integers(0, 2),
)


def test_numbers_and_defaults() -> None:
    """Keys of the file by the names used here; what T5's own files may leave out has transformers' defaults."""
    expected = T5Config(vocab_size=120, d_model=64, d_kv=16, d_ff=80, n_heads=3, n_encoder_blocks=2, n_decoder_blocks=3)

    assert T5Config.parse({**CONFIG, "tie_word_embeddings": False}) == expected
    assert T5Config.parse(CONFIG) == replace(expected, may_tie=True, scales_output=True)
    assert expected.inner == 48


@given(CONFIGS)
def test_what_is_written_is_read(config: T5Config) -> None:
    """`to_json` and `parse` are each other's opposite."""
    assert T5Config.parse(config.to_json()) == config


SMALL = FLAN_T5["flan-t5-small"]
COMMON: dict[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_layers": 8,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "use_cache": True,
    "vocab_size": 32128,
}
"""The keys that the small T5s of the hub have in common."""


@pytest.mark.parametrize(
    "own",
    [
        {"n_positions": 512, "task_specific_params": {}, "torch_dtype": "float32", "transformers_version": "4.23.1"},
        {},
        {"relative_attention_max_distance": 128, "dense_act_fn": "gelu_new", "is_gated_act": True},
    ],
    ids=["flan", "v1.1 and LM-adapted", "saved by transformers 5"],
)
def test_gated_t5s_as_they_are_published(own: dict[str, Any]) -> None:
    """FLAN-T5, T5 v1.1 and LM-adapted T5 have the same layers, and keys that only their files have do no harm."""
    gated = {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 8, "num_heads": 6, "d_ff": 1024}

    assert T5Config.parse({**COMMON, **gated, **own, "tie_word_embeddings": False}) == SMALL


def test_the_first_t5_as_it_is_published() -> None:
    """t5-small has no key for its feed-forward layer: it is from before there was a choice."""
    with pytest.raises(ValueError, match=r"feed_forward_proj is None, gated-gelu is needed: this is T5 v1\.0"):
        T5Config.parse({**COMMON, "d_ff": 2048, "num_heads": 8, "n_positions": 512})


@pytest.mark.slow
@pytest.mark.parametrize("name", FLAN_T5)
def test_transformers_reads_the_same(name: str) -> None:
    """Its T5Config made of what we write has our numbers, and writes a file that gives the same again."""
    transformers = pytest.importorskip("transformers")
    config = FLAN_T5[name]

    theirs = transformers.T5Config(**config.to_json())

    assert (theirs.d_model, theirs.d_kv, theirs.d_ff) == (config.d_model, config.d_kv, config.d_ff)
    assert (theirs.num_layers, theirs.num_decoder_layers) == (config.n_encoder_blocks, config.n_decoder_blocks)
    assert theirs.is_gated_act and theirs.dense_act_fn == "gelu_new"
    again = T5Config.parse(theirs.to_dict())
    assert replace(again, may_tie=config.may_tie) == config  # transformers 5 says of every T5 that it is tied


@pytest.mark.parametrize("count", [None, 0])
def test_decoder_layers_default_to_the_encoders(count: int | None) -> None:
    """transformers writes null, or leaves the key out, where both stacks are equally deep."""
    assert T5Config.parse({**CONFIG, "num_decoder_layers": count}).n_decoder_blocks == 2


@pytest.mark.parametrize(
    ("tie", "scales", "expected"),
    [
        (True, True, (True, True)),
        (True, False, (True, False)),
        (False, None, (False, False)),
        (None, None, (True, True)),
    ],
)
def test_a_tied_output_layer(tie: bool | None, scales: bool | None, expected: tuple[bool, bool]) -> None:
    """`scale_decoder_outputs`, which transformers 5 writes, has the last word on the scale, not on the tie."""
    keys = {"tie_word_embeddings": tie, "scale_decoder_outputs": scales}

    config = T5Config.parse({**CONFIG, **{key: value for key, value in keys.items() if value is not None}})

    assert (config.may_tie, config.scales_output) == expected


def test_numbers_of_odd_types_are_used_where_they_are_plain() -> None:
    """16.0 is 16, null is a key that is not there, a list of one id is that id; T5 starts to write with padding."""
    expected = T5Config.parse(CONFIG)
    absent = dict.fromkeys(
        (
            *("relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon"),
            *("pad_token_id", "eos_token_id", "decoder_start_token_id"),
            *("tie_word_embeddings", "scale_decoder_outputs", "architectures", "is_encoder_decoder"),
        )
    )

    assert T5Config.parse({**CONFIG, **absent}) == expected
    assert T5Config.parse({**CONFIG, "d_kv": 16.0, "num_layers": 2.0, "eos_token_id": [1]}) == expected
    assert T5Config.parse({**CONFIG, "layer_norm_epsilon": 0}).epsilon == 0.0
    assert T5Config.parse({**CONFIG, "pad_token_id": 5}).start_id == 5


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"model_type": "mt5"}, "mT5 is not supported"),
        ({"model_type": "umt5"}, "UMT5 is not supported"),
        ({"model_type": "longt5"}, "LongT5 is not supported"),
        ({"model_type": "t5gemma"}, "T5Gemma is not supported"),
        ({"model_type": "switch_transformers"}, "Switch Transformers is not supported"),
        ({"tokenizer_class": "ByT5Tokenizer"}, "ByT5 reads bytes and is not supported"),
        ({"feed_forward_proj": "relu"}, "this is T5 v1.0"),
        ({"architectures": ["T5EncoderModel"]}, "T5EncoderModel, which writes no text"),
        ({"is_encoder_decoder": False}, "an encoder alone"),
    ],
)
def test_what_is_out_is_out_by_name(change: dict[str, Any], name: str) -> None:
    """Neighbours of the T5s that load, each called what it is."""
    with pytest.raises(ValueError, match=name) as caught:
        T5Config.parse({**CONFIG, **change})

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": ["t5"]}, r"model_type is \['t5'\]"),
        ({"feed_forward_proj": ["gated-gelu"]}, "feed_forward_proj is"),
        ({"model_type": "bert"}, "model_type is 'bert', t5 is needed"),
        ({"model_type": None}, "model_type is None"),
        ({"feed_forward_proj": "relu"}, "feed_forward_proj is 'relu', gated-gelu is needed"),
        ({"feed_forward_proj": "gated-silu"}, "gated-gelu is needed"),
        ({"feed_forward_proj": None}, "gated-gelu is needed"),
        ({"is_gated_act": False}, "gated feed-forward"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"d_model": None}, "d_model is None"),
        ({"d_ff": "80"}, "d_ff is '80', a whole number"),
        ({"d_kv": 16.5}, "d_kv is 16.5"),
        ({"d_kv": float("inf")}, "d_kv is inf"),
        ({"d_kv": 10**300}, "d_kv is 1000"),
        ({"num_heads": True}, "num_heads is True"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_decoder_layers": -1}, "num_decoder_layers is -1"),
        ({"num_layers": 10**12}, f"num_layers is 1000000000000, a whole number from 1 to {MAX_LAYERS}"),
        ({"d_ff": 10**12}, f"d_ff is 1000000000000, a whole number from 1 to {MAX_SIZE}"),
        ({"d_model": [[0] * 99]}, r"d_model is \[\["),
        ({"relative_attention_num_buckets": 2}, "relative_attention_num_buckets is 2"),
        ({"relative_attention_max_distance": "far"}, "relative_attention_max_distance is 'far'"),
        ({"relative_attention_max_distance": 1}, "relative_attention_max_distance is 1"),
        ({"relative_attention_max_distance": 32}, "a whole number from 33"),
        ({"decoder_start_token_id": "0"}, "decoder_start_token_id is '0'"),
        ({"eos_token_id": [1, 106]}, r"eos_token_id is \[1, 106\], one id is needed"),
        ({"eos_token_id": []}, r"eos_token_id is \[\], one id is needed"),
        ({"eos_token_id": [[1]]}, r"eos_token_id is \[1\], a whole number"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false', true or false is needed"),
        ({"scale_decoder_outputs": 0}, "scale_decoder_outputs is 0, true or false is needed"),
        ({"layer_norm_epsilon": True}, "layer_norm_epsilon is True"),
        ({"eos_token_id": 120}, "eos_token_id is 120, a whole number from 0 to 119"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
        ({"layer_norm_epsilon": "1e-6"}, "layer_norm_epsilon is '1e-6'"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan"),
    ],
)
def test_not_a_flan_t5(change: dict[str, Any], said: str) -> None:
    """A config of another model, or with a missing or odd number, is refused by what is wrong, in few characters."""
    with pytest.raises(ValueError, match=said) as caught:
        T5Config.parse({**CONFIG, **change})

    assert len(str(caught.value)) < 200
