"""The idle benchmarks in small: real processes, few polls and rounds."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from benchmarks.idle.__main__ import measure_idle
from benchmarks.idle.line import CountedLine
from benchmarks.idle.rounds import Told, measure_rounds, parts_of


@pytest.mark.slow
async def test_a_client_and_a_server_that_wait() -> None:
    """Two polls of a second: what went over the line is counted, and both processes were there."""
    found = await measure_idle(2, tls=True, liveness_s=2.0, without_worker=False)

    assert found["polls"] == 2 and found["seconds"] >= 1.0
    assert 200 < found["bytes_per_poll"] < 20_000
    assert found["bytes_a_day"] == pytest.approx(found["bytes_per_poll"] * 86_400 / found["poll_s"])
    for name in ("client", "server"):
        assert 10 < found[name]["pss_mib"] <= found[name]["rss_mib"] < 200


@pytest.mark.slow
async def test_rounds_of_three_boards() -> None:
    """Every round but the last is told apart, and its parts are no longer than the whole."""
    rounds = await measure_rounds(4)

    assert [row["round"] for row in rounds] == [1, 2, 3]
    for row in rounds:
        assert 0 < row["steps_s"] < row["whole_s"]
        assert row["beyond_s"] == pytest.approx(row["whole_s"] - row["steps_s"])
        assert row["encode_s"] >= 0 < row["fetch_s"]


async def test_a_line_counts_both_ways() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        writer.write(b"1234567")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, CountedLine(server.sockets[0].getsockname()[1]) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"hello")
        assert await reader.read() == b"1234567"
        writer.close()

    assert (line.counts.up_bytes, line.counts.down_bytes, len(line.counts.requests_at)) == (5, 7, 1)
    line.counts.clear()
    assert (line.counts.up_bytes, line.counts.down_bytes, line.counts.requests_at) == (0, 0, [])


def test_parts_of_a_round() -> None:
    """From the first that hears of a round to the first that hears of the next, with the parts of the last to end."""
    times = [{"fetch": 10.0, "train": 11.0, "upload": 14.0, "round_done": 15.0}]
    times.append({"fetch": 10.5, "train": 11.5, "upload": 17.0, "round_done": 18.0})
    told = [Told(defaultdict(dict, {1: at, 2: {"fetch": 20.0 + i}})) for i, at in enumerate(times)]
    for board, steps_s in zip(told, (2.5, 2.0), strict=True):
        board.numbers[1] = {"seconds": steps_s, "encode_s": 1.0}

    assert parts_of(1, told) == {
        "round": 1.0,
        "whole_s": 10.0,
        "beyond_s": 7.5,
        "steps_s": 2.5,
        "fetch_s": 1.5,
        "encode_s": 1.0,
        "worker_rest_s": 2.5,
        "upload_s": 1.0,
        "merge_s": 2.0,
    }
