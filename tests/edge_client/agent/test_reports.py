"""The numbers of a round that a board reports."""

from __future__ import annotations

from braid_common.metrics import ROUND_COSTS
from edge_client.agent.reports import round_costs


def test_the_costs_of_a_round_have_their_names() -> None:
    """What the worker told of it, by the names of reports, and nothing that it did not tell."""
    worker = {"loss": 1.0, "seconds": 2.0, "encode_s": 3.0, "tokens_per_s": 4.0, "peak_bytes": 5.0, "joules": 6.0}

    costs = round_costs({**worker, "held_out_loss": 7.0, "n_examples": 8.0})

    assert costs.keys() == ROUND_COSTS and sorted(costs.values()) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert round_costs({"loss": 1.0}) == {"train_loss": 1.0}
