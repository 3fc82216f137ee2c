"""Peak memory of the training worker, predicted from shapes alone, part by part.

The formulas follow edge_client/engine/t5.py, lora.py and head_loss.py: what their backward passes keep, times the run's
largest batch. Lengths are the run's limits; shorter texts need less. Constants that no formula gives were measured
on the engine and name the measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_client.jobs import Compute, Format
from wire.messages import RunInfo, Weight

IMPORTS_BYTES = 250 << 20
"""Resident memory of a worker that has imported torch and read tokenizer and data, before any model. Measured: 248 to
255 MiB (x86-64, Python 3.11, torch 2.13 CPU)."""

KERNELS_BYTES = {"fp32": 12 << 20, "bf16": 52 << 20}
"""Code and scratch that the first backward pass brings in. bf16 products on x86 are compiled by oneDNN as they come:
40 MiB more than fp32, whatever the model's size. Measured on twelve settings: fp32 -5 to 24, bf16 44 to 66 MiB."""

LOGITS_BYTES = 16 << 20
"""Largest chunk of fp32 logits (head_loss.LOGITS_BYTES; tests hold the two equal, for that module imports torch)."""

BACKWARD_COPIES = 4
"""Feed-forward gradients alive at once: of gate, value and product, and gelu(gate)."""

SLACK_SHARE = 0.11
"""Added to everything else for the allocator and for what seventeen measurements left unexplained (-4 to +5 %): a plan
that is too careful loses strands, one that is not loses the round."""

_VALUE_BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 0.5 + 4 / 64}
_COMPUTE_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Predicted peak of the worker, in bytes.

    Attributes:
        imports_bytes: interpreter, torch and tokenizer.
        kernels_bytes: what torch loads and compiles when it first computes.
        base_bytes: the frozen base in its format.
        context_bytes: factors of the global adapter, frozen, in the compute dtype.
        strands_bytes: basis rows, and of B the values, gradients and Adam moments.
        sketch_bytes: gradient sketches, R × n fp32 of each weight.
        activations_bytes: what the backward pass needs of one micro-batch, kept layer inputs of a sketch included.
        working_bytes: the largest of the short-lived sets: unpacked weight with gradients or logits.
        slack_bytes: allocator overhead.
    """

    imports_bytes: int
    kernels_bytes: int
    base_bytes: int
    context_bytes: int
    strands_bytes: int
    sketch_bytes: int
    activations_bytes: int
    working_bytes: int
    slack_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Name (as above) to bytes, in the order above."""
        return asdict(self)


def predict_peak(
    config: Mapping[str, Any],
    run: RunInfo,
    format: Format,
    compute: Compute,
    micro_batch: int,
    ranks: Sequence[int],
    imports_bytes: int = IMPORTS_BYTES,
) -> Breakdown:
    """Predict the peak of a training round that also sketches; profiling and evaluation stay below it.

    Args: config, the base's config.json; ranks, strands per weight in manifest order.
    """
    sizes = _Sizes(config, run, _COMPUTE_BYTES[compute], micro_batch)
    parts = {
        "imports_bytes": imports_bytes,
        "kernels_bytes": KERNELS_BYTES[compute],
        "base_bytes": sizes.base(format),
        "context_bytes": sizes.context(),
        "strands_bytes": sizes.strands(ranks),
        "sketch_bytes": sizes.sketches(),
        "activations_bytes": sizes.activations() + sizes.projections(ranks),
        "working_bytes": sizes.working(is_stored=format == compute),
    }
    return Breakdown(**parts, slack_bytes=int(SLACK_SHARE * sum(parts.values())))


class _Sizes:
    """The formulas. Letters as in the T5 paper's shapes; S and T are tokens of a micro-batch."""

    def __init__(self, config: Mapping[str, Any], run: RunInfo, compute_bytes: int, micro_batch: int) -> None:
        self._config, self._run, self._c = config, run, compute_bytes
        self._d, self._f = int(config["d_model"]), int(config["d_ff"])
        self._vocabulary, self._heads = int(config["vocab_size"]), int(config["num_heads"])
        self._inner = int(config["d_kv"]) * self._heads
        self._encoder_blocks = int(config["num_layers"])
        self._decoder_blocks = int(config.get("num_decoder_layers") or config["num_layers"])
        self._trains_encoder = run.settings.scope == "all"
        self._micro_batch = micro_batch
        self._source = micro_batch * run.settings.max_source_tokens  # S
        self._target = micro_batch * run.settings.max_target_tokens  # T

    def base(self, format: Format) -> int:
        """Matrices at the format's bits, with fp32 row scales in int8; embeddings are int8 in nf4 as well."""
        d, f, inner = self._d, self._f, self._inner
        attentions = self._encoder_blocks + 2 * self._decoder_blocks
        blocks = self._encoder_blocks + self._decoder_blocks
        values = attentions * 4 * inner * d + blocks * 3 * f * d
        rows = attentions * (3 * inner + d) + blocks * (2 * f + d)
        tied = self._config.get("scale_decoder_outputs", self._config.get("tie_word_embeddings", True))
        tables = (1 if tied else 2) * self._vocabulary
        in_rows = format in ("int8", "nf4")  # each row with its fp32 scale
        embeddings = tables * (d + 4) if in_rows else tables * d * _VALUE_BYTES[format]
        row_scales = 4 * rows if format == "int8" else 0
        return int(values * _VALUE_BYTES[format] + row_scales + embeddings)

    def context(self) -> int:
        """(m + n)·s per weight, s = min(server rank, m, n)."""
        ranks = (min(self._run.server_rank, weight.rows, weight.columns) for weight in self._run.weights)
        sides = (weight.rows + weight.columns for weight in self._run.weights)
        return self._c * sum(rank * side for rank, side in zip(ranks, sides, strict=True))

    def strands(self, ranks: Sequence[int]) -> int:
        """r·n in the compute dtype for the basis, r·m·16 for B with gradient and moments."""
        pairs = zip(self._run.weights, ranks, strict=True)
        return sum(rank * (weight.columns * self._c + weight.rows * 16) for weight, rank in pairs)

    def sketches(self) -> int:
        """R·n fp32 per weight, and the largest Ω while it is applied (R·m fp32 twice: drawn, and in compute dtype)."""
        total = largest = 0
        for weight in self._run.weights:
            rank = min(self._run.max_rank, weight.rows, weight.columns)
            total += 4 * rank * weight.columns
            largest = max(largest, 8 * rank * weight.rows)
        return total + largest

    def activations(self) -> int:
        """What autograd keeps of every block in scope, and the attention biases, which all blocks share."""
        kept = self._decoder_blocks * self._decoder_block()
        if self._trains_encoder:
            kept += self._encoder_blocks * self._encoder_block()
        ends = self._c * self._d * (2 * self._source + 3 * self._target)  # last norms' inputs, encoded, hidden, grad
        return kept + ends + self._biases()

    def projections(self, ranks: Sequence[int]) -> int:
        """A·x, r numbers per token of every trained weight."""
        pairs = zip(self._run.weights, ranks, strict=True)
        return self._c * sum(rank * self._tokens(weight) for weight, rank in pairs)

    def working(self, *, is_stored: bool) -> int:
        """What the worst moment takes beyond all that `activations` counts. It is one of three.

        The loss: an unpacked head and a chunk of logits. The last decoder block's feed-forward on its way back. The
        last encoder block's, when the decoder's activations are gone. `is_stored`: the base is kept in the compute
        dtype, so nothing is unpacked.
        """
        unpacked = 0 if is_stored else self._c
        logits = min(LOGITS_BYTES // 4, self._target * self._vocabulary)
        copies = 4 + 4 + (self._c if self._c < 4 else 0)  # fp32, logsumexp's temporary, and the product if that is bf16
        moments = [unpacked * self._vocabulary * self._d + logits * copies]
        moments.append(unpacked * self._f * self._d + self._feed_forward_backward(self._target))
        encoder = unpacked * self._f * self._d + self._feed_forward_backward(self._source)
        moments.append(encoder - self._decoder_blocks * self._decoder_block() if self._trains_encoder else 0)
        return max(moments)

    def _feed_forward_backward(self, tokens: int) -> int:
        """BACKWARD_COPIES gradients of width f, and the norm's three fp32 tensors of width d."""
        return tokens * (BACKWARD_COPIES * self._c * self._f + 3 * 4 * self._d)

    def _encoder_block(self) -> int:
        """Norm inputs 2d, q, k, v and mixed 4i, gate and value 2f; a sketch keeps both normed inputs 2d and f too.

        In fp32 one log-sum of scores per head and two inverse norms.
        """
        per_token = self._c * (4 * self._d + 4 * self._inner + 3 * self._f) + 4 * (self._heads + 2)
        return self._source * per_token

    def _decoder_block(self) -> int:
        """An encoder block and a third layer: norm input d, q and mixed 2i of the target, k and v 2i of the source."""
        per_target = self._c * (6 * self._d + 6 * self._inner + 3 * self._f) + 4 * (2 * self._heads + 3)
        return self._target * per_target + self._source * self._c * 2 * self._inner

    def _biases(self) -> int:
        """Position bias (heads, S, S) of the encoder plus its sum with the padding, one per example; the decoder's."""
        source, target = self._run.settings.max_source_tokens, self._run.settings.max_target_tokens
        squares = (self._micro_batch + 1) * source**2 + target**2
        return self._c * self._heads * squares

    def _tokens(self, weight: Weight) -> int:
        reads_source = weight.name.startswith("encoder.") or weight.name.endswith(
            (".EncDecAttention.k", ".EncDecAttention.v")
        )
        return self._source if reads_source else self._target
