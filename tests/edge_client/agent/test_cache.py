"""The cache of encoder outputs from the network side: who may use how much of which folder, and when it goes."""

from __future__ import annotations

import json
import stat
from typing import Any

import pytest

from edge_client.agent.console import Console
from edge_client.agent.preflight import preflight
from edge_client.state.folder import StateFolder


@pytest.mark.slow
async def test_every_job_of_a_plan_with_a_cache_is_told_where_it_is(board: Any) -> None:
    """Profile, training and evaluation get the same folder and the same limit."""
    log = board.folder.parent / "jobs"
    board.worker_flags = ("--log", str(log))

    await board.join()

    rows = [line.split() for line in log.read_text().splitlines()]
    assert {row[0] for row in rows} == {"probe", "profile", "train", "evaluate"}
    told = {tuple(row[7:]) for row in rows if row[0] != "probe"}
    assert told == {("bf16", str(board.folder / "cache"), str(board.cache_bytes))}
    assert {tuple(row[7:]) for row in rows if row[0] == "probe"} == {("bf16", "-", "0")}, "dummy text is not kept"


async def test_without_room_no_job_hears_of_a_cache(board: Any) -> None:
    """`--cache 0` gives plans without one, and jobs without a folder."""
    board.cache_bytes = 0
    log = board.folder.parent / "jobs"
    board.worker_flags = ("--log", str(log))

    await board.join()

    rows = [line.split() for line in log.read_text().splitlines()]
    assert {tuple(row[7:]) for row in rows} == {("none", "-", "0")}


@pytest.mark.slow
async def test_encoding_is_visible(board: Any, server: Any) -> None:
    """The phase with its examples is an event and reaches the server; the loss in the status stays the last one."""
    await board.join()

    encoding = [event for event in board.events("progress") if event["phase"] == "encode"]
    assert (encoding[0]["step"], encoding[0]["steps"]) == (3, 3)
    assert board.events("plan")[-1]["cache"] == "bf16"
    status = json.loads((board.folder / "status.json").read_text())
    assert status["loss"] > 0


def test_a_start_makes_the_folder_and_a_start_without_cache_empties_it(board: Any) -> None:
    """Only its owner can look into it: an encoder's output says much about a text."""
    found = preflight(board.settings(cache="8MiB"), Console(), board.probes())
    entry = found.folder.cache / "ab" / "cd"
    entry.parent.mkdir()
    entry.write_bytes(b"text")
    found.folder.unlock()

    assert found.cache_bytes == 8 << 20
    assert stat.S_IMODE(found.folder.cache.stat().st_mode) == 0o700
    emptied = preflight(board.settings(cache="0"), Console(), board.probes())
    emptied.folder.unlock()
    assert emptied.cache_bytes == 0
    assert list(emptied.folder.cache.iterdir()) == []


def test_leaving_removes_what_was_encoded(board: Any) -> None:
    """It was made from the board's text, which nobody else is to find."""
    folder = StateFolder(board.folder)
    folder.lock()
    (folder.cache / "ab").mkdir()
    (folder.cache / "ab" / "cd").write_bytes(b"text")

    folder.forget_identity()

    assert list(folder.cache.iterdir()) == []
