"""A board without a battery for its clock: it begins in 1970, and jumps when the network has told it the time."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import braid_common
import edge_client
from edge_client.errors import ExitCode
from edge_client.network.api import Api
from edge_client.network.errors import ClockError
from edge_client.state.status import read_status
from tests.fakes.server import FakeServer

JUMPS_S = (0.0, 4e9, 1.0, 1.8e9, -5.0)
"""1970, a day in 2096, 1970 again, the present, and a clock that is wrong altogether."""


async def test_a_run_under_a_clock_that_jumps(board: Any, server: FakeServer) -> None:
    """At every look another century: the run is finished, nothing is waited for longer, no duration is negative."""
    looks = []

    def now_unix_s() -> float:
        looks.append(JUMPS_S[len(looks) % len(JUMPS_S)])
        return looks[-1]

    board.now_unix_s = now_unix_s

    async def away(_: Any) -> web.Response:
        return web.Response(status=503)

    server.faults["GET /v1/work"] = [away, away]

    await board.join()

    assert len(looks) > len(JUMPS_S), "the clock jumped in mid-run"
    assert server.state == "finished" and [round_id for round_id, _ in server.commits] == [1, 2]
    assert 0 <= board.events("online")[0]["seconds"] < 600 and max(board.slept_s) <= 60
    numbers = itertools.chain.from_iterable(report.values.values() for report in server.reports)
    assert all(number >= 0 for number in numbers)
    status = read_status(board.folder)
    assert status is not None and status.phase == "finished"


@pytest.mark.parametrize("waits", [True, False])
async def test_a_clock_before_the_servers_certificate(
    board: Any, server: FakeServer, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """With --wait, as the unit has it, a first enrolment waits until the network has set the clock; without, a person
    is told at once."""
    original, fired = Api.enrol, []

    async def enrol(api: Api, message: Any) -> Any:
        if len(fired) < 4:
            fired.append(message)
            raise ClockError("this board's clock is wrong", "timedatectl set-ntp true")
        return await original(api, message)

    monkeypatch.setattr(Api, "enrol", enrol)

    if waits:
        await board.join(wait=True)
        assert len(fired) == 4 and server.state == "finished"
        assert "clock is wrong" in board.events("offline")[0]["message"]
        return
    with pytest.raises(ClockError) as caught:
        await board.join()
    assert len(fired) == 1 and caught.value.exit_code is ExitCode.CONFIG


WALL_CLOCKS = {
    "cli/state.py": "how long ago a status was written, for people",
    "agent/join.py": "the same, written into it",
    "agent/manners/look.py": "the hours that a board's operator allows training at; a clock that is set is followed",
    "state/status.py": "the same",
    "engines/lean/encoder_cache/store.py": "which entry is evicted first",
    "data/stamp.py": "whether a file is another one: compared for equality",
}
"""Modules that look at the clock on the wall, or at the times of files, and for what. All else is monotonic."""


def test_nothing_else_knows_the_time_of_day() -> None:
    """A module that begins to is found by the names of such calls."""
    names = {"time.time", "datetime", "st_mtime", "st_mtime_ns", "st_ctime", "st_ctime_ns", "getmtime", "localtime"}
    found = set()
    for package in (edge_client, braid_common):
        root = Path(str(package.__file__)).parent
        for path in root.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                is_named = isinstance(node, ast.Attribute) and (node.attr in names or ast.unparse(node) in names)
                if is_named or (isinstance(node, ast.Import | ast.ImportFrom) and "datetime" in ast.unparse(node)):
                    found.add(str(path.relative_to(root)))

    assert found == WALL_CLOCKS.keys()
