"""A refusal that comes before a large body is heard by a board, directly and through proxies."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from aggregator.http.guard import connection
from edge_client.network.api import Api
from edge_client.network.errors import UnknownCredentialError
from edge_client.network.retry import Backoff
from edge_client.network.transport import Transport
from tests.aggregator.http.guard.conftest import Door
from tests.aggregator.http.test_reverse_proxy import PROXIES

BODY_BYTES = 8 << 20
"""More than what sockets and proxies hold."""


async def at_once(_: float) -> None:
    """A pause that is none."""


@pytest.fixture
async def door(open_door: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    """A server that lingers as long as it does for boards."""
    lingers_s = connection.LINGER_S
    server: Door = await open_door()
    monkeypatch.setattr(connection, "LINGER_S", max(1.0, lingers_s))
    yield server


@pytest.mark.slow
@pytest.mark.parametrize("way", ["directly", *PROXIES])
async def test_a_board_hears_that_its_credential_is_not_known(door: Door, tmp_path: Path, way: str) -> None:
    """401 while megabytes are on their way: it is heard, and they are not sent again and again."""
    body = tmp_path / "profile"
    body.write_bytes(bytes(BODY_BYTES))
    async with AsyncExitStack() as stack:
        if way == "directly":
            transport = Transport(f"http://127.0.0.1:{door.port}", credential="of another server")
        elif shutil.which(way) is None:
            pytest.skip(f"{way} is not installed")
        else:
            proxy = await stack.enter_async_context(PROXIES[way](tmp_path, door.port))
            transport = proxy.transport("of another server")
        await stack.enter_async_context(transport)

        for number in range(1, 4):
            with pytest.raises(UnknownCredentialError):
                await Api(transport, lambda **_: Backoff(attempts=2, sleep=at_once)).upload(1, body)
            assert transport.traffic.up_bytes <= number * BODY_BYTES, "a body was sent again"

    # nginx may end the connection before a client that is writing has read the answer: then the next call, which asks
    # how much is there and has no body, hears it.
    assert door.count("login") == 3 or (way == "nginx" and 3 < door.count("login") <= 6)
