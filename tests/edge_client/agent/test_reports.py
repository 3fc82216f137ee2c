"""The numbers of a round that a board reports, and when."""

from __future__ import annotations

from typing import Any

import pytest

from braid_common.metrics import ROUND_COSTS
from edge_client.agent.reports import round_costs


def test_the_costs_of_a_round_have_their_names() -> None:
    """What the worker told of it, by the names of reports, and nothing that it did not tell."""
    worker = {"loss": 1.0, "seconds": 2.0, "encode_s": 3.0, "tokens_per_s": 4.0, "peak_bytes": 5.0, "joules": 6.0}

    costs = round_costs({**worker, "held_out_loss": 7.0, "n_examples": 8.0})

    assert costs.keys() == ROUND_COSTS and sorted(costs.values()) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert round_costs({"loss": 1.0}) == {"train_loss": 1.0}


async def test_a_board_tells_its_loss_before_it_sends_what_it_trained(
    board: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that closes with the update may weigh boards by that loss (merge.fairness)."""
    told: list[set[int]] = []
    commits = type(
        "Commits", (list,), {"append": lambda self, each: (told.append(versions()), list.append(self, each))}
    )

    def versions() -> set[int]:
        return {report.version for report in server.reports if report.kind == "evaluation"}

    monkeypatch.setattr(server, "commits", commits())
    await board.join()

    assert told == [{1}, {1, 2}]
