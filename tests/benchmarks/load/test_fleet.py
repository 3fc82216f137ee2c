"""A fleet in small: everything that it counts happens, and what is lost would be seen."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import aiohttp
import pytest

from benchmarks.load.board import Sent
from benchmarks.load.calls import RECEIPT, TASK, Calls, call_name, is_timeout
from benchmarks.load.fleet import Setting, measure_fleet, recorded_in
from benchmarks.load.table import call_table, fleet_table
from edge_client.errors import ClientError
from edge_client.network.errors import GoneError, ThrottledError, Unavailable
from edge_client.network.translate import translate

URL = "http://192.0.2.7:1"


@pytest.mark.slow
def test_a_fleet_of_four_loses_nothing() -> None:
    """Real sockets and TLS, one round: every board's profile and update is acknowledged and recorded."""
    row = measure_fleet(Setting(boards=4, rounds=1))

    assert (row["boards"], row["acknowledged"], row["recorded"], row["lost"]) == (4, 8, 8, 0)
    assert (row["refused"], row["timeouts"], row["errors"], row["rounds_merged"]) == (0, 0, 0, 1)
    assert row["calls"]["enrol"] == row["calls"][TASK] / 4 == row["calls"][RECEIPT] / 2 == 4
    assert row["calls"]["upload"] == row["calls"]["adapter"] == 8  # updates and profiles; to train, to evaluate
    assert set(row["p99_s"]) == set(row["calls"])
    assert 0 < row["cpu_s_per_update"] < row["cpu_s"] and row["peak_mib"] > row["idle_mib"] > 0
    assert "| 4 | 8 | 8 | 0 | 0 | 0 |" in fleet_table([row])[2]
    assert len(call_table(row)) == 2 + len(row["calls"])


def test_what_a_database_lacks_is_lost(tmp_path: Path) -> None:
    """Only accepted uploads with the same digest count as recorded."""
    database = sqlite3.connect(tmp_path / "braid.db")
    for table in ("updates (round, ", "profiles ("):
        database.execute(f"CREATE TABLE {table}device, digest, accepted)")
    database.execute("CREATE TABLE history (version)")
    database.executemany("INSERT INTO updates VALUES (?, ?, ?, ?)", [(1, "a", "x", 1), (1, "b", "y", 0)])
    database.executemany("INSERT INTO profiles VALUES (?, ?, ?)", [("a", "z", 1)])
    database.executemany("INSERT INTO history VALUES (?)", [(1,), (2,), (3,)])
    database.commit()
    database.close()

    recorded, merged = recorded_in(tmp_path / "braid.db")

    assert recorded == {Sent("a", 1, "x"), Sent("a", 0, "z")}
    assert merged == 2
    assert {Sent("a", 1, "x"), Sent("b", 1, "y"), Sent("a", 0, "other")} - recorded == {
        Sent("b", 1, "y"),
        Sent("a", 0, "other"),
    }


@pytest.mark.parametrize(
    "cause", [aiohttp.SocketTimeoutError(), aiohttp.ConnectionTimeoutError(), asyncio.TimeoutError()]
)
def test_the_clients_own_timeouts_are_told_apart(cause: Exception) -> None:
    """As the client's transport raises them; a refusal to connect is another error, and 429 none."""
    calls = Calls()

    calls.failed("upload", _raised(cause))
    calls.failed("upload", _raised(ConnectionRefusedError()))
    calls.failed("run", ThrottledError("too many"))
    calls.failed("upload", GoneError("over"))

    assert is_timeout(_raised(cause))
    assert (calls.timeouts.total(), calls.throttled.total(), calls.errors.total()) == (1, 1, 2)


def _raised(cause: Exception) -> ClientError:
    """The error that the transport makes of it."""
    try:
        raise translate(cause, URL, None) from cause
    except Unavailable as error:
        return error


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/work", "long poll"),
        ("GET", "/v1/uploads/12", "receipt"),
        ("PATCH", "/v1/uploads/0", "upload"),
        ("GET", "/v1/adapters/3", "adapter"),
        ("GET", "/elsewhere", "GET /elsewhere"),
    ],
)
def test_calls_have_names(method: str, path: str, name: str) -> None:
    assert call_name(method, path) == name
