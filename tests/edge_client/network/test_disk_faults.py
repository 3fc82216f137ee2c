"""Disks that fail in the middle of a transfer: said, waited for, and nothing is lost or sent twice."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from edge_client.errors import disk_errors
from edge_client.network import transfer
from tests.edge_client.network.test_faults import assert_once


@pytest.mark.slow
async def test_a_full_disk_is_told_and_damages_nothing(
    board: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC while the adapter arrives, three times: the client says so, waits ever longer, and goes on by itself."""
    append = transfer._Part.append
    fired = []

    def full(self: Any, chunk: bytes) -> None:
        if len(fired) == 3:
            append(self, chunk)
            return
        fired.append(self.path)
        with disk_errors(self.path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer._Part, "append", full)

    await board.join()

    assert len(fired) == 3
    assert [delay_s for delay_s in board.slept_s if delay_s][:3] == [1, 3, 7]
    said = [event for event in board.events("notice") if "no space left for" in event["message"]]
    assert len(said) == 1 and "free some space" in said[0]["hint"]
    told = [report.text for report in server.reports if report.kind == "event"]
    assert [text.partition(":")[0] for text in told] == [
        "its disk is full, or cannot be written",
        "what was in its way is mended",
    ]
    assert_once(server)
    assert server.requests.count("POST /v1/devices") == 1, "the identity survived"


@pytest.mark.slow
async def test_a_result_that_the_disk_does_not_give_is_no_outage(
    board: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO in the middle of an upload: the disk is named, not the network; the upload goes on when it reads again."""
    blocks, fired = transfer.file_blocks, []

    async def failing(traffic: Any, source: Path, offset_bytes: int = 0) -> Any:
        async for block in blocks(traffic, source, offset_bytes):
            yield block[:10]
            if len(fired) < 2:
                fired.append(source.name)
                with disk_errors(source):
                    raise OSError(errno.EIO, "Input/output error")
            yield block[10:]

    monkeypatch.setattr(transfer, "file_blocks", failing)

    await board.join()

    assert len(fired) == 2 and not any("broke" in event["message"] for event in board.events("offline"))
    (said,) = (event for event in board.events("notice") if "its disk fails" in event["message"])
    assert "replace the card" in said["hint"]
    assert_once(server)
