"""A board that pauses in mid-round by its operator's rules, beside the fake server and through the real pipe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edge_client.agent.manners.leave_to_train import Facts, Rules, Window
from edge_client.agent.manners.pauses import TOLD_EVERY_S, Pauses
from edge_client.state.status import read_status
from tests.fakes.board import FakeBoard
from tests.fakes.clock import FakeClock
from tests.fakes.server import FakeServer
from tests.fakes.sysfs import RASPBERRY_PI_4, lay_out

pytestmark = pytest.mark.slow  # a client and its worker, second by second

LOOK_EVERY_S = 0.02
TIME_LIMIT_S = 60.0

ZONE = "sys/class/thermal/thermal_zone0/temp"
NOON, NIGHT = 12 * 3600, 23 * 3600


class Machine:
    """A board whose heat and clock a test sets, and whose worker stands still after the first step of training.

    Attributes:
        stall: the file that stands for that.
        log: the worker's jobs.
    """

    def __init__(self, board: FakeBoard, folder: Path, rules: Rules) -> None:
        self.board, self.root = board, lay_out(folder / "root", RASPBERRY_PI_4)
        self.stall, self.log = folder / "stall", folder / "jobs"
        board.root, board.rules, board.look_every_s = self.root, rules, LOOK_EVERY_S
        board.worker_flags = ("--stall", str(self.stall), "--log", str(self.log))
        board.now_unix_s = lambda: self.second
        self.second = float(NIGHT)

    def heat(self, degrees_c: float) -> None:
        (self.root / ZONE).write_text(f"{1000 * degrees_c:.0f}\n")

    def status(self) -> Any:
        status = read_status(self.board.folder)
        assert status is not None
        return status

    def told(self) -> list[str]:
        """What the server's log has of this board."""
        return [report.text for report in self.board.server.reports if report.kind == "event"]

    def trainings(self, round_id: int) -> list[int]:
        """The step that each of the worker's jobs of a round began with."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [int(line[6]) for line in lines if line[0] == "train" and line[1] == str(round_id)]


@pytest.fixture
def machine(board: FakeBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Rules], Machine]:
    """A board with rules; the machine's clock is read in UTC."""
    monkeypatch.setattr(time, "localtime", time.gmtime)
    return lambda rules: Machine(board, tmp_path, rules)


async def until(condition: Callable[[], bool], board: Awaitable[None]) -> None:
    """Wait for something that the board does, as long as it lives."""
    assert isinstance(board, asyncio.Task)
    for _ in range(int(TIME_LIMIT_S / 0.01)):
        if condition() or board.done():
            break
        await asyncio.sleep(0.01)
    assert not board.done() and condition(), "it did not come to that"


async def test_heat_in_mid_round_pauses_it_until_the_board_is_cool(
    machine: Callable[[Rules], Machine], server: FakeServer
) -> None:
    """Over the limit after the first step: the worker waits between two steps and keeps what it has loaded; when the
    board is cool by a margin it goes on, the same process in the same job. Told once, here and to the server."""
    made = machine(Rules(below_c=70.0))
    joining = asyncio.create_task(made.board.join())
    await until(made.stall.exists, joining)

    made.heat(70.5)
    await until(lambda: made.status().phase == "pause", joining)
    assert made.status().waits == "70.5 °C, waits for below 65 °C"
    await until(made.stall.with_suffix(".done").exists, joining)
    made.heat(68.0)
    await until(lambda: "its training pauses: 70.5 °C, waits for below 65 °C" in made.told(), joining)
    assert server.commits == [] and made.status().phase == "pause", "below the limit is not cool yet"
    made.heat(60.0)
    await asyncio.wait_for(joining, TIME_LIMIT_S)

    assert server.state == "finished" and [round_id for round_id, _ in server.commits] == [1, 2]
    assert made.trainings(1) == [0], "one job, begun once"
    (paused,) = made.board.events("paused")
    assert paused["message"] == "70.5 °C, waits for below 65 °C"
    assert len(made.board.events("unpaused")) == 1 and made.status().waits == ""
    assert len(made.told()) <= 2


async def test_a_window_that_closes_in_mid_round_sends_the_worker_home(
    machine: Callable[[Rules], Machine], server: FakeServer
) -> None:
    """Ten hours are too long to keep memory: the worker ends between two steps, the server is asked for nothing until
    the window opens, and the round goes on with the step that was saved."""
    made = machine(Rules(windows=(Window(22 * 3600, 6 * 3600),)))
    joining = asyncio.create_task(made.board.join())
    await until(made.stall.exists, joining)

    asked, slept_s = [], []

    async def sleep(delay_s: float) -> None:
        if made.status().phase == "pause":
            asked.append(sum("/v1/work" in line for line in server.requests))
            slept_s.append(delay_s)
            made.second += 3600 * (len(asked) > 3)  # three looks at noon, then the hours pass
        await asyncio.sleep(0)

    made.board.client_sleep = sleep
    made.second = NOON
    await asyncio.wait_for(joining, TIME_LIMIT_S)

    assert server.state == "finished" and [round_id for round_id, _ in server.commits] == [1, 2]
    assert made.trainings(1) == [0, 1], "begun again after the pause, with the step behind the saved one"
    assert len(set(asked)) == 1, "the server was not asked for work meanwhile"
    assert slept_s == [300.0] * len(slept_s) and len(slept_s) >= 10
    assert [event["message"] for event in made.board.events("paused")] == ["waits for 22:00"]


async def test_a_board_outside_of_its_hours_fetches_no_task(
    machine: Callable[[Rules], Machine], server: FakeServer
) -> None:
    """It enrols, checks its base and plans, and then waits; no worker is started for a round."""
    made = machine(Rules(windows=(Window(22 * 3600, 6 * 3600),)))
    made.second = NOON
    asked: list[int] = []

    async def sleep(delay_s: float) -> None:
        if made.status().phase == "pause":
            asked.append(sum("/v1/work" in line for line in server.requests) + made.log.exists())
            made.second += 3600
        await asyncio.sleep(0)

    made.board.client_sleep = sleep
    made.stall.with_suffix(".done").touch()
    await asyncio.wait_for(made.board.join(), TIME_LIMIT_S)

    assert len(asked) == 10 and not any(asked)
    assert server.state == "finished"


class Told:
    """A worker and a listener that only write down."""

    def __init__(self) -> None:
        self.words: list[tuple[str, bool]] = []
        self.is_parked = False

    def pause(self) -> None: ...

    def go_on(self) -> None: ...

    def paused(self, why: str, *, aloud: bool) -> None:
        self.words.append((why, aloud))

    def unpaused(self, *, aloud: bool) -> None:
        self.words.append(("goes on", aloud))


async def test_a_board_that_pauses_every_minute_says_so_every_ten() -> None:
    """The status always has it; log and server hear of the same reason once in TOLD_EVERY_S."""
    told, clock = Told(), FakeClock()
    facts = [Facts(0)]
    made = Pauses(Rules(below_c=70.0), lambda: facts[0], worker=told, listener=told, clock=clock)

    async def cool_down(_: float) -> None:
        facts[0] = Facts(0, 60.0)

    n_minutes = 12
    for _ in range(n_minutes):
        facts[0] = Facts(0, 80.0)
        await made.until_allowed(cool_down)
        clock.advance(60.0)

    assert len(told.words) == 2 * n_minutes
    aloud = [i for i, (word, aloud) in enumerate(told.words) if aloud and word != "goes on"]
    assert aloud == [0, 2 * int(TOLD_EVERY_S / 60)]
    assert [aloud for word, aloud in told.words if word == "goes on"].count(True) == 2


async def test_without_rules_nothing_is_looked_at(board: FakeBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without any of the options reads no temperature, supply or time, and asks nothing of its worker."""

    def fail(*_: object, **__: object) -> None:
        pytest.fail("somebody looked")

    for name in ("look.find_thermometer", "look.read_supply", "pauses.objection"):
        monkeypatch.setattr(f"edge_client.agent.manners.{name}", fail)
    monkeypatch.setattr("edge_client.worker.process.WorkerProcess.pause", fail)

    await board.join()

    assert board.events("finished")
