"""A file system that is really full under the real command: a small tmpfs in a mount namespace of the test's own."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from aggregator.store.folder import Folder
from tests.aggregator.conftest import Server

pytestmark = pytest.mark.slow

SIZE_BYTES = 3 << 20
STEP_BYTES = 8 << 10
"""Room that is made at a time: less than a version takes, and more than an update."""


@dataclass
class SmallDisk:
    """A tmpfs that only processes in its namespace see, and this one by way of /proc."""

    holder: subprocess.Popen[bytes]
    inside: Path

    @property
    def outside(self) -> Path:
        return Path(f"/proc/{self.holder.pid}/root{self.inside}")

    @property
    def _filling(self) -> Path:
        return self.outside / "filling"

    def fill(self) -> None:
        """Write until there is no room at all."""
        with self._filling.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def make_room(self, n_bytes: int | None = None) -> None:
        size = self._filling.stat().st_size
        with self._filling.open("r+b") as file:
            file.truncate(0 if n_bytes is None else max(0, size - n_bytes))

    def run(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """A process on this disk."""
        enter = ["nsenter", "-t", str(self.holder.pid), "-U", "-m", "--preserve-credentials"]
        with log.open("ab") as file:
            return subprocess.Popen([*enter, *arguments], stdout=file, stderr=file)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    inside = tmp_path / "disk"
    inside.mkdir()
    script = f"mount -t tmpfs -o size={SIZE_BYTES} tmpfs {inside} && echo mounted && exec sleep 600"
    try:
        holder = subprocess.Popen(["unshare", "-rm", "sh", "-c", script], stdout=subprocess.PIPE)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here")
    assert holder.stdout is not None
    with holder:
        if holder.stdout.readline() != b"mounted\n":
            pytest.skip("this machine lets nobody mount a file system of their own")
        yield SmallDisk(holder, inside)
        holder.kill()


class Served:
    """The real command on the small disk."""

    def __init__(self, disk: SmallDisk, log: Path) -> None:
        self._disk, self._log = disk, log
        self.folder = Folder(disk.outside)

    def start(self, port: int = 0) -> int:
        """Start it; the port, once it listens."""
        self.folder.address.unlink(missing_ok=True)
        command = [sys.executable, "-m", "aggregator.cli", "serve", str(self._disk.inside), "--port", str(port)]
        self.process = self._disk.run(*command, log=self._log)
        for _ in range(600):
            assert self.process.poll() is None, self._log.read_text()
            if "listening on" in self._log.read_text() and (port or self.folder.address.exists()):
                break
            time.sleep(0.05)
        return port or int(json.loads(self.folder.address.read_text())["url"].rpartition(":")[2])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._log.unlink()


@pytest.fixture
def served(small_disk: SmallDisk, make_folder: Any, tmp_path: Path) -> Iterator[Served]:
    settings = {"train.targets": ["q", "k", "v", "o"], "merge.max_rank": 2, "merge.server_rank": 32}
    made: Folder = make_folder(settings)
    for path in made.root.iterdir():
        (small_disk.outside / path.name).write_bytes(path.read_bytes())
    server = Served(small_disk, tmp_path / "log")
    yield server
    server.process.kill()
    server.process.wait()


async def test_a_server_on_a_full_disk_waits_for_room(
    served: Served, small_disk: SmallDisk, begin_training: Any
) -> None:
    """Boards are told 507; with room for an update and none for a version the round waits; killed meanwhile, it is
    served again, and merges when there is room."""
    port = served.start()
    async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{port}") as session:
        folder = served.folder
        server = Server(
            cast(Any, None), cast(Any, session), folder.secret(folder.operator_token), folder.secret(folder.join_token)
        )
        boards = [await server.board(name) for name in ("a", "bo")]
        tasks = await begin_training(boards)
        await boards[0].train(tasks[0])
        body = boards[1].update(tasks[1])

        small_disk.fill()
        status, refusal, _ = await boards[1].patch(1, body)
        assert (status, refusal.code) == (507, "full")
        assert "disk is full" in refusal.message and "room" in refusal.hint
        n_rooms = 0
        while status != 202:
            small_disk.make_room(STEP_BYTES)
            status, n_rooms = await sent(boards[1], body), n_rooms + 1
            assert n_rooms < 20
        warning = await warned(server)
        assert "full" in warning and served.process.poll() is None

        served.kill()
        small_disk.fill()
        served.start(port)
        assert "full" in await warned(server)

        small_disk.make_room()
        assert (await boards[0].work(wait_s=30, after=1)).spec.round == 2
        facts = await server.status()
        assert facts["rounds"][0]["accepted"] == 2 and not facts["run"]["warnings"]


async def sent(board: Any, body: bytes) -> int:
    """The status of what is sent from where the server is."""
    headers = {**board.headers, "Upload-Digest": hashlib.sha256(body).hexdigest()}
    async with board.client.head("/v1/uploads/1", headers=headers) as response:
        offset = int(response.headers["Upload-Offset"])
    return int((await board.patch(1, body, offset=offset))[0])


async def warned(server: Server) -> str:
    """The warning of a server that waits for its disk."""
    for _ in range(200):
        facts = await server.status()
        if warnings := [text for text in facts["run"]["warnings"] if "waits for its disk" in text]:
            return str(warnings[0])
        await asyncio.sleep(0.05)
    raise TimeoutError(str(facts))
