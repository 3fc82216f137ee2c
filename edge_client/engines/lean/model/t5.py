"""FLAN-T5 in plain torch: every matrix product goes through a Linear that decompresses its weight when it is needed.

Architecture: Raffel et al. 2020 (T5) with v1.1's changes, which FLAN-T5 uses: gated GELU, untied head. No dropout: the
base is frozen. Names are those of transformers' parameters, so checkpoints load without a mapping. Attention scores are
not scaled (T5 folds 1/√d_kv into its queries), and cross-attention has no position bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from braid_common.base.t5_config import T5Config
from edge_client.engines.lean.model.attention import attend
from edge_client.engines.lean.model.fused_ops import gated_gelu, rms_norm
from edge_client.engines.lean.model.lora import Linear
from edge_client.engines.lean.model.recompute import recomputed
from quantize.base import FrozenWeight


@dataclass(slots=True)
class Cache:
    """Keys and values of a text that is being written, per decoder block; each tensor is (batch, heads, tokens, d_kv).

    Attributes:
        written: of self-attention, which grows token by token.
        read: of cross-attention, which stays as it is.
    """

    written: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    read: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """Tokens written so far."""
        return self.written[0][0].shape[2] if self.written else 0


class T5:
    """Encoder and decoder over frozen weights.

    Args:
        config: the base's numbers.
        linears: by module name, all attention and feed-forward matrices of the blocks that are run. They are looked up
            when a block runs, so a mapping may hold one block at a time.
        plain: norm scales and position tables, fp32, by full parameter name.
        embedding: (vocabulary, d_model).
        compute: fp32 or bf16, the dtype of the residual stream and of every product. Norm statistics and the loss are
            fp32 always; fp16 would overflow in T5's feed-forward.
        checkpointing: with gradients, keep each block's input alone and compute the block again in the backward pass
            (Chen et al. 2016, arXiv 1604.06174).
    """

    def __init__(
        self,
        config: T5Config,
        linears: Mapping[str, Linear],
        plain: Mapping[str, Tensor],
        embedding: FrozenWeight,
        compute: torch.dtype,
        *,
        checkpointing: bool = False,
    ) -> None:
        self.config = config
        self.compute = compute
        self._linears = linears
        self._plain = plain
        self._embedding = embedding
        self._checkpointing = checkpointing

    def encode(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states (batch, tokens, d_model) of source `ids` (batch, tokens) int64; `mask` is False on padding, or
        None where there is none."""
        x = self.embed(ids)
        bias = self.encoder_bias(ids.shape[1], mask)
        for i in range(self.config.n_encoder_blocks):
            x = self._run(f"encoder.block.{i}.", partial(self.encoder_block, i, bias=bias), x)
        return self.encoder_end(x)

    def embed(self, ids: Tensor) -> Tensor:
        """The residual stream (batch, tokens, d_model) before the first block."""
        return self._embedding.rows_of(ids.flatten(), self.compute).view(*ids.shape, self.config.d_model)

    def encoder_bias(self, n_tokens: int, mask: Tensor | None) -> Tensor:
        """The bias of every encoder block's attention scores: (1, heads, tokens, tokens), or with a mask (batch, heads,
        tokens, tokens)."""
        bias = self._position_bias("encoder", n_tokens, n_tokens)
        return bias if mask is None else bias + _padding_bias(mask, self.compute)

    def encoder_block(self, i: int, x: Tensor, bias: Tensor) -> Tensor:
        """Block `i`: (batch, tokens, d_model) → the same."""
        block = f"encoder.block.{i}.layer"
        x = self._self_attention(f"{block}.0", x, bias, None, i)
        return self._feed_forward(f"{block}.1", x)

    def encoder_end(self, x: Tensor) -> Tensor:
        """The norm after the last block; the decoder reads its result."""
        return self._norm("encoder.final_layer_norm", x)

    def decode(self, ids: Tensor, encoded: Tensor, mask: Tensor | None, cache: Cache | None = None) -> Tensor:
        """Run the decoder.

        Args:
            ids: (batch, tokens) int64 decoder input, the start token first, padded on the right. Later positions are
                never seen by earlier ones, so targets need no mask.
            encoded: the encoder's output (batch, source tokens, d_model).
            mask: False on the source's padding, None where there is none.
            cache: `ids` are those after the tokens that it holds, and it is extended.

        Returns:
            Hidden states (batch, tokens, d_model), ready for the head.
        """
        x = self.embed(ids)
        n_keys = ids.shape[1] + (cache.n_tokens if cache else 0)
        bias = self._position_bias("decoder", ids.shape[1], n_keys)
        source_bias = None if mask is None else _padding_bias(mask, self.compute)
        for i in range(self.config.n_decoder_blocks):
            block = partial(self._decoder_block, i, bias=bias, source_bias=source_bias, cache=cache)
            x = self._run(f"decoder.block.{i}.", block, x, encoded)
        x = self._norm("decoder.final_layer_norm", x)
        return x * self.config.d_model**-0.5 if self.config.scales_output else x

    def _run(self, prefix: str, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """A block, whose linears' names begin with `prefix`, with what it keeps for backward, or without it."""
        if not (self._checkpointing and torch.is_grad_enabled()):
            return block(*inputs)
        linears = (linear for name, linear in self._linears.items() if name.startswith(prefix))
        return recomputed(block, inputs, [leaf for linear in linears for leaf in linear.leaves])

    def _decoder_block(
        self, i: int, x: Tensor, encoded: Tensor, *, bias: Tensor, source_bias: Tensor | None, cache: Cache | None
    ) -> Tensor:
        block = f"decoder.block.{i}.layer"
        x = self._self_attention(f"{block}.0", x, bias, cache, i)
        x = self._cross_attention(f"{block}.1", x, encoded, source_bias, cache, i)
        return self._feed_forward(f"{block}.2", x)

    def _self_attention(self, layer: str, x: Tensor, bias: Tensor, cache: Cache | None, block: int) -> Tensor:
        name, normed = f"{layer}.SelfAttention", self._norm(f"{layer}.layer_norm", x)
        keys, values = self._keys_values(name, normed)
        if cache is not None:
            if block in cache.written:
                past_keys, past_values = cache.written[block]
                keys, values = torch.cat([past_keys, keys], 2), torch.cat([past_values, values], 2)
            cache.written[block] = keys, values
        return x + self._attend(name, normed, keys, values, bias)

    def _cross_attention(
        self, layer: str, x: Tensor, encoded: Tensor, bias: Tensor | None, cache: Cache | None, block: int
    ) -> Tensor:
        name, normed = f"{layer}.EncDecAttention", self._norm(f"{layer}.layer_norm", x)
        if cache is None:
            keys, values = self._keys_values(name, encoded)
        else:
            if block not in cache.read:
                cache.read[block] = self._keys_values(name, encoded)
            keys, values = cache.read[block]
        return x + self._attend(name, normed, keys, values, bias)

    def _feed_forward(self, layer: str, x: Tensor) -> Tensor:
        name, normed = f"{layer}.DenseReluDense", self._norm(f"{layer}.layer_norm", x)
        gated = gated_gelu(self._linears[f"{name}.wi_0"](normed), self._linears[f"{name}.wi_1"](normed))
        return x + self._linears[f"{name}.wo"](gated)

    def _attend(self, name: str, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        queries = self._heads(self._linears[f"{name}.q"](x))
        mixed = attend(queries, keys, values, bias)
        return self._linears[f"{name}.o"](mixed.transpose(1, 2).flatten(2))

    def _keys_values(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._heads(self._linears[f"{name}.k"](x)), self._heads(self._linears[f"{name}.v"](x))

    def _heads(self, x: Tensor) -> Tensor:
        # (batch, tokens, heads·d_kv) → (batch, heads, tokens, d_kv)
        return x.view(*x.shape[:2], self.config.n_heads, self.config.d_kv).transpose(1, 2)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return rms_norm(x, self._plain[f"{name}.weight"], self.config.epsilon)

    def _position_bias(self, side: str, n_queries: int, n_keys: int) -> Tensor:
        """Relative position bias (1, heads, queries, keys) of the last `n_queries` of `n_keys` positions; −inf on the
        decoder's future.

        It depends on the distance alone, so a row of 2·keys − 1 biases is looked up and laid out once per query.
        """
        table = self._plain[f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        distances = torch.arange(1 - n_keys, n_keys, device=table.device)  # key − query
        both_ways = side == "encoder"
        buckets = position_buckets(distances, both_ways, self.config.n_buckets, self.config.max_distance)
        row = table.to(self.compute)[buckets].t().contiguous()  # (heads, 2·keys − 1)
        if not both_ways:
            row = row.masked_fill_(distances > 0, -torch.inf)
        # Query q (counted from the end) reads the row from distance −(keys − 1 − q) on.
        upside_down = row.as_strided((row.shape[0], n_queries, n_keys), (row.shape[1], 1, 1))
        return upside_down.flip(1)[None]


def position_buckets(distance: Tensor, both_ways: bool, n_buckets: int, max_distance: int) -> Tensor:
    """Buckets of relative positions (T5, section 2.1).

    Half of the buckets hold one distance each, the others grow logarithmically up to `max_distance`, beyond which all
    distances share the last.

    Args:
        distance: key position − query position, int64.
        both_ways: keys may come after the query, and take half of the buckets; else these distances count as 0.
        n_buckets: in all.
        max_distance: in tokens.

    Returns:
        Bucket numbers, int64, of `distance`'s shape.
    """
    offset = torch.zeros_like(distance)
    if both_ways:
        n_buckets //= 2
        offset = (distance > 0).long() * n_buckets
        away = distance.abs()
    else:
        away = (-distance).clamp(min=0)
    n_exact = n_buckets // 2
    # From n_exact on, the bucket grows with log(distance / n_exact), to reach the last one at max_distance.
    growth = torch.log(away.float().clamp(min=1) / n_exact) / math.log(max_distance / n_exact)
    far = (n_exact + (growth * (n_buckets - n_exact)).long()).clamp(max=n_buckets - 1)
    return offset + torch.where(away < n_exact, away, far)


def _padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(batch, 1, 1, tokens): 0 on tokens, −inf on padding."""
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, -torch.inf)[:, None, None, :]
