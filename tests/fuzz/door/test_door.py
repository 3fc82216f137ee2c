"""A door with faults planted behind it: each is found, and without them nothing is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.http.handlers import operator, tasks
from aggregator.run import long_polls
from fuzz.contract import BrokenError
from fuzz.door import door as module
from fuzz.door.door import Door, statuses
from fuzz.door.fleet import HONEST
from fuzz.door.template import BOARD, NEXT, OPERATOR
from fuzz.targets.requests import NO_LIMITS
from fuzz.tiny_base import write_tiny_base
from wire.limits import MAX_LONG_POLL_S

STATUS = f"GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}\r\n\r\n".encode()
WORK = f"GET /v1/work HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {BOARD}\r\n\r\n".encode()
LEAVE = f"DELETE /v1/device HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {BOARD}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One for all tests here, which leave it as it was."""
    folder = tmp_path_factory.mktemp("door")
    write_tiny_base(folder / "base")
    door = Door(folder, folder / "base", NO_LIMITS, trains=True)
    door.open()
    yield door
    door.close()


def test_the_servers_times_are_its_own_again(tmp_path: Path) -> None:
    """A door shortens long polls while it is open."""
    write_tiny_base(tmp_path / "base")
    door = Door(tmp_path, tmp_path / "base", NO_LIMITS, trains=False)
    door.open()
    shortened = vars(long_polls)["MAX_LONG_POLL_S"]
    door.close()

    assert shortened == module.SHORT_S
    assert vars(long_polls)["MAX_LONG_POLL_S"] == MAX_LONG_POLL_S


def test_answers_and_their_absence(door: Door) -> None:
    """Statuses of all answers on a connection; a request that is not whole is no hang, for nobody waits for more."""
    assert door.check(STATUS + NEXT + WORK) == "200 200"
    assert door.check(b"GET / HT") == "no answer"
    assert door.check(b"POST /v1/reports HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab") == "401"
    assert door.check(b"\x16\x03\x01\x00\xa5") == "400"


def test_a_500_is_found_with_its_place(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback of the server's log comes with it."""

    def fail(_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(operator, "describe", fail)
    with pytest.raises(BrokenError, match="RuntimeError: a bug") as broken:
        door.check(STATUS)
    assert broken.value.kind == "500"
    assert broken.value.where == "RuntimeError tests/fuzz/door/test_door.py fail"


def test_a_traceback_in_the_log_is_found(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the answer is right."""
    describe = operator.describe

    def complain(run: Any) -> Any:
        logging.getLogger("asyncio").error("Task exception was never retrieved")
        return describe(run)

    monkeypatch.setattr(operator, "describe", complain)
    with pytest.raises(BrokenError, match="never retrieved") as broken:
        door.check(STATUS)
    assert broken.value.kind == "traceback"


def test_a_handler_that_never_answers_is_found(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is whole has to be answered."""
    begun = asyncio.Event()

    async def wait(*_: Any) -> None:
        begun.set()
        await asyncio.sleep(0.3)

    monkeypatch.setattr(tasks, "_came", wait)
    monkeypatch.setattr(module, "GIVE_UP_S", 0.1)
    with pytest.raises(BrokenError, match="did not come") as broken:
        door.check(WORK)
    assert broken.value.kind == "hang" and begun.is_set()


def test_what_an_input_uses_up_is_made_good(door: Door) -> None:
    """A board that has left is a member again for the next input."""
    assert door.check(LEAVE) == "204"
    assert door.check(WORK) == "401"

    door.rest()

    assert door.check(WORK) == "200"


def test_an_honest_board_that_is_not_served_is_found(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever inputs do, the others' credentials are good."""
    monkeypatch.setattr(module, "EVERY_INPUTS", 1)
    door.rest()

    monkeypatch.setattr(module, "HONEST", f"not {HONEST}")

    with pytest.raises(BrokenError, match="honest board"):
        door.rest()


def test_words_that_an_answer_quotes_are_no_answer() -> None:
    """A request may name a status."""
    answer = b"HTTP/1.1 400 Bad Request\r\nServer: Braid\r\n\r\nthere is no 'HTTP/1.1 500 x'"

    assert statuses(answer) == ["400"]
