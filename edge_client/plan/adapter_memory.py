"""Bytes of an adapter on a board while it is trained, read and sent, from shapes alone.

A weight is m × n; r is the rank it is trained at, s that of its frozen rest, R its basis'; c bytes of the compute
dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from msgspec import UnsetType

from edge_client.jobs.sizes import ADALORA_RANK, RANK_STEP, ranks_of_own
from wire.checks import basis_rank
from wire.dtypes import sketch_dtype
from wire.run import KeepImportance, RunInfo, Weight

TRAINED_VALUE_BYTES = 16
"""A trained value in fp32, its gradient and Adam's two moments."""

RECEIVED_VALUE_BYTES = 4
"""Of a trained value as it was received, which a round that learns from rewards keeps to stay near it."""

KEPT_VALUE_BYTES: Mapping[KeepImportance, int] = {"fisher": 8, "scores": 4}
"""A trained value as it was received, fp32, and how much it matters where each has its own."""

JOINED_VALUE_BYTES = 4
"""A value of strands that are joined with local ones for one product, fp32."""

MESSAGE_COPIES = 3
"""Of the packed tensors while the round's message is encoded: the tensors, msgpack's buffer and the message. Measured:
3.02 to 3.04 times 13 to 41 MiB."""

WHOLE_COPIES = 4
"""Copies of an adapter of the size that is sent, while one that came as a patch is made whole
(engines/adapter_patch.py): it, and what is held and the patch, or msgpack's buffer and the message. Measured: 3.2, 3.4
and 4.1 times 29 MiB, with patches of 0.15, 0.5 and 0.96 of that."""

_UPLOAD_BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0 + 4 / 64, "int4": 0.5 + 4 / 64}


def begins_at_adapter(run: RunInfo) -> bool:
    """Whether boards train the global adapter itself, which then comes as strands, and not something beside it: so it
    is where A is trained, unless each board draws its own."""
    return run.settings.trains_a and not run.settings.own_basis


def padded(rank: int) -> int:
    """The most rows that strands of this rank are computed with."""
    return rank + RANK_STEP - 1


class AdapterSizes:
    """The formulas for one run and compute dtype (`compute_bytes` per value).

    `trains_encoder`: otherwise nothing of the encoder is sketched, or has local strands.

    Attributes:
        local_ranks: local strands of each weight that are trained in the steps of the global ones.
    """

    def __init__(self, run: RunInfo, compute_bytes: int, *, trains_encoder: bool) -> None:
        self._run, self._c, self._trains_encoder = run, compute_bytes, trains_encoder
        self._trains_a, self._begins = run.settings.trains_a, begins_at_adapter(run)
        self.local_ranks = ranks_of_own(run, "beside", trains_encoder=trains_encoder)
        self._joined = {weight.name for weight, local in zip(run.weights, self.local_ranks, strict=True) if local}
        keep, reward = run.settings.keep, run.settings.reward
        self._value_bytes = TRAINED_VALUE_BYTES
        self._value_bytes += 0 if isinstance(keep, UnsetType) else KEPT_VALUE_BYTES[keep.importance]
        self._value_bytes += RECEIVED_VALUE_BYTES if not isinstance(reward, UnsetType) and reward.kl > 0 else 0
        self._upload_bytes = _UPLOAD_BYTES[run.settings.upload]
        self._sketch_bytes = _UPLOAD_BYTES[sketch_dtype(run.settings.upload)]
        self._download_bytes = 4 if run.settings.upload == "fp32" else 2

    # --- what stays ------------------------------------------------------------------------------------------------

    def frozen(self, ranks: Sequence[int]) -> int:
        """(m + n)·s per weight, s = min(server rank, m, n); of a weight whose rest comes as strands, what it would take
        beyond them."""
        return self._frozen(ranks, self._c)

    def strands(self, ranks: Sequence[int]) -> int:
        """16 bytes for each value that is trained, with gradient and moments, and 4 for what it was where that is kept;
        r·n in the compute dtype for a basis that is not. A that is trained is turned into the compute dtype when it is
        used, for which a basis' rows of zeros leave room."""
        pairs = zip(self._run.weights, ranks, strict=True)
        bases = sum(padded(0 if self._trains_a else rank) * weight.columns for weight, rank in pairs)
        return self._c * bases + self._value_bytes * self._sum(ranks, self._trained)

    def sketches(self) -> int:
        """Gradient sketches: of every weight that is sketched the sums, R·n fp32, and Ω, R·m in the compute dtype; and
        the largest Ω while it is drawn, fp32 twice."""
        sizes = [basis_rank(weight, self._run.max_rank) * weight.rows for weight in self._sketched()]
        return self._sketch_sums() + self._c * sum(sizes) + 8 * max(sizes, default=0)

    def beside(self, ranks: Sequence[int]) -> int:
        """Local strands in the steps of the global ones: 16 bytes for each of their values; and of a weight that has
        some, B and A of all its strands side by side in fp32, which the backward pass needs."""
        return sum(
            (TRAINED_VALUE_BYTES * local + JOINED_VALUE_BYTES * (rank + local)) * (weight.rows + weight.columns)
            for weight, rank, local in zip(self._run.weights, ranks, self.local_ranks, strict=True)
            if local
        )

    # --- before the first step and after the last, when there are no activations -----------------------------------

    def start(self, ranks: Sequence[int]) -> int:
        """Bytes beyond what stays while the model is made of the adapter: its fp32 values, of which fp32
        arithmetic uses the frozen ones as they are; what is trained has no gradient yet."""
        frozen = self._frozen(ranks, self._c + 4 if self._c < 4 else self._c) - self.frozen(ranks)
        return frozen + self._sum(ranks, self._start)

    def whole(self, ranks: Sequence[int]) -> int:
        """Bytes beyond what stays while the adapter is made of a patch; nothing else of the round is there yet but the
        base, from the round before."""
        values = 0  # as they are sent: the frozen rest and the strands
        for weight, rank in zip(self._run.weights, ranks, strict=True):
            frozen = basis_rank(weight, self._run.server_rank) * (weight.rows + weight.columns)
            strands = rank * self._sent(weight)
            # Where boards begin at the global adapter, strands come in the place of as much of the frozen rest.
            values += max(frozen, strands) if self._begins else frozen + strands
        read = WHOLE_COPIES * self._download_bytes * values
        return read - self.frozen(ranks) - self.strands(ranks) - self.sketches()

    def end(self, ranks: Sequence[int]) -> int:
        """Bytes beyond what stays while the round's message is encoded; gradients are gone. It has what was trained as
        the run uploads it and the means of the sketches as they travel. (A checkpoint is written and read one matrix at
        a time.)

        Quantised uploads have residuals, which are made when the message is, before it is encoded: those of two
        earlier rounds lie in a file that is read, and those with which strands are sent take what gradients took.
        """
        trained, residuals = self._sum(ranks, self._trained), self._sum(ranks, self._residuals)
        sketches = self._sketch_sums()  # the means, in fp32 beside the sums
        # Sketch bytes are of fp32 sums, four to a value: as many values are packed.
        packed = int(self._upload_bytes * trained + self._sketch_bytes * sketches / 4)
        if residuals:
            # Beside the two generations that were read either residuals are made while tensors are packed, or the
            # message is encoded: the larger moment counts. New residuals take the gradients' place.
            return sketches + 2 * residuals + max(MESSAGE_COPIES * packed, packed + residuals)
        return sketches + MESSAGE_COPIES * packed - 4 * trained  # in the place of the gradients, fp32

    def profile(self, ranks: Sequence[int]) -> int:
        """Bytes of a profile with AdaLoRA's scores beyond what stays in a round, beside a step's activations: fp32
        factors of every weight, their gradients, two moments and two sensitivities, and both in the compute dtype. It
        has no strands, and no frozen rest of the run."""
        if self._run.settings.importance != "adalora":
            return 0
        sides = sum(weight.rows + weight.columns for weight in self._sketched())
        # fp32: value, gradient, two moments, two sensitivities; and the value once more in the compute dtype.
        return ADALORA_RANK * (6 * 4 + self._c) * sides - self.frozen(ranks) - self.strands(ranks)

    # --- of one strand ---------------------------------------------------------------------------------------------

    def strand(self, weight: Weight) -> tuple[int, int]:
        """The most that one more strand of `weight` adds to what stays, and beyond that to `start`, `whole` or
        `end`."""
        values = self._trained(weight)
        stays = self._value_bytes * values + (0 if self._trains_a else self._c * weight.columns)
        if weight.name in self._joined:
            stays += JOINED_VALUE_BYTES * (weight.rows + weight.columns)
        packed, residuals = self._upload_bytes * values, self._residuals(weight)
        end = math.ceil(MESSAGE_COPIES * packed) - 4 * values
        if residuals:
            end = 2 * residuals + math.ceil(max(MESSAGE_COPIES * packed, packed + residuals))
        whole = WHOLE_COPIES * self._download_bytes * self._sent(weight) - stays
        return stays, max(self._start(weight), whole, end)

    def _trained(self, weight: Weight) -> int:
        """Values that are trained: of B, and of A where some round trains it."""
        return weight.rows + (weight.columns if self._trains_a else 0)

    def _sent(self, weight: Weight) -> int:
        """Values of one strand that a board is sent."""
        if self._run.settings.own_basis:
            return 0
        return weight.columns + (weight.rows if self._begins else 0)

    def _start(self, weight: Weight) -> int:
        """The fp32 row of the basis as it was read; B has no gradient yet. Factors that begin somewhere take as read
        what their gradients will."""
        return 0 if self._begins else 4 * weight.columns - 4 * self._trained(weight)

    def _residuals(self, weight: Weight) -> int:
        """Residuals, which are what an upload lacks: a column and a row in fp32 for each factor that is trained; of
        quantised uploads only, and not where a board has another A in every round (engines/lean/error_feedback.py)."""
        settings = self._run.settings
        if settings.upload not in ("int8", "int4") or settings.own_basis:
            return 0
        return 4 * (2 if self._trains_a else 1) * (weight.rows + weight.columns)

    # --- parts -----------------------------------------------------------------------------------------------------

    def _sum(self, ranks: Sequence[int], of_strand: Callable[[Weight], int]) -> int:
        return sum(rank * of_strand(weight) for weight, rank in zip(self._run.weights, ranks, strict=True))

    def _frozen(self, ranks: Sequence[int], value_bytes: int) -> int:
        """Frozen factors of so many bytes per value. A weight that begins at the global adapter comes either without
        strands or without a frozen rest. Counted is the larger of the two, so that more strands never take less."""
        total_bytes = 0
        for weight, rank in zip(self._run.weights, ranks, strict=True):
            sides = weight.rows + weight.columns
            frozen = value_bytes * basis_rank(weight, self._run.server_rank) * sides
            total_bytes += max(0, frozen - self._value_bytes * rank * sides) if self._begins else frozen
        return total_bytes

    def _sketched(self) -> list[Weight]:
        """An encoder that is not trained is not sketched."""
        return [w for w in self._run.weights if self._trains_encoder or not w.is_encoder]

    def _sketch_sums(self) -> int:
        return sum(4 * basis_rank(weight, self._run.max_rank) * weight.columns for weight in self._sketched())
