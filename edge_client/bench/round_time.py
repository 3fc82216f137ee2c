"""Time that a round's traffic takes on a link, and the granularity that results.

Granularity G = T_comp / T_comm is the measure of "Federated Fine-Tuning of LLMs on the Very Edge" (arXiv 2310.03150):
far above 1 a board is bound by its arithmetic, below 1 by its link.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_client.plan.round_cost import Traffic

REQUESTS_PER_ROUND = 3
"""One asks for work, one downloads the adapter, one uploads the update (docs/concepts/protocol.md); each waits a round
trip."""


@dataclass(frozen=True, slots=True)
class Link:
    """`mbps` in 10⁶ bit/s, the same both ways; `latency_ms` there and back."""

    mbps: float
    latency_ms: float

    def seconds(self, traffic: Traffic) -> float:
        """Time that a round's communication takes on an otherwise empty link."""
        bits = 8 * traffic.total_bytes
        return bits / (self.mbps * 1e6) + REQUESTS_PER_ROUND * self.latency_ms / 1e3


def granularity(compute_s: float, communication_s: float) -> float:
    """G, without unit; infinite where nothing has to be sent."""
    return compute_s / communication_s if communication_s else float("inf")
