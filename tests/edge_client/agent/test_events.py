"""What a board says when it begins to call its server."""

from __future__ import annotations

from typing import Any

import pytest

from edge_client.agent.console import Console
from edge_client.agent.events import Events


@pytest.mark.parametrize(
    ("server", "is_told"),
    [
        ("http://192.0.2.1:1", True),
        ("http://board.example", True),
        ("https://192.0.2.1:1", False),
        ("http://127.0.0.1:9", False),
        ("http://[::1]:9", False),
        ("http://localhost:9", False),
    ],
)
def test_plain_http_to_another_machine_is_told(board: Any, server: str, is_told: bool) -> None:
    """Before anything is sent, once, with what to do."""
    events = Events(Console(as_json=True, stream=board.output), None, None, None)  # type: ignore[arg-type]

    events.calling(server)

    notices = board.events("notice")
    assert bool(notices) == is_told
    assert all("plain HTTP" in notice["message"] and "https://" in notice["hint"] for notice in notices)


@pytest.mark.slow
async def test_a_board_warns_of_plain_http_when_it_joins(board: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback address is as good as another one here."""
    monkeypatch.setattr("braid_common.loopback.is_loopback", lambda host: False)

    await board.join()

    assert ["plain HTTP" in notice["message"] for notice in board.events("notice")] == [True]
