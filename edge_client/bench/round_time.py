"""What a round sends over the network, how long that takes on a link, and the granularity that results.

Granularity G = T_comp / T_comm is the measure of "Federated Fine-Tuning of LLMs on the Very Edge" (arXiv 2310.03150):
far above 1 a board is bound by its arithmetic, below 1 by its link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wire.checks import basis_rank
from wire.dtypes import download_dtype, frozen_dtype
from wire.messages import Dtype, Weight, tensor_bytes

REQUESTS_PER_ROUND = 3
"""One asks for work, one downloads the adapter, one uploads the update (docs/protocol.md); each waits a round trip."""

UPLOAD: Dtype = "bf16"
SERVER_RANK = 16
"""A run as `aggregator init` writes it: number format of uploads, and rank of the global adapter. Boards begin at
leading strands of it, and send both factors of them."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of a round's tensors; names, shapes and headers add some tens of bytes per weight.

    Attributes:
        down_bytes: the global adapter, or the strands that the board trains where these are more.
        up_bytes: B and A of every strand.
    """

    down_bytes: int
    up_bytes: int


@dataclass(frozen=True, slots=True)
class Link:
    """`mbps` in 10⁶ bit/s, the same both ways; `latency_ms` there and back."""

    mbps: float
    latency_ms: float

    def seconds(self, traffic: Traffic) -> float:
        """Time that a round's communication takes on an otherwise empty link."""
        bits = 8 * (traffic.down_bytes + traffic.up_bytes)
        return bits / (self.mbps * 1e6) + REQUESTS_PER_ROUND * self.latency_ms / 1e3


def round_traffic(
    weights: Sequence[Weight], ranks: Sequence[int], upload: Dtype = UPLOAD, server_rank: int = SERVER_RANK
) -> Traffic:
    """Traffic of a board that trains `ranks` strands of `weights`, in a run whose adapter has reached its full rank.

    What is trained comes in bf16 and the frozen rest in int8, or all in fp32 if `upload` is that.
    """
    dtype = download_dtype(upload)
    frozen = frozen_dtype(dtype)
    down_bytes = up_bytes = 0
    for weight, rank in zip(weights, ranks, strict=True):
        rest = context_rank(weight, rank, server_rank)
        for side in (weight.rows, weight.columns):
            down_bytes += sum(tensor_bytes(frozen, side * rest)) + sum(tensor_bytes(dtype, side * rank))
            up_bytes += sum(tensor_bytes(upload, side * rank))
    return Traffic(down_bytes, up_bytes)


def context_rank(weight: Weight, rank: int, server_rank: int = SERVER_RANK) -> int:
    """Strands of the global adapter that lie frozen beside the `rank` that are trained."""
    return max(0, basis_rank(weight, server_rank) - rank)


def granularity(compute_s: float, communication_s: float) -> float:
    """G, without unit; infinite where nothing has to be sent."""
    return compute_s / communication_s if communication_s else float("inf")
