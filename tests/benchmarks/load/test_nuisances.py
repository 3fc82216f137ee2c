"""Nuisances are as large, as many and as rude as they say, and honest times are read right."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.load.nuisances import NUISANCES, OF_A_DEVICE, Target, be, be_elsewhere
from benchmarks.load.times import Times
from wire.limits import MAX_CONTROL_BYTES

pytestmark = pytest.mark.slow  # waits for a server's time limits


@pytest.mark.parametrize("name", sorted(set(NUISANCES) - OF_A_DEVICE))
async def test_a_nuisance_opens_connections_and_comes_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a server that hears a little and hangs up."""
    heard: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(b"" if name == "silent" else await reader.read(1 << 20))
        writer.close()

    session, _ = NUISANCES[name]
    monkeypatch.setattr("benchmarks.load.nuisances.NUISANCES", {name: (session, 3)})
    monkeypatch.setattr("benchmarks.load.nuisances.PAUSE_S", 0.01)
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        attack = asyncio.ensure_future(be(name, Target("127.0.0.1", port), 30))
        while len(heard) < 7:  # noqa: ASYNC110 - the nuisance comes at its own pace
            await asyncio.sleep(0.005)
        attack.cancel()

    assert all(heard) != (name == "silent")


@pytest.mark.parametrize("name", ["garbage", "logins"])
async def test_the_control_bothers_nobody_but_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It calls a port of its own, is refused there, and comes again."""
    session, _ = NUISANCES[name]
    called: list[int] = []

    async def counted(target: Target, number: int) -> None:
        called.append(target.port)
        await session(target, number)

    monkeypatch.setattr("benchmarks.load.nuisances.NUISANCES", {name: (counted, 3)})
    for constant in ("PAUSE_S", "LINGER_S"):
        monkeypatch.setattr(f"benchmarks.load.nuisances.{constant}", 0.01)

    control = asyncio.ensure_future(be_elsewhere(name, Target("127.0.0.1", 9), 30))
    while len(called) < 7:  # noqa: ASYNC110 - it comes at its own pace
        await asyncio.sleep(0.005)
    control.cancel()
    await asyncio.gather(control, return_exceptions=True)

    assert 9 not in called and len(set(called)) == 1


def test_a_request_has_what_it_says() -> None:
    head = Target("x", 1, "secret").head("POST", "/v1/reports", MAX_CONTROL_BYTES).decode()

    assert head.startswith("POST /v1/reports HTTP/1.1\r\n") and head.endswith("\r\n\r\n")
    assert f"Content-Length: {MAX_CONTROL_BYTES}" in head and "Authorization: Bearer secret" in head
    assert b"Authorization" not in Target("x", 1).head("GET", "/healthz")


def test_percentiles_are_of_what_was_answered() -> None:
    times = Times([float(number) for number in range(100, 0, -1)], errors=7)

    assert (times.percentile(50), times.percentile(99), times.longest, times.median) == (51.0, 100.0, 100.0, 50.5)
    assert Times().percentile(99) == Times().longest == Times().median == 0.0
