"""A board that claims a million examples, in a whole run: it counts as three times the middle, and people are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregator.report.page import fragment
from aggregator.report.tables import status_text
from wire.limits import MAX_EXAMPLES

NAMES = ("ada", "bob", "carl2")


async def played(start: Any, folder: Any, begin_training: Any, claim: int) -> Any:
    """A round of three boards, the last of which claims so many examples; the server after it."""
    server = await start(folder)
    boards = [await server.board(name, install=number) for number, name in enumerate(NAMES, 1)]
    tasks = await begin_training(boards)
    for board, task, n_examples in zip(boards, tasks, (10, 12, claim), strict=True):
        await board.train(task, n_examples=n_examples)
    await boards[0].work(after=1)
    return server


def model(server: Any) -> np.ndarray:
    """All of the global adapter's products in one vector."""
    weights = server.run.state.weights.values()
    return np.concatenate([(w.frozen_b.astype(np.float64) @ w.frozen_a).ravel() for w in weights])


SETTINGS = {"rounds.min_devices": 3, "rounds.quorum": 3}


@pytest.mark.slow
async def test_a_claim_of_a_million_counts_as_three_boards(make_folder: Any, start: Any, begin_training: Any) -> None:
    """The version is that of a board which claims just so many; status, page and log say so."""
    liar = await played(start, make_folder(SETTINGS, "liar"), begin_training, MAX_EXAMPLES)
    honest = await played(start, make_folder(SETTINGS, "honest"), begin_training, 36)
    believed = await played(
        start, make_folder({**SETTINGS, "merge.max_weight": 0}, "off"), begin_training, MAX_EXAMPLES
    )

    assert liar.run.state.version == honest.run.state.version == 2
    assert np.linalg.norm(model(liar) - model(honest)) < 1e-4 * np.linalg.norm(model(honest))
    assert np.linalg.norm(model(believed) - model(honest)) > 0.1 * np.linalg.norm(model(honest))

    facts = await liar.status()
    boards = {board["name"]: board for board in facts["boards"]}
    assert (boards["carl2"]["claims"], boards["carl2"]["counts_as"]) == (MAX_EXAMPLES, 36)
    assert (boards["ada"]["claims"], boards["ada"]["counts_as"]) == (10, 10)
    said = "counts as 36 of the 1,000,000 examples that it claims"
    assert f"carl2: weight: {said}" in status_text(facts) and said in fragment(facts)
    assert facts["run"]["max_weight"] == 3.0
    assert sum("claims 1,000,000 examples and counts as 36" in event for event in facts["events"]) == 1
    assert said not in status_text(await honest.status()) and said not in status_text(await believed.status())


@pytest.mark.slow
async def test_a_profile_that_claims_a_million_does_not_make_the_basis_alone(
    make_folder: Any, start: Any, begin_training: Any
) -> None:
    """Sketches are weighted by examples too."""

    async def profiled(name: str, claim: int, settings: Any) -> Any:
        server = await start(make_folder({**SETTINGS, **settings}, name))
        boards = [await server.board(each, install=number) for number, each in enumerate(NAMES, 1)]
        for board, n_examples in zip(boards, (10, 12, claim), strict=True):
            await board.send_profile(board.profile(n_examples))
        assert (await boards[0].work()).kind == "train"
        return np.concatenate([np.ravel(values) for values in server.run.values])

    liar = await profiled("liar", MAX_EXAMPLES, {})
    honest = await profiled("honest", 36, {})
    believed = await profiled("off", MAX_EXAMPLES, {"merge.max_weight": 0})

    np.testing.assert_allclose(liar, honest, rtol=1e-4)
    assert np.abs(believed - honest).max() > 0.01 * honest.max()


@pytest.mark.slow
async def test_a_restart_in_mid_round_changes_nothing(
    make_folder: Any, start: Any, stop: Any, begin_training: Any
) -> None:
    """The claim is in the store, and so is what was sent."""
    folder = make_folder(SETTINGS, "restarted")
    server = await start(folder)
    boards = [await server.board(name, install=number) for number, name in enumerate(NAMES, 1)]
    tasks = await begin_training(boards)
    await boards[2].train(tasks[2], n_examples=MAX_EXAMPLES)
    await stop(server)
    again = await start(folder)
    for board, task, n_examples in zip(boards[:2], tasks[:2], (10, 12), strict=True):
        board.server = again
        await board.train(task, n_examples=n_examples)
    await boards[0].work(after=1)

    whole = await played(start, make_folder(SETTINGS, "whole"), begin_training, 36)

    assert np.linalg.norm(model(again) - model(whole)) < 1e-4 * np.linalg.norm(model(whole))
