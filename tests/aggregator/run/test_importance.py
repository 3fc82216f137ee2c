"""A run that ranks its weights by the boards' scores: combined, kept over restarts, refused where wrong, shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from aggregator.errors import StateError
from aggregator.merge.state import AdapterState, WeightState, initial_state
from aggregator.report.page import fragment
from aggregator.report.ranking import RankedWeight, ranking
from aggregator.report.ranking_table import SHOWN_WEIGHTS
from aggregator.report.tables import status_text
from wire.messages import Receipt, Report
from wire.run import RunInfo

ADALORA = {"train.importance": "adalora"}


def falling(board: Any, factor: float = 1.0) -> list[float]:
    """Scores of a board: the first weight of the manifest matters most."""
    return [factor * 2.0**-i for i in range(len(board.info.weights))]


async def profiled(boards: list[Any], factors: tuple[float, ...] = (1.0, 1.0)) -> None:
    for board, factor in zip(boards, factors, strict=True):
        assert await board.send_profile(board.profile(scores=falling(board, factor))) == (200, Receipt(accepted=True))


async def test_boards_scores_rank_the_weights(make_folder: Any, start: Any) -> None:
    """Boards learn the importance from the run's settings; the values they get back share the scores out."""
    server = await start(make_folder(ADALORA))
    boards = [await server.board("ada"), await server.board("bo")]
    assert boards[0].info.settings.importance == "adalora"

    await profiled(boards, (1.0, 1e250))
    await boards[0].work()

    values = (await boards[0].get("/v1/run", RunInfo)).values
    expected = [score / sum(falling(boards[0])) for score in falling(boards[0])]
    assert [sum(strands) for strands in values] == pytest.approx(expected)


async def test_a_restart_while_profiling_gives_the_same_ranking(make_folder: Any, start: Any, stop: Any) -> None:
    """The stored profiles are folded again; the second board then makes the same values as without the restart."""
    values = []
    for name in ("whole", "cut"):
        folder = make_folder(ADALORA, name=name)
        server = await start(folder)
        boards = [await server.board("ada", install=1), await server.board("bob", install=2)]
        await boards[0].send_profile(boards[0].profile(scores=falling(boards[0])))
        if name == "cut":
            await stop(server)
            server = await start(folder)
            boards[0].server = boards[1].server = server
        await boards[1].send_profile(boards[1].profile(n_examples=90, scores=falling(boards[1])[::-1]))
        await boards[1].work()
        values.append((await boards[1].get("/v1/run", RunInfo)).values)

    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("importance", "scores", "told"),
    [
        ("adalora", lambda n: (), "ranks weights by adalora"),
        ("magnitude_gradient", lambda n: [1.0] * (n - 1), "one score per sketch"),
        ("adalora", lambda n: [0.0] * n, "no score above zero"),
        ("sketch", lambda n: [1.0] * n, "ranks weights by their sketches"),
    ],
)
async def test_scores_that_the_run_does_not_ask_for_are_refused(
    make_folder: Any, start: Any, importance: str, scores: Any, told: str
) -> None:
    """The board hears a sentence, and the run goes on with the others."""
    server = await start(make_folder({"train.importance": importance}))
    wrong, *honest = [await server.board(name) for name in ("ada", "bo", "cy")]

    _, receipt = await wrong.send_profile(wrong.profile(scores=scores(len(wrong.info.weights))))

    assert isinstance(receipt, Receipt) and not receipt.accepted and told in receipt.reason
    assert told in (await server.status())["boards"][0]["reason"]
    for board in honest:
        await board.send_profile(board.profile(scores=[] if importance == "sketch" else falling(board)))
    assert (await honest[0].work()).kind == "train"


async def test_a_run_keeps_its_importance(make_folder: Any, start: Any, stop: Any) -> None:
    """Before a board has enrolled it may change; after that, another one stops the server with a sentence."""
    folder = make_folder()

    def change(old: str, new: str) -> None:
        text = folder.config.read_text()
        assert f'importance = "{old}"' in text
        folder.config.write_text(text.replace(f'importance = "{old}"', f'importance = "{new}"'))

    await stop(await start(folder))
    change("magnitude_gradient", "adalora")
    server = await start(folder)
    await server.board("ada")
    await stop(server)
    change("adalora", "sketch")

    with pytest.raises(StateError, match=r"train\.importance was 'adalora'"):
        await start(folder)


# --- what people see -----------------------------------------------------------------------------------------------


async def test_the_status_shows_the_ranking(make_folder: Any, start: Any) -> None:
    """All weights in JSON, the first of them in the text and on the page, with score, version, shares and strands."""
    targets = ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]
    server = await start(make_folder({**ADALORA, "train.targets": targets}))
    boards = [await server.board("ada"), await server.board("bo")]
    assert (await server.status())["ranking"]["weights"] == []
    await profiled(boards)
    await boards[0].work()

    facts = await server.status()
    told, page = status_text(facts), fragment(facts)

    found = facts["ranking"]
    names = [weight.name for weight in boards[0].info.weights]
    assert (found["importance"], found["version"]) == ("adalora", 1)
    assert [weight["name"] for weight in found["weights"]] == names
    assert sum(weight["share"] for weight in found["weights"]) == pytest.approx(1)
    assert f"importance of {len(names)} weights by AdaLoRA's score, as of version 1" in told
    assert re.search(rf"^{re.escape(names[0])} +50 % +\d of 4$", told, re.MULTILINE)
    assert f"… {len(names) - SHOWN_WEIGHTS} more" in told and names[SHOWN_WEIGHTS] not in told
    assert f"<td>50 %</td><td>{found['weights'][0]['worth']} of 4</td>" in page and "AdaLoRA&#x27;s score" in page


async def test_the_ranking_says_when_it_was_refreshed(make_folder: Any, start: Any, begin_training: Any) -> None:
    """Rounds with sketches refresh it, the last one, which asks for none, does not."""
    server = await start(make_folder())
    boards = [await server.board("ada"), await server.board("bo")]
    tasks = await begin_training(boards)
    seen = []
    for round_id in (1, 2):
        for board, task in zip(boards, tasks, strict=True):
            await board.train(task)
        tasks = [await board.work(after=round_id) for board in boards]
        facts = await server.status()
        seen.append((facts["run"]["version"], facts["ranking"]["version"]))

    assert seen == [(2, 2), (3, 2)]
    assert "by magnitude·gradient, as of version 2" in status_text(facts)


async def test_a_boards_last_event_is_shown(make_folder: Any, start: Any) -> None:
    """What a board tells of stands under the boards, as text, and does not hide what it is doing."""
    server = await start(make_folder())
    board = await server.board("ada")
    await board.report(Report(kind="progress", text="training"))
    await board.report(Report(kind="event", text="memory ran short; went on with <b>nf4</b>\x1b[2J"))

    facts = await server.status()

    assert facts["boards"][0]["phase"] == "training"
    assert "ada: last event: memory ran short; went on with <b>nf4</b>?[2J" in status_text(facts)
    assert "last event: memory ran short; went on with &lt;b&gt;nf4" in fragment(facts)


def state_of(values: Mapping[str, list[float]]) -> AdapterState:
    """Weights of 2 × 5 whose strands are worth this."""
    weights = {
        name: WeightState(
            frozen_b=np.zeros((2, 0), np.float32),
            frozen_a=np.zeros((0, 5), np.float32),
            basis=np.eye(len(worth), 5, dtype=np.float32),
            values=np.array(worth),
        )
        for name, worth in values.items()
    }
    return AdapterState(version=1, weights=weights)


def test_there_is_no_ranking_before_the_first_basis() -> None:
    """And where every strand is worth nothing, all weights share zero, in manifest order."""
    assert ranking(initial_state(())) == ()
    assert ranking(state_of({"q": [0.0, 0.0], "wo": [0.0]})) == (
        RankedWeight("q", 0.0, 0, 2),
        RankedWeight("wo", 0.0, 0, 1),
    )


def test_strands_worth_having_hold_most_of_the_importance() -> None:
    """The fewest leading strands with nine tenths of their weight's importance; weights by their part of everything."""
    found = ranking(state_of({"q": [1.0, 1.0, 1.0, 1.0], "wi": [8.0, 0.8, 0.2], "wo": [3.0, 0.0]}))

    assert [(weight.name, weight.worth, weight.strands) for weight in found] == [
        ("wi", 2, 3),
        ("q", 4, 4),
        ("wo", 1, 2),
    ]
    assert [weight.share for weight in found] == pytest.approx([9 / 16, 4 / 16, 3 / 16])
