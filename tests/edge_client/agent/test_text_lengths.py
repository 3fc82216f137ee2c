"""A board's texts are measured before anything is planned; a run without lengths is waited for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_client.errors import NoPlanError
from tests.fakes.server import answer, refusal
from wire.text_lengths import TextLengths

OPEN = {"max_source_tokens": 0, "max_target_tokens": 0}


def kinds(server: Any) -> list[str]:
    return [report.kind for report in server.reports if report.kind in ("data", "plan")]


async def test_lengths_are_told_before_the_first_plan(board: Any, server: Any) -> None:
    """Also in a run whose lengths are given; nothing is cut, so nothing is warned of."""
    await board.join()

    assert kinds(server)[:2] == ["data", "plan"] and kinds(server).count("data") == 1
    (told,) = (TextLengths.from_values(report.values) for report in server.reports if report.kind == "data")
    assert (told.n_examples, told.max_source_tokens, told.sources_cut) == (10, 16, 0.0)
    assert board.events("text_lengths")[0]["source_p95"] == 8
    assert not [notice for notice in board.events("notice") if "longer than" in notice["message"]]


@pytest.mark.slow
async def test_a_run_without_lengths_is_waited_for(board: Any, server: Any) -> None:
    """No plan before the server has chosen; then the texts are measured against what it chose, and the run goes on."""
    server.settings, server.chosen = dict(OPEN), {"max_source_tokens": 24, "max_target_tokens": 8}

    await board.join()

    assert kinds(server)[:3] == ["data", "data", "plan"]
    limits = [report.values["max_source_tokens"] for report in server.reports if report.kind == "data"]
    assert limits == [512, 24], "first against the longest that may be chosen"
    assert server.state == "finished"
    events = [json.loads(line)["event"] for line in board.output.getvalue().splitlines()]
    assert "waiting" in events[: events.index("plan")]


@pytest.mark.slow
async def test_a_restart_while_waiting_goes_on_waiting(board: Any, server: Any) -> None:
    """A board that is started again before the server has chosen tells its lengths again, as the same device."""
    server.settings = dict(OPEN)
    async with board.client() as client:
        _, run = await client.enrol()
        assert not run.settings.has_lengths
    server.chosen = {"max_source_tokens": 16, "max_target_tokens": 8}

    await board.join()

    assert len(server.devices) == 1 and server.state == "finished"


async def test_more_than_a_twentieth_cut_is_warned_of(board: Any, server: Any) -> None:
    """Share, limit, what is lost, and what to set; the run goes on."""
    board.worker_flags = ("--tokens", "100", "20")

    await board.join()

    source, target = (notice for notice in board.events("notice") if "longer than" in notice["message"])
    assert "100% of the sources" in source["message"] and "16 tokens" in source["message"]
    assert "their end is left out" in source["message"]
    assert "train.max_source_tokens = 128" in source["hint"] and 'train.truncate_source = "start"' in source["hint"]
    assert "8 tokens" in target["message"] and "train.max_target_tokens = 24" in target["hint"]
    assert server.state == "finished"


async def test_a_server_that_wants_no_lengths_is_no_obstacle(board: Any, server: Any) -> None:
    """A report that is refused holds up nothing."""

    async def refuse(_: Any) -> Any:
        return refusal(400, "bad_request", "no such kind")

    server.faults["POST /v1/reports"] = [refuse]

    await board.join()

    assert server.fired == ["POST /v1/reports"] and server.state == "finished"


@pytest.mark.slow
@pytest.mark.parametrize(("n_kills", "goes_on"), [(2, True), (3, False)])
async def test_a_worker_that_dies_while_measuring(
    board: Any, server: Any, tmp_path: Path, n_kills: int, goes_on: bool
) -> None:
    """It is started again; killed every time, the data has no room on this board."""
    kills = ("--kill", "measure") * n_kills
    board.worker_flags = (*kills, "--memory", str(tmp_path / "faults"))

    if goes_on:
        await board.join()
        assert server.state == "finished"
    else:
        with pytest.raises(NoPlanError):
            await board.join()
    assert (tmp_path / "faults").read_text().count("kill measure") == n_kills


async def test_a_run_that_loses_its_lengths_is_not_planned_for(board: Any, server: Any) -> None:
    """run.toml was emptied between two answers of the server: the task is dropped, and asked for again."""

    async def without_lengths(_: Any) -> Any:
        run = server.run()
        return answer(msgspec.structs.replace(run, settings=msgspec.structs.replace(run.settings, **OPEN)))

    server.faults["GET /v1/run"] = [without_lengths]

    await board.join()

    assert server.fired == ["GET /v1/run"]
    assert any("yet to choose" in notice["message"] for notice in board.events("notice"))
    assert server.state == "finished"
