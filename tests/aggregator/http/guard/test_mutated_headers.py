"""Requests with headers of every kind of nonsense: each is answered or ended, and none is a fault of ours."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from aggregator.http.app import HANDLERS
from aggregator.http.guard.buckets import Rate
from fuzz.door.mutations import with_headers
from tests.aggregator.http.guard.conftest import Door, request
from wire.routes import LEAVE

NO_LIMIT = Rate(per_s=1e6, burst=1e6)

REQUESTS = 200
"""Of each seed; a request takes 3 ms, or a tenth of a second where a body is waited for."""

PATHS = ("/v1/adapters/1", "/v1/uploads/1", "/v1/base/config.json", "/v1/base/%ff", "//", "/?part=\xff", "*", "/%00")


@pytest.mark.parametrize("seed", range(4))
async def test_no_header_makes_the_server_fail(open_door: Any, seed: int, caplog: Any) -> None:
    """Never a 500, never a traceback; and afterwards a board is served as before."""
    door = await open_door(
        arrivals=NO_LIMIT, stranger_calls=NO_LIMIT, failed_logins=NO_LIMIT, calls=NO_LIMIT, writes=NO_LIMIT
    )
    credential, drawn = await door.enrol(), random.Random(seed)
    calls = sorted((call.method, call.at("1")) for call in HANDLERS if call is not LEAVE)
    seen: Counter[int] = Counter()
    for _ in range(REQUESTS):
        method, path = drawn.choice(calls)
        path = drawn.choice(PATHS) if drawn.random() < 0.1 else path
        data = mutated(drawn, request(method, path, Authorization=f"Bearer {credential}"))
        seen[await status(door, data)] += 1
        assert seen[500] == 0, data

    assert not [record for record in caplog.records if record.levelname == "ERROR" or record.exc_info]
    assert {200, 400, 401, 404} <= seen.keys(), seen
    served = await door.say(request("GET", "/v1/work?wait=0", Authorization=f"Bearer {credential}"))
    assert served.status == 200


async def status(door: Door, data: bytes) -> int:
    """The status of the answer; 0 where there is none: the connection ends, or a body is waited for."""
    caller = await door.call()
    await caller.send(data)
    try:
        return (await asyncio.wait_for(caller.answer(), 0.1)).status
    except asyncio.TimeoutError:
        return 0
    finally:
        await caller.close()


def mutated(drawn: random.Random, data: bytes) -> bytes:
    """A request with one to three headers put in, replaced, doubled, left out or damaged."""
    return b"\r\n".join(with_headers(data.rstrip(b"\r\n").split(b"\r\n"), drawn)) + b"\r\n\r\n"
