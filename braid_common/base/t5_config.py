"""The numbers of a gated T5's config.json, read and checked once: programs hand on a T5Config, never the JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

MAX_SIZE = 1 << 20
"""Largest plausible size in config.json; FLAN-T5-xxl's vocabulary, its largest number, has 32,128."""

MAX_LAYERS = 1024
"""Most blocks of one side. FLAN-T5-xxl has 24; without a bound, a damaged number would make programs list tensors for
hours."""

MIN_BUCKETS = 4
"""Fewest rows of a position table: the encoder's are halved by direction, and again into near and far."""

GATED = ("gated-gelu", "gated-gelu_new")
"""Values of feed_forward_proj that mean T5 v1.1's gated GELU."""

OTHER_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "byt5": "ByT5",
        "longt5": "LongT5",
        "mt5": "mT5",
        "switch_transformers": "Switch Transformers",
        "t5gemma": "T5Gemma",
        "t5gemma2": "T5Gemma 2",
        "umt5": "UMT5",
    }
)
"""Models that are taken for a T5, by their model_type: other layers, or a tokenizer or vocabulary of their own."""

_WITHOUT_DECODER = frozenset(
    ("T5EncoderModel", "T5ForQuestionAnswering", "T5ForSequenceClassification", "T5ForTokenClassification")
)
"""Values of architectures whose checkpoints write no text."""

_BYTES_TOKENIZER = "ByT5Tokenizer"
"""The tokenizer_class by which ByT5 is known: its model_type is T5's."""

_NEEDED = "FLAN-T5, T5 v1.1 or LM-adapted T5"
_FIRST_T5 = "T5 v1.0"


@dataclass(frozen=True, slots=True)
class T5Config:
    """Sizes and token ids of a T5 v1.1 or FLAN-T5.

    Attributes:
        vocab_size: rows of the embedding and of the output layer.
        d_model: width of the residual stream.
        d_kv: width of one attention head.
        d_ff: width of the feed-forward layer.
        n_heads: attention heads of every layer.
        n_encoder_blocks, n_decoder_blocks: depth of each side.
        n_buckets, max_distance: of the relative position bias.
        epsilon: of the root-mean-square norms.
        scales_output: whether the decoder's output is multiplied by d_model^-0.5 before the output layer.
        may_tie: whether the output layer may be missing because it is the embedding; the files decide.
        pad_id, eos_id, start_id: token ids of padding, of the end of a text, and of the decoder's first input.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    n_heads: int
    n_encoder_blocks: int
    n_decoder_blocks: int
    n_buckets: int = 32
    max_distance: int = 128
    epsilon: float = 1e-6
    scales_output: bool = False
    may_tie: bool = False
    pad_id: int = 0
    eos_id: int = 1
    start_id: int = 0

    @property
    def inner(self) -> int:
        """Width of all heads together: rows of q, k and v."""
        return self.d_kv * self.n_heads

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> T5Config:
        """Read the object of a config.json. Raises ValueError that names the key and what it needs."""
        _require_gated_t5(config)
        vocab_size = _size(config, "vocab_size")
        n_encoder_blocks = _size(config, "num_layers", MAX_LAYERS)
        # transformers writes null, and some files 0, where both sides are equally deep.
        has_depth = config.get("num_decoder_layers") not in (None, 0)
        n_buckets = _number(config, "relative_attention_num_buckets", 32, MIN_BUCKETS, MAX_SIZE)
        may_tie = _flag(config, "tie_word_embeddings", True)
        pad_id = _token_id(config, "pad_token_id", 0, vocab_size)
        return cls(
            vocab_size=vocab_size,
            d_model=_size(config, "d_model"),
            d_kv=_size(config, "d_kv"),
            d_ff=_size(config, "d_ff"),
            n_heads=_size(config, "num_heads"),
            n_encoder_blocks=n_encoder_blocks,
            n_decoder_blocks=_size(config, "num_decoder_layers", MAX_LAYERS) if has_depth else n_encoder_blocks,
            n_buckets=n_buckets,
            # A distance is far from the last bucket of its own on: the farthest must lie behind that.
            max_distance=_number(config, "relative_attention_max_distance", 128, n_buckets + 1, MAX_SIZE),
            epsilon=_epsilon(config),
            # transformers 5 writes tie_word_embeddings true for every T5 and keeps the truth in the other key.
            scales_output=_flag(config, "scale_decoder_outputs", may_tie),
            may_tie=may_tie,
            pad_id=pad_id,
            eos_id=_token_id(config, "eos_token_id", 1, vocab_size),
            start_id=_token_id(config, "decoder_start_token_id", pad_id, vocab_size),  # T5 starts with padding
        )

    def to_json(self) -> dict[str, Any]:
        """The object of a config.json that `parse` reads as this, and transformers as a T5."""
        return {
            "model_type": "t5",
            "feed_forward_proj": "gated-gelu",
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "d_kv": self.d_kv,
            "d_ff": self.d_ff,
            "num_heads": self.n_heads,
            "num_layers": self.n_encoder_blocks,
            "num_decoder_layers": self.n_decoder_blocks,
            "relative_attention_num_buckets": self.n_buckets,
            "relative_attention_max_distance": self.max_distance,
            "layer_norm_epsilon": self.epsilon,
            "tie_word_embeddings": self.may_tie,
            "scale_decoder_outputs": self.scales_output,
            "pad_token_id": self.pad_id,
            "eos_token_id": self.eos_id,
            "decoder_start_token_id": self.start_id,
        }


def _require_gated_t5(config: Mapping[str, Any]) -> None:
    """Raise ValueError that names the model where the config is not one of a gated T5 that writes text."""
    model_type = config.get("model_type")
    if model_type != "t5":
        name = OTHER_MODELS.get(model_type) if isinstance(model_type, str) else None
        other = f"; {name} is not supported" if name else ""
        raise ValueError(f"model_type is {_shown(model_type)}, t5 is needed ({_NEEDED}){other}")
    if config.get("tokenizer_class") == _BYTES_TOKENIZER:
        raise ValueError(f"tokenizer_class is {_BYTES_TOKENIZER}: ByT5 reads bytes and is not supported ({_NEEDED} is)")
    architectures = config.get("architectures")
    named = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    if found := sorted(_WITHOUT_DECODER.intersection(named)):
        raise ValueError(f"architectures is {found[0]}, which writes no text; T5ForConditionalGeneration is needed")
    if config.get("is_encoder_decoder") is False:
        raise ValueError("is_encoder_decoder is false: an encoder alone writes no text; take the whole T5")
    _require_gate(config)


def _require_gate(config: Mapping[str, Any]) -> None:
    gate = config.get("feed_forward_proj")
    if gate not in GATED:
        known = f": this is {_FIRST_T5}" if gate in (None, "relu") else ""
        raise ValueError(f"feed_forward_proj is {_shown(gate)}, gated-gelu is needed{known}; take {_NEEDED}")
    if config.get("is_gated_act") is False:
        raise ValueError(f"is_gated_act is False, a gated feed-forward is needed; take {_NEEDED}")


def _size(config: Mapping[str, Any], key: str, most: int = MAX_SIZE) -> int:
    return _number(config, key, None, 1, most)


def _number(config: Mapping[str, Any], key: str, default: int | None, least: int, most: int) -> int:
    """A whole number, which may be written as 64.0; null is as if the key were missing."""
    value = config.get(key)
    number = _whole(default if value is None else value)
    if number is None or not least <= number <= most:
        raise ValueError(f"{key} is {_shown(value)}, a whole number from {least} to {most} is needed")
    return number


def _token_id(config: Mapping[str, Any], key: str, default: int, vocab_size: int) -> int:
    """The id of a token; a list of one is that one. Of several ids nobody knows which one ends a text."""
    value = config.get(key)
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"{key} is {_shown(value)}, one id is needed: write the one that the model was trained on")
        value = value[0]
    return _number({key: value}, key, default, 0, vocab_size - 1)


def _flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} is {_shown(value)}, true or false is needed")
    return default if value is None else value


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get("layer_norm_epsilon")
    if value is None:
        return 1e-6
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:  # NaN is refused as well
        raise ValueError(f"layer_norm_epsilon is {_shown(value)}, a number from 0 to 1 is needed")
    return float(value)


def _whole(value: object) -> int | None:
    """The whole number that a value of JSON stands for, without a doubt; None where it stands for none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _shown(value: object) -> str:
    """The value in few characters, whatever it is."""
    return repr(value)[:40]


def _flan_t5(d_model: int, d_ff: int, n_blocks: int, n_heads: int) -> T5Config:
    return T5Config(
        vocab_size=32128,
        d_model=d_model,
        d_kv=64,
        d_ff=d_ff,
        n_heads=n_heads,
        n_encoder_blocks=n_blocks,
        n_decoder_blocks=n_blocks,
    )


FLAN_T5: Mapping[str, T5Config] = MappingProxyType(
    {
        "flan-t5-small": _flan_t5(512, 1024, 8, 6),
        "flan-t5-base": _flan_t5(768, 2048, 12, 12),
        "flan-t5-large": _flan_t5(1024, 2816, 24, 16),
        "flan-t5-xl": _flan_t5(2048, 5120, 24, 32),
        "flan-t5-xxl": _flan_t5(4096, 10240, 24, 64),
    }
)
"""Sizes as published on the Hugging Face hub."""
