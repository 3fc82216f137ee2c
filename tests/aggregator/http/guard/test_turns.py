"""Turns: a source's crowd of calls holds up nobody else."""

from __future__ import annotations

import asyncio

from aggregator.http.guard.turns import Turns
from tests.aggregator.http.guard.conftest import Caller, Door, request

CROWD = 16
"""Connections of one board: as many as it may have."""


async def begun(turns: Turns, sources: str) -> str:
    """The sources of calls, a letter each, in the order in which the calls begin."""
    order: list[str] = []

    async def call(source: str) -> None:
        await turns.take(source)
        order.append(source)

    await asyncio.gather(*(call(source) for source in sources))
    return "".join(order)


async def test_others_are_not_behind_a_crowd() -> None:
    assert await begun(Turns(2), "aaaaaabcc") == "aabccaaaa"


async def test_all_get_their_turn_in_their_order_and_nothing_is_kept() -> None:
    turns, order = Turns(2), []

    async def call(number: int) -> None:
        await turns.take("a")
        order.append(number)

    calls = [asyncio.create_task(call(number)) for number in range(9)]
    await asyncio.sleep(0)
    calls[4].cancel()  # while it waits: its connection has ended
    await asyncio.gather(*calls, return_exceptions=True)

    assert order == [0, 1, 2, 3, 5, 6, 7, 8]
    await asyncio.sleep(0)
    assert not turns._waiting and not turns._begun
    assert await begun(turns, "ab") == "ab"


async def test_an_honest_call_is_not_behind_all_of_a_crowds(door: Door) -> None:
    """What came together was answered in the order in which it came: two hundred calls of one board that fetches what
    it does not read took a tenth of a second, and every other board waited for them."""
    work = {
        number: request("GET", "/v1/work?wait=0", Authorization=f"Bearer {await door.enrol(number)}")
        for number in (1, 2)
    }
    crowd, honest = [await door.call() for _ in range(CROWD)], await door.call()
    for number, caller in [*((1, each) for each in crowd), (2, honest)]:  # each is known by its credential
        await caller.send(work[number])
        assert (await caller.answer()).status == 200
    answered: list[str] = []

    async def ask(name: str, caller: Caller) -> None:
        assert (await caller.answer()).status == 200
        answered.append(name)

    for caller in crowd:
        caller.writer.write(work[1])
    honest.writer.write(work[2])
    await asyncio.gather(ask("honest", honest), *(ask("crowd", caller) for caller in crowd))

    assert len(answered) == CROWD + 1
    assert answered.index("honest") <= CROWD // 2
