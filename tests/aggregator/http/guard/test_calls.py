"""How often strangers, boards and whoever guesses may call."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from aggregator.downloads.adapters import Adapters
from aggregator.http.guard.buckets import Rate
from aggregator.report.tables import status_text
from tests.aggregator.http.guard.conftest import Door, enrolment, request
from tests.fakes.clock import FakeClock
from wire.codec import encode
from wire.messages import Prove, Report

FEW = Rate(per_s=1.0, burst=3.0)


def login(credential: str, path: str = "/v1/work?wait=0") -> bytes:
    return request("GET", path, Authorization=f"Bearer {credential}")


async def test_whoever_guesses_is_slowed_down(open_door: Any, clock: FakeClock) -> None:
    """429 with a time, without a look at the credential; a board behind the same router is not held up."""
    door = await open_door(failed_logins=FEW)
    credential = await door.enrol()
    assert (await door.say(login(credential))).status == 200

    statuses = [(await door.say(login(f"guess-{number}"))).status for number in range(5)]
    refused = await door.say(login("guess-5"))

    assert statuses == [401, 401, 401, 429, 429]
    assert refused.headers["retry-after"] == "1" and refused.refusal.code == "busy"
    assert (await door.say(login(credential))).status == 200
    clock.advance(1.0)
    assert (await door.say(login("guess-6"))).status == 401
    assert door.count("login") == 4 and door.count("too_many") == 3


@pytest.mark.parametrize(
    "header", ["Bearer wrong", "Basic d3Jvbmc=", "Basic \xe9", "Basic \xff\xff", "Bearer \xe9", "nonsense", "Basic ="]
)
async def test_a_failed_login_is_counted_and_told(door: Door, header: str, caplog: Any) -> None:
    """With the address, whatever stands in the header: `Basic é` was a 500 with a traceback."""
    for path in ("/v1/status", "/", "/metrics"):
        expected = 401 if header.isascii() else 400
        assert (await door.say(request("GET", path, Authorization=header))).status == expected
    assert (await door.say(request("GET", "/v1/run", Authorization=header))).status == 401

    assert door.count("login") == 4
    assert "4 failed logins from 127.0.0.1" in list(door.guard.watch())
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


async def test_a_wrong_join_token_is_a_failed_login(door: Door) -> None:
    assert (await door.say(request("POST", "/v1/devices", enrolment("wrong")))).status == 401

    assert door.count("login") == 1


async def test_strangers_call_now_and_then(open_door: Any, clock: FakeClock) -> None:
    """Probes, proofs, calls that there are not: all that needs no credential. A fleet enrols all the same."""
    door = await open_door(stranger_calls=FEW)
    proof = encode(Prove(protocol=1, device="ada", nonce="0" * 64))
    for number in range(10):
        await door.enrol(number)

    for data in (request("GET", "/healthz"), request("POST", "/v1/proofs", proof), request("GET", "/nothing")):
        assert (await door.say(data)).status in (200, 404)
    assert (await door.say(request("GET", "/healthz"))).status == 429
    assert (await door.say(request("POST", "/v1/devices", enrolment(door.token)))).status == 429
    assert (await door.say(request("GET", "/v1/run"))).status == 429

    clock.advance(2.0)
    assert (await door.say(request("GET", "/healthz"))).status == 200


async def test_a_board_calls_as_often_as_any_board_does(open_door: Any, clock: FakeClock) -> None:
    """More is told when to come again; other boards are not held up."""
    door = await open_door(calls=FEW)
    ada, bo = await door.enrol(1), await door.enrol(2)

    assert [(await door.say(login(ada))).status for _ in range(4)] == [200, 200, 200, 429]
    assert (await door.say(login(bo))).status == 200
    clock.advance(1.0)
    assert (await door.say(login(ada))).status == 200


async def test_a_call_too_many_is_refused_before_it_is_looked_up(
    open_door: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is asked for nobody who has called too often."""
    door = await open_door(calls=FEW)
    credential = await door.enrol()
    asked: list[str] = []
    look = door.opened.store.device_of

    def device_of(credential_hash: str) -> Any:
        asked.append(credential_hash)
        return look(credential_hash)

    monkeypatch.setattr(door.opened.store, "device_of", device_of)
    statuses = [(await door.say(login(credential))).status for _ in range(9)]

    assert statuses == 3 * [200] + 6 * [429] and len(asked) == 3
    clock.advance(1.0)
    assert (await door.say(login(credential))).status == 200


async def test_one_board_cannot_fill_the_log(open_door: Any, clock: FakeClock) -> None:
    """Events beyond the first few are refused with a time, and what others say stays on the page."""
    door = await open_door(notes=FEW)
    ada, bo = await door.enrol(1), await door.enrol(2)

    def event(credential: str, text: str) -> bytes:
        body = encode(Report(kind="event", text=text))
        return request("POST", "/v1/reports", body, Authorization=f"Bearer {credential}")

    assert (await door.say(event(bo, "memory ran short"))).status == 204
    statuses = [(await door.say(event(ada, f"look at me {number}"))).status for number in range(50)]

    assert statuses.count(204) == 3 and statuses.count(429) == 47
    assert sum("look at me" in text for text in door.opened.run.events) == 3
    assert any("memory ran short" in text for text in door.opened.run.events)
    clock.advance(1.0)
    assert (await door.say(event(ada, "again"))).status == 204


async def test_an_evaluation_is_told_once(door: Door) -> None:
    """It may be sent again and again, and replaces the one before."""
    credential = await door.enrol()
    for loss in (3.0, 2.0, 1.0):
        body = encode(Report(kind="evaluation", version=0, values={"loss": loss, "n_examples": 5.0}))
        sent = await door.say(request("POST", "/v1/reports", body, Authorization=f"Bearer {credential}"))
        assert sent.status == 204

    told = [text for text in door.opened.run.events if "held-out loss" in text]
    assert len(told) == 1 and next(iter(door.opened.run.boards)).losses[0]["loss"] == 1.0


class TestInventedRanks:
    async def test_a_device_gets_so_much_computing(
        self, start: Any, make_folder: Any, begin_training: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was made is there for everybody; new cuts wait until time has paid for the last ones."""
        server = await start(make_folder())
        ada, bo = await server.board("ada"), await server.board("bo")
        await begin_training([ada, bo])
        spent = iter([8.0, 8.0, 8.0])
        monkeypatch.setattr("aggregator.downloads.adapters.time.thread_time", Ticks(spent))

        async def asked(board: Any, rank: int) -> int:
            ranks = ".".join([str(rank)] * len(board.info.weights))
            async with server.client.get(f"/v1/adapters/1?ranks={ranks}", headers=board.headers) as response:
                await response.read()
                return int(response.status)

        assert [await asked(ada, rank) for rank in (1, 2, 3)] == [200, 200, 429]
        assert await asked(ada, 1) == 200 and await asked(bo, 3) == 200 and await asked(ada, 3) == 200
        clock.advance(59.0)
        assert await asked(ada, 4) == 429
        clock.advance(2.0)
        monkeypatch.setattr("aggregator.downloads.adapters.time.thread_time", Ticks(iter([1.0])))
        assert await asked(ada, 4) == 200

    async def test_a_cut_that_is_there_waits_for_none_that_is_made(
        self, start: Any, make_folder: Any, begin_training: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = await start(make_folder())
        ada, bo = await server.board("ada"), await server.board("bo")
        await begin_training([ada, bo])
        await ada.adapter(1, 1)
        begun, go_on = threading.Event(), threading.Event()
        made = Adapters._file

        def slowly(*arguments: Any) -> bytes:
            begun.set()
            assert go_on.wait(10)
            return made(*arguments)

        monkeypatch.setattr(Adapters, "_file", slowly)
        invented = asyncio.ensure_future(bo.adapter(1, 2))
        await asyncio.to_thread(begun.wait, 10)

        await asyncio.wait_for(ada.adapter(1, 1), 5)

        assert not invented.done()
        go_on.set()
        await invented


class Ticks:
    """A thread's clock on which each piece of work takes the next of these times."""

    def __init__(self, work: Any) -> None:
        self._work, self._now, self._is_begun = work, 0.0, False

    def __call__(self) -> float:
        if self._is_begun:
            self._now += next(self._work)
        self._is_begun = not self._is_begun
        return self._now


async def test_people_and_their_monitoring_see_the_counts(door: Door) -> None:
    """In status, on the page and in the metrics; a quiet server has nothing to tell."""

    async def asked(path: str) -> str:
        return (await door.say(request("GET", path, Authorization=f"Bearer {door.operator}"))).body.decode()

    assert "turned away" not in await asked("/")
    await door.say(login("guess"))
    await door.say(b"\x00\r\n\r\n")

    metrics = await asked("/metrics")
    assert 'braid_turned_away_total{kind="login"} 1\n' in metrics and 'kind="not_http"} 1\n' in metrics
    assert "# TYPE braid_turned_away_total counter" in metrics and "\nbraid_connections " in metrics
    text = "turned away: 1 requests that were no HTTP; 1 failed logins"
    assert text in await asked("/") and text in status_text(json.loads(await asked("/v1/status")))
