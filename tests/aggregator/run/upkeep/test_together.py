"""Writes of many boards share one promise of the disk, and each is there before its board hears of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from aggregator.errors import CallError, DiskError
from aggregator.run.setup import Opened, open_run
from aggregator.run.upkeep.short_writes import ShortWrites
from aggregator.run.upkeep.together import Together
from aggregator.store.folder import Folder
from tests.fakes.clock import FakeClock
from wire.messages import Report
from wire.routes import PROFILING

N_BOARDS = 12


@pytest.fixture
def opened(make_folder: Callable[..., Folder], clock: FakeClock) -> Iterator[Opened]:
    """A run that waits for more boards than there are here."""
    made = open_run(make_folder({"rounds.min_devices": 100, "rounds.quorum": 100}), clock)
    yield made
    made.store.close()


async def enrolled(opened: Opened) -> list[str]:
    submissions = opened.run.submissions
    return [(await submissions.enrol(f"{i:032x}", f"b{i}", f"{i:064x}")).device for i in range(N_BOARDS)]


def counted(opened: Opened, monkeypatch: pytest.MonkeyPatch, method: str) -> list[int]:
    """How many were written by each call of a method of the store."""
    sizes: list[int] = []
    original = getattr(opened.store, method)

    def watched(items: Sequence[Any]) -> Any:
        sizes.append(len(items))
        return original(items)

    monkeypatch.setattr(opened.store, method, watched)
    return sizes


async def send(opened: Opened, device: str, body: bytes, round_id: int = PROFILING) -> None:
    digest = hashlib.sha256(body).hexdigest()
    part = opened.uploads.take(device, round_id, digest, 0)
    part.append(body)
    await opened.run.submissions.receive(device, round_id, digest, part)
    part.release()


async def until_waiting(opened: Opened, count: int) -> None:
    """Return when so many uploads wait to be stored; fail after a while."""
    for _ in range(2000):
        if len(opened.run.submissions._arrivals._waiting.items) == count:
            return
        await asyncio.sleep(0.005)
    pytest.fail("they do not come")


async def test_uploads_that_wait_for_each_other_are_stored_in_one_go(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few transactions for a dozen boards, and every upload is stored and waits to be judged."""
    devices = await enrolled(opened)
    sizes = counted(opened, monkeypatch, "add_received")

    async with opened.run.short_writes:  # somebody writes, while all of them come
        sending = [asyncio.ensure_future(send(opened, device, device.encode())) for device in devices]
        await until_waiting(opened, N_BOARDS)
    await asyncio.gather(*sending)

    assert sizes == [N_BOARDS]
    assert {received.device for received in opened.store.received()} == set(devices)
    assert all(opened.run.inbox.of(device) for device in devices)


async def test_one_that_is_not_wanted_holds_up_nobody(opened: Opened) -> None:
    """An upload for a round that is not open is refused alone; those beside it are taken in."""
    first, second, *_ = await enrolled(opened)

    async with opened.run.short_writes:
        sending = [
            asyncio.ensure_future(send(opened, first, b"late", round_id=7)),
            asyncio.ensure_future(send(opened, second, b"in time")),
        ]
        await until_waiting(opened, 2)
    late, in_time = await asyncio.gather(*sending, return_exceptions=True)

    assert isinstance(late, CallError) and late.code == "gone" and in_time is None
    assert [received.device for received in opened.store.received()] == [second]


async def test_reports_of_many_boards_are_stored_in_one_go(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = await enrolled(opened)
    sizes = counted(opened, monkeypatch, "put_reports")

    async with opened.run.short_writes:
        reports = [opened.run.submissions.report(device, Report(kind="plan", text="nf4")) for device in devices]
        telling = [asyncio.ensure_future(report) for report in reports]
        await asyncio.sleep(0)
    await asyncio.gather(*telling)

    assert sizes == [N_BOARDS]
    assert {stored.device for stored in opened.store.reports()} == set(devices)


async def test_a_disk_that_refuses_is_told_to_all_that_wait() -> None:
    """None of them is told that it was written; who comes later is written."""
    written: list[Sequence[int]] = []

    async def write(items: Sequence[int]) -> None:
        if 1 in items:
            raise OSError(28, "No space left on device")
        written.append(tuple(items))

    turns = ShortWrites()
    together = Together(turns, write)
    async with turns:
        waiting = [asyncio.ensure_future(together.put(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    await together.put(4)

    assert [type(result) for result in results] == [OSError, DiskError, DiskError]
    assert written == [(4,)]


async def test_who_comes_while_others_are_written_is_written_next() -> None:
    written: list[Sequence[int]] = []
    goes_on = asyncio.Event()

    async def write(items: Sequence[int]) -> None:
        await goes_on.wait()
        written.append(tuple(items))

    together = Together(ShortWrites(), write)
    first = asyncio.ensure_future(together.put(1))
    await asyncio.sleep(0)
    later = [asyncio.ensure_future(together.put(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    goes_on.set()
    await asyncio.gather(first, *later)

    assert written == [(1,), (2, 3)]
