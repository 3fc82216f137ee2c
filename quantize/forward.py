"""The loss of a base on a few texts: T5's forward pass, short and slow, with one matrix in memory at a time.

It exists to say what a format costs in quality. Training has its own (edge_client/engines/lean/model/t5.py).
Architecture: Raffel et al. 2020 (T5) with v1.1's gated GELU; attention scores are not scaled, and cross-attention has
no position bias. All examples' tokens lie in one matrix, (tokens, d_model) fp32, so that nothing is padded; attention
runs example by example."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantize.errors import BaseFormatError
from quantize.weight import FrozenWeight, row_chunks

MIN_BUCKETS = 4
"""The encoder's are halved by direction, and again into near and far."""

Ids = tuple[int, ...]
Bias = Callable[[int, int], Tensor]
"""What is added to the scores (heads, queries, keys) of so many queries and keys."""


def check_runs(config: Mapping[str, Any]) -> None:
    """Raise BaseFormatError for a config whose forward pass is not the one below."""
    feed_forward = config.get("feed_forward_proj")
    if feed_forward not in ("gated-gelu", "gated-gelu_new"):
        raise BaseFormatError(f"only a gated-gelu feed-forward is computed, this base has {feed_forward!r}")
    buckets = config.get("relative_attention_num_buckets", 32)
    farthest = config.get("relative_attention_max_distance", 128)
    if buckets < MIN_BUCKETS or not isinstance(farthest, int) or farthest <= buckets:
        raise BaseFormatError(f"config.json has {buckets} position buckets up to a distance of {farthest!r}")
    for key in ("decoder_start_token_id", "eos_token_id"):
        if not isinstance(token := config.get(key, 0), int) or not 0 <= token < config["vocab_size"]:
            raise BaseFormatError(f"config.json's {key} is {token!r}, a token's number is needed")
    if not isinstance(epsilon := config.get("layer_norm_epsilon", 1e-6), float) or not 0 <= epsilon < 1:
        raise BaseFormatError(f"config.json's layer_norm_epsilon is {epsilon!r}, a small number is needed")


@dataclass(frozen=True)
class Texts:
    """Tokenised examples: sources and targets of the same number, each ended by eos."""

    sources: Sequence[Ids]
    targets: Sequence[Ids]

    @property
    def n_target_tokens(self) -> int:
        """Tokens whose loss is counted."""
        return sum(map(len, self.targets))


@dataclass(frozen=True)
class Forward:
    """T5 over weights that are fetched when they are needed and dropped after.

    Attributes: config, the parsed config.json; weight, a matrix by module name; plain, a norm scale or position table
    (fp32) by full parameter name.
    """

    config: Mapping[str, Any]
    weight: Callable[[str], FrozenWeight]
    plain: Callable[[str], Tensor]

    @torch.no_grad()
    def loss(self, texts: Texts) -> float:
        """Negative log-likelihood per target token, in nats, for a config that `check_runs` lets pass."""
        start = self.config.get("decoder_start_token_id", 0)
        inputs = [(start, *ids[:-1]) for ids in texts.targets]
        encoded = self._encode(texts.sources)
        hidden = self._decode(inputs, encoded, [len(ids) for ids in texts.sources])
        return self._head_loss(hidden, torch.tensor([token for ids in texts.targets for token in ids]))

    def _encode(self, sources: Sequence[Ids]) -> Tensor:
        x, lengths, bias = self._embed(sources), [len(ids) for ids in sources], self._position_bias("encoder")
        for i in range(self.config["num_layers"]):
            block = f"encoder.block.{i}.layer"
            x = self._self_attention(f"{block}.0", x, lengths, bias)
            x = self._feed_forward(f"{block}.1", x)
        return self._norm("encoder.final_layer_norm", x)

    def _decode(self, inputs: Sequence[Ids], encoded: Tensor, source_lengths: Sequence[int]) -> Tensor:
        x, lengths, bias = self._embed(inputs), [len(ids) for ids in inputs], self._position_bias("decoder")
        for i in range(self.config.get("num_decoder_layers") or self.config["num_layers"]):
            block = f"decoder.block.{i}.layer"
            x = self._self_attention(f"{block}.0", x, lengths, bias)
            normed = self._norm(f"{block}.1.layer_norm", x)
            x = x + self._attend(f"{block}.1.EncDecAttention", normed, encoded, lengths, source_lengths, _no_bias)
            x = self._feed_forward(f"{block}.2", x)
        x = self._norm("decoder.final_layer_norm", x)
        # transformers 5 writes tie_word_embeddings true for every T5 and keeps the truth in the other key.
        scales = self.config.get("scale_decoder_outputs", self.config.get("tie_word_embeddings", True))
        return x * self.config["d_model"] ** -0.5 if scales else x

    def _embed(self, texts: Sequence[Ids]) -> Tensor:
        return self.weight("shared").rows_of(torch.tensor([token for ids in texts for token in ids]), torch.float32)

    def _self_attention(self, layer: str, x: Tensor, lengths: Sequence[int], bias: Bias) -> Tensor:
        normed = self._norm(f"{layer}.layer_norm", x)
        return x + self._attend(f"{layer}.SelfAttention", normed, normed, lengths, lengths, bias)

    def _attend(
        self, name: str, x: Tensor, read: Tensor, lengths: Sequence[int], read_lengths: Sequence[int], bias: Bias
    ) -> Tensor:
        """Each example's tokens of `x` attend to the same example's tokens of `read`."""
        queries, keys, values = (
            self._linear(f"{name}.{part}", tokens).view(len(tokens), self.config["num_heads"], -1).transpose(0, 1)
            for part, tokens in (("q", x), ("k", read), ("v", read))
        )  # (heads, tokens, d_kv)
        mixed = []
        split = (torch.split(queries, [*lengths], 1), *(torch.split(of, [*read_lengths], 1) for of in (keys, values)))
        for q, k, v in zip(*split, strict=True):
            scores = q @ k.transpose(1, 2) + bias(q.shape[1], k.shape[1])
            mixed.append(scores.softmax(-1) @ v)
        return self._linear(f"{name}.o", torch.cat(mixed, 1).transpose(0, 1).flatten(1))

    def _feed_forward(self, layer: str, x: Tensor) -> Tensor:
        name, normed = f"{layer}.DenseReluDense", self._norm(f"{layer}.layer_norm", x)
        gate = torch.nn.functional.gelu(self._linear(f"{name}.wi_0", normed), approximate="tanh")
        return x + self._linear(f"{name}.wo", gate * self._linear(f"{name}.wi_1", normed))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weight(name).dense(torch.float32).T

    def _norm(self, name: str, x: Tensor) -> Tensor:
        mean_square = x.square().mean(-1, keepdim=True)
        return x * torch.rsqrt(mean_square + self.config.get("layer_norm_epsilon", 1e-6)) * self.plain(f"{name}.weight")

    def _head_loss(self, hidden: Tensor, labels: Tensor) -> float:
        """Mean over tokens; logits of a few rows of the vocabulary at a time."""
        head = self.weight("lm_head")
        logits = [hidden @ head.dense_rows(rows, torch.float32).T for rows in row_chunks(*head.shape)]
        return float(torch.nn.functional.cross_entropy(torch.cat(logits, 1), labels))

    def _position_bias(self, side: str) -> Bias:
        """Relative position bias of a side; −inf on the decoder's future."""
        table = self.plain(f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
        max_distance = self.config.get("relative_attention_max_distance", 128)

        def bias(n_queries: int, n_keys: int) -> Tensor:
            distance = torch.arange(n_keys)[None, :] - torch.arange(n_queries)[:, None]
            both_ways = side == "encoder"
            found = table[position_buckets(distance, both_ways, len(table), max_distance)].permute(2, 0, 1)
            return found if both_ways else found.masked_fill(distance > 0, -math.inf)

        return bias


def position_buckets(distance: Tensor, both_ways: bool, n_buckets: int, max_distance: int) -> Tensor:
    """Row of the position table for each key position − query position (T5, section 2.1): half of the rows for one
    distance each, the others for ever wider ranges up to `max_distance`."""
    away, offset = (-distance).clamp(min=0), torch.zeros_like(distance)
    if both_ways:
        n_buckets //= 2
        away, offset = distance.abs(), (distance > 0).long() * n_buckets
    n_exact = n_buckets // 2
    growth = torch.log(away.clamp(min=1) / n_exact) / math.log(max_distance / n_exact)
    far = (n_exact + (growth * (n_buckets - n_exact)).long()).clamp(max=n_buckets - 1)
    return offset + torch.where(away < n_exact, away, far)


def _no_bias(n_queries: int, n_keys: int) -> Tensor:
    return torch.zeros(())
