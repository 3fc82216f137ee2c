"""`merge.drift` in a whole run: boards count by what the server knows of the strands that they trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregator.errors import ConfigError

SETTINGS = {"train.targets": ["q"], "merge.rule": "braid", "merge.max_rank": 4, "merge.drift": 5.0}
MANY = 100_000


async def merged(server: Any, begin_training: Any, examples: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The global adapter after a round of a board with one strand of each weight and one with all four, and the values
    of the basis that they trained on."""
    boards = [await server.board(name, install=number) for number, name in enumerate(("ada", "robin"), 1)]
    tasks = await begin_training(boards)
    values = [weight.values for weight in server.run.state.weights.values()]
    for board, task, rank, n_examples in zip(boards, tasks, (1, 4), examples, strict=True):
        await board.train(task, rank=rank, n_examples=n_examples)
    await boards[0].work(after=1)
    assert server.run.state.version == 2
    return np.concatenate([(w.frozen_b @ w.frozen_a).ravel() for w in server.run.state.weights.values()]), values


@pytest.mark.slow
async def test_a_round_is_merged_by_what_boards_left_out(make_folder: Any, start: Any, begin_training: Any) -> None:
    """As good as fewer examples of the board that trained one strand of four: n / (1 + 5·d), d by the definition."""
    found, values = await merged(await start(make_folder(SETTINGS, "drift")), begin_training, (MANY, MANY))
    d = sum(float(v[1:].sum()) for v in values) / sum(float(v.sum()) for v in values)
    plain = {**SETTINGS, "merge.drift": 0.0}
    fewer = (round(MANY / (1 + 5 * d)), MANY)
    as_good, _ = await merged(await start(make_folder(plain, "as-good")), begin_training, fewer)
    alike, _ = await merged(await start(make_folder(plain, "alike")), begin_training, (MANY, MANY))

    assert 0.3 < d < 0.8
    np.testing.assert_allclose(found, as_good, atol=1e-4 * np.abs(as_good).max())
    assert np.linalg.norm(found - alike) > 0.05 * np.linalg.norm(alike)


@pytest.mark.slow
async def test_a_board_that_is_lost_and_comes_again_is_weighed_again(
    make_folder: Any, start: Any, begin_training: Any
) -> None:
    """Drifts that were worked out before an update's file was lost say nothing of the one that comes in its place."""
    server = await start(make_folder(SETTINGS))
    boards = [await server.board(name, install=number) for number, name in enumerate(("ada", "robin"), 1)]
    tasks = await begin_training(boards)
    await boards[0].train(tasks[0], rank=1)
    closing = server.run.sums.with_drifts(server.run.open_round, server.run.state)
    device = boards[0].device

    assert closing.drifts.keys() == {device} and closing.weights()[device] < 10
    assert server.run.sums.with_drifts(closing, server.run.state) is closing
    assert closing.without([device]).drifts == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"merge.defence": "median", "rounds.min_devices": 6, "rounds.quorum": 6}, "all boards count alike"),
        ({"merge.rule": "ffa"}, "nothing says what a board leaves out"),
    ],
)
def test_what_cannot_weigh_by_drift_refuses(make_folder: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_folder({**SETTINGS, **settings})
