"""`merge.fairness` in a whole run: boards count by the loss that they told of the version that they trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregator.errors import ConfigError
from wire.messages import Report

SETTINGS = {"train.targets": ["q"], "merge.max_rank": 2, "merge.fairness": 2.0, "merge.max_weight": 1e6}


async def merged(server: Any, begin_training: Any, examples: tuple[int, ...], losses: tuple[float, ...]) -> np.ndarray:
    """The global adapter after one round of boards with so many examples and these losses on version 1."""
    boards = [await server.board(name, install=number) for number, name in enumerate(("ada", "robin"), 1)]
    tasks = await begin_training(boards)
    for board, loss in zip(boards, losses, strict=False):
        await board.report(Report(kind="evaluation", round=1, version=1, values={"loss": loss}))
    for board, task, n_examples in zip(boards, tasks, examples, strict=True):
        await board.train(task, n_examples=n_examples)
    await boards[0].work(after=1)
    assert server.run.state.version == 2
    return np.concatenate([(w.frozen_b @ w.frozen_a).ravel() for w in server.run.state.weights.values()])


@pytest.mark.slow
async def test_a_round_is_merged_by_examples_times_loss_squared(
    make_folder: Any, start: Any, begin_training: Any
) -> None:
    """Losses 1 and 2 at q = 2 are as good as 4 times the examples; where q is 0 they change nothing."""
    fair = await merged(await start(make_folder(SETTINGS, "fair")), begin_training, (10, 10), (1.0, 2.0))
    plain = {**SETTINGS, "merge.fairness": 0.0}
    as_good = await merged(await start(make_folder(plain, "as-good")), begin_training, (10, 40), (1.0, 2.0))
    untold = await merged(await start(make_folder(SETTINGS, "untold")), begin_training, (10, 10), ())

    np.testing.assert_allclose(fair, as_good, atol=1e-5 * np.abs(as_good).max())
    assert np.linalg.norm(fair - untold) > 0.05 * np.linalg.norm(untold)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"merge.defence": "median", "rounds.min_devices": 6, "rounds.quorum": 6}, "all boards count alike"),
        ({"merge.max_weight": 0}, "one that lies could count for all"),
    ],
)
def test_what_cannot_weigh_by_loss_refuses(make_folder: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_folder({**SETTINGS, **settings})
