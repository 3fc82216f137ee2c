"""Requests with headers of every kind of nonsense: each is answered or ended, and none is a fault of ours."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from aggregator.http.app import HANDLERS
from aggregator.http.guard.buckets import Rate
from tests.aggregator.http.guard.conftest import Door, request
from wire.codec import CONTENT_TYPE
from wire.routes import LEAVE

NO_LIMIT = Rate(per_s=1e6, burst=1e6)

REQUESTS = 200
"""Of each seed; a request takes 3 ms, or a tenth of a second where a body is waited for."""

VALUES = (
    *(
        "",
        " ",
        "\xe9",
        "\xff\xfe",
        "\x7f",
        "%00",
        "%ff",
        "None",
        "-1",
        "0",
        "1e9",
        "9" * 400,
        "x" * 8000,
        '"',
        "*",
        ",",
    ),
    *("Basic", "Basic ", "Basic \xe9", "Basic " + "A" * 900, "Basic Ojo6", "Bearer", "Bearer \xff", "Bearer a b"),
    *(CONTENT_TYPE.replace("v=1", "v=\xff"), CONTENT_TYPE + "; v=2", "application/vnd.braid+msgpack;v", "a/b;c;d=;=e"),
    *("bytes=0-", "bytes=-1", "bytes=9-1", "bytes=1-2,3-4", "bytes=\xe9-", 'W/"x"', '"' * 99, "identity;q=0"),
    *("gzip", "chunked", "chunked, chunked", "100-continue", "websocket", "upgrade", "close", "keep-alive, upgrade"),
)

NAMES = (
    *("Authorization", "Accept", "Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type"),
    *(
        "Cookie",
        "Expect",
        "Host",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "Range",
        "TE",
        "Upgrade",
    ),
    *("Sec-WebSocket-Key", "Transfer-Encoding", "Upload-Digest", "Upload-Length", "Upload-Offset", "X-Forwarded-For"),
)

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
    line, *headers = data.rstrip(b"\r\n").split(b"\r\n")
    for _ in range(drawn.randint(1, 3)):
        header = f"{drawn.choice(NAMES)}: {drawn.choice(VALUES)}".encode("latin-1")
        where = drawn.randrange(len(headers) + 1)
        match drawn.randrange(5):
            case 0:
                headers.insert(where, header)
            case 1:
                name = header.partition(b":")[0]
                headers = [header if each.startswith(name) else each for each in headers]
            case 2 if headers:
                headers.append(drawn.choice(headers))
            case 3 if headers:
                headers.pop(where % len(headers))
            case _ if headers:
                damaged = bytearray(headers[where % len(headers)])
                damaged[drawn.randrange(len(damaged))] = drawn.randrange(256)
                headers[where % len(headers)] = bytes(damaged)
    return b"\r\n".join([line, *headers]) + b"\r\n\r\n"
