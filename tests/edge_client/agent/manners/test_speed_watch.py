"""Slow-downs are told when they begin, and not at every look."""

from __future__ import annotations

from pathlib import Path

from edge_client.agent.manners.speed_watch import LOOK_EVERY_S, TOLD_EVERY_S, SpeedWatch
from tests.fakes.board import FakeBoard
from tests.fakes.clock import FakeClock
from tests.fakes.sysfs import ORIN_NANO, PI_BITS, RASPBERRY_PI_4, lay_out


def watched(root: Path, files: dict[str, str]) -> tuple[SpeedWatch, FakeClock, list[str]]:
    told: list[str] = []
    clock = FakeClock()
    return SpeedWatch(told.append, lay_out(root, files), clock), clock, told


def test_a_slow_down_is_told_once(tmp_path: Path) -> None:
    """Again where another reason comes, and where it lasts for long."""
    watch, clock, told = watched(tmp_path, RASPBERRY_PI_4)
    watch.look()
    for bits in ("4", "4", "0", "4", "5"):
        clock.advance(LOOK_EVERY_S)
        (tmp_path / PI_BITS).write_text(bits)
        watch.look()

    assert told == ["throttled", "under-voltage"]
    clock.advance(TOLD_EVERY_S)
    watch.look()
    assert told[2:] == ["under-voltage, throttled"]


def test_a_count_that_grows_is_told(tmp_path: Path) -> None:
    """A Jetson's count of over-current: what was counted before the start is not."""
    watch, clock, told = watched(tmp_path, ORIN_NANO)
    watch.look()
    assert told == []

    (tmp_path / "sys/class/hwmon/hwmon2/oc3_event_cnt").write_text("9")
    watch.look()
    assert told == [], "it looks every so often"
    clock.advance(LOOK_EVERY_S)
    watch.look()
    clock.advance(TOLD_EVERY_S)
    watch.look()

    assert told == ["instantaneous over-current"]


def test_a_board_that_tells_nothing_is_not_looked_at(tmp_path: Path) -> None:
    """Files that appear later are none of its own."""
    watch, clock, told = watched(tmp_path, {})
    lay_out(tmp_path, RASPBERRY_PI_4 | {PI_BITS: "f"})
    clock.advance(LOOK_EVERY_S)
    watch.look()

    assert told == []


async def test_a_board_that_trains_says_so(board: FakeBoard, tmp_path: Path) -> None:
    """In its journal, with a word where to look."""
    board.root = lay_out(tmp_path / "root", RASPBERRY_PI_4 | {PI_BITS: "50005"})

    await board.join()

    (said,) = (event for event in board.events("notice") if "slowed down" in event["message"])
    assert said["message"] == "this board is slowed down: under-voltage, throttled" and "doctor" in said["hint"]
