"""Base configs and runs whose numbers matter only where a test says so. Loads neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from braid_common.base.t5_config import T5Config
from wire.manifest import manifest_digest, t5_weights
from wire.run import Base, RunInfo, TrainSettings

TINY_T5: Mapping[str, Any] = {
    "model_type": "t5",
    "feed_forward_proj": "gated-gelu",
    "vocab_size": 120,
    "d_model": 64,
    "num_heads": 3,
    "d_kv": 16,
    "d_ff": 80,
    "num_layers": 1,
    "num_decoder_layers": 2,
}
"""For a server, which reads shapes alone. Nothing square: d_model 64, attention 48, feed-forward 80."""

SMALL_T5: Mapping[str, Any] = {
    "model_type": "t5",
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "vocab_size": 8000,
    "d_model": 256,
    "d_kv": 32,
    "num_heads": 6,
    "d_ff": 640,
    "num_layers": 4,
    "num_decoder_layers": 4,
}
"""For plans: large enough that weights, activations and logits all count. Nothing square: 256, 192, 640."""

UNEVEN_T5: Mapping[str, Any] = {
    "model_type": "t5",
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "vocab_size": 96,
    "d_model": 32,
    "d_kv": 8,
    "num_heads": 3,
    "d_ff": 40,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
}
"""For a base on disk with random weights, small enough to count operations with torch. Nothing square: 32, 24, 40."""


def run_of(config: Mapping[str, Any], settings: Mapping[str, Any] | None = None, **fields: Any) -> RunInfo:
    """A run on a base of this config, over all of its weights unless `settings` name another scope.

    `settings` replace those of TrainSettings, `fields` those of RunInfo.
    """
    chosen: dict[str, Any] = {
        "scope": "all",
        "learning_rate": 1e-3,
        "batch": 8,
        "micro_batch": 8,
        "local_steps": 1,
        "max_source_tokens": 256,
        "max_target_tokens": 48,
        "sketch_batches": 1,
        **(settings or {}),
    }
    weights = t5_weights(T5Config.parse(config), chosen["scope"])
    agreed: dict[str, Any] = {
        "protocol": 1,
        "run_id": "r",
        "state": "training",
        "base": Base(model="builtin", digest="0" * 64),
        "weights": weights,
        "manifest": manifest_digest(weights),
        "settings": TrainSettings(**chosen),
        "max_rank": 32,
        "server_rank": 16,
        "rounds": 3,
        "round": 1,
        "version": 1,
        **fields,
    }
    return RunInfo(**agreed)
