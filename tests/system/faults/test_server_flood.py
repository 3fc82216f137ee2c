"""A server that the system allows few descriptors, beside more silent connections than that: with the real command."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aggregator.http.guard.limits import Limits
from aggregator.store.folder import Folder

pytestmark = pytest.mark.slow

DESCRIPTORS = 300
CROWD = 600


@pytest.fixture
def served(make_folder: Any) -> Iterator[tuple[Folder, int, subprocess.Popen[bytes]]]:
    """A folder whose server runs, its port, and the process."""
    folder = make_folder()
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (DESCRIPTORS // 2, DESCRIPTORS))
    with (folder.root / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "aggregator.cli", "serve", str(folder.root), "--port", "0"],
            stdout=log,
            stderr=log,
            preexec_fn=limit,
        )
    try:
        port = asyncio.run(asyncio.wait_for(_port(folder, process), 60))
        yield folder, port, process
    finally:
        process.kill()
        process.wait()


async def _port(folder: Folder, process: subprocess.Popen[bytes]) -> int:
    while not folder.address.exists():
        assert process.poll() is None, (folder.root / "log").read_text()
        await asyncio.sleep(0.05)
    return int(json.loads(folder.address.read_text())["url"].rpartition(":")[2])


def status(folder: Folder, port: int) -> dict[str, Any]:
    token = folder.secret(folder.operator_token)
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/status", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        facts: dict[str, Any] = json.load(answer)
    return facts


def test_silent_connections_stop_nobody_and_fill_no_log(
    served: tuple[Folder, int, subprocess.Popen[bytes]], request: pytest.FixtureRequest
) -> None:
    """Twice as many as there are descriptors: calls are answered, the log has a few lines, and the server ends when it
    is told to. It wrote a hundred tracebacks a second, and answered nobody."""
    folder, port, process = served
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CROWD:
        pytest.skip(f"this system allows {hard} descriptors, {2 * CROWD} are needed to be a crowd")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * CROWD), hard))
    request.addfinalizer(partial(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard)))
    with ExitStack() as crowd:
        for _ in range(CROWD):
            crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        facts = [status(folder, port) for _ in range(3)][-1]

        turned_away = {each["kind"]: each["count"] for each in facts["guard"]["turned_away"]}
        assert turned_away["crowd"] + turned_away["silent"] >= CROWD - DESCRIPTORS
        assert facts["guard"]["connections"] <= Limits().within(DESCRIPTORS).connections
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < DESCRIPTORS

    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    log = (folder.root / "log").read_text()
    assert len(log) < 5_000 and "Traceback" not in log
    assert "connections closed to make room for others" in log and "LimitNOFILE" in log
