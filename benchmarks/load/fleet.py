"""A whole run of a fleet: real sockets, the client's own time-outs, a server under the shipped unit's limits."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load.board import Board, Fleet, Sent, live
from benchmarks.load.calls import Calls
from benchmarks.processes.cost import Cost
from benchmarks.processes.server import ServerProcess
from benchmarks.processes.unit import unit_limits

PROGRESS_EVERY_S = 5.0
"""Between two lines that say how far a fleet is."""

JOIN_PER_S = 20.0
"""Boards that enrol in a second: as many as a server lets in from one address without asking for patience."""

MEMORY = Path("/dev/shm")
"""Where boards' files lie where the system has such a place: their disks are not the server's."""

DESCRIPTORS_OF_A_BOARD = 6
"""Connections of one client, and its files."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A run to be made.

    Attributes:
        boards: how many.
        rounds: of training, after the profiles.
        shape: of the base, for people.
        model: what `aggregator init --model` is given.
        tls: whether the server speaks TLS, as the shipped unit's does.
        train_s: seconds of each board's training.
    """

    boards: int
    rounds: int = 2
    shape: str = "builtin"
    model: str = "builtin"
    tls: bool = True
    train_s: float = 0.0

    @property
    def run_settings(self) -> dict[str, str]:
        """The settings of a run in which every board counts in every round; the others are the defaults."""
        return {
            "run.rounds": str(self.rounds),
            "rounds.min_devices": str(self.boards),
            "rounds.quorum": str(self.boards),
            "rounds.deadline_s": "7200.0",
            "rounds.profile_deadline_s": "7200.0",
            "train.max_source_tokens": "192",
            "train.max_target_tokens": "32",
        }


def measure_fleet(setting: Setting) -> dict[str, Any]:
    """Run a fleet to its end; the numbers of the run."""
    _need_descriptors(setting.boards)
    with (
        tempfile.TemporaryDirectory() as place,
        tempfile.TemporaryDirectory(prefix="braid-boards-", dir=_memory()) as files,
    ):
        folder = Path(place) / "run"
        with ServerProcess(folder, setting.run_settings, unit_limits(), model=setting.model, tls=setting.tls) as server:
            own_before_s = time.process_time()
            fleet = Fleet(server.url, server.fingerprint, server.token(setting.boards), Path(files), setting.train_s)
            before, began_s = server.cost(), time.monotonic()
            failures = asyncio.run(_live(fleet, setting))
            seconds, after = time.monotonic() - began_s, server.cost()
            server.stop()
        own_cpu_s = time.process_time() - own_before_s
        recorded, merged = recorded_in(folder / "braid.db")
    return _numbers(setting, fleet, seconds=seconds, before=before, after=after, failures=failures) | {
        "recorded": len(recorded),
        "lost": len(fleet.accepted - recorded),
        "rounds_merged": merged,
        "boards_cpu_s": own_cpu_s,
    }


async def _live(fleet: Fleet, setting: Setting) -> list[str]:
    """The lives of all boards at once; why some ended early."""
    failures: list[str] = []
    telling = asyncio.create_task(_tell(fleet, setting))
    await asyncio.gather(
        *(_live_later(fleet, number, number / JOIN_PER_S, failures) for number in range(setting.boards))
    )
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    return failures


async def _live_later(fleet: Fleet, number: int, after_s: float, failures: list[str]) -> None:
    await asyncio.sleep(after_s)
    await live(Board(fleet, number), failures)


async def _tell(fleet: Fleet, setting: Setting) -> None:
    """Say now and then how far the run is."""
    began_s, wanted = time.monotonic(), setting.boards * (setting.rounds + 1)
    while True:
        await asyncio.sleep(PROGRESS_EVERY_S)
        seconds, done = time.monotonic() - began_s, len(fleet.accepted)
        left = f", about {seconds * (wanted - done) / done:,.0f} s left" if done else ""
        print(
            f"  {setting.boards:,} boards, {seconds:,.0f} s: {done:,} of {wanted:,} uploads acknowledged{left}",
            file=sys.stderr,
            flush=True,
        )


def recorded_in(database: Path) -> tuple[frozenset[Sent], int]:
    """The uploads that a stopped server's database has as accepted, and how many rounds became a version."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as found:
        updates = found.execute("SELECT device, round, digest FROM updates WHERE accepted").fetchall()
        profiles = found.execute("SELECT device, 0, digest FROM profiles WHERE accepted").fetchall()
        (versions,) = found.execute("SELECT count(*) FROM history WHERE version > 1").fetchone()
    return frozenset(Sent(*row) for row in (*updates, *profiles)), int(versions)


def _numbers(
    setting: Setting, fleet: Fleet, *, seconds: float, before: Cost, after: Cost, failures: list[str]
) -> dict[str, Any]:
    calls, cpu_s = fleet.calls, after.cpu_s - before.cpu_s
    return {
        "boards": setting.boards,
        "shape": setting.shape,
        "rounds": setting.rounds,
        "acknowledged": len(fleet.accepted),
        "refused": len(fleet.refused),
        "timeouts": calls.timeouts.total(),
        "errors": calls.errors.total() + len(failures),
        "throttled": calls.throttled.total(),
        "details": {
            **_named("timeout", calls.timeouts),
            **_named("429", calls.throttled),
            **calls.errors,
            **_counted(failures),
            **_counted(fleet.refused),
        },
        "seconds": seconds,
        "requests": calls.n_answered,
        "requests_per_s": calls.n_answered / seconds,
        "idle_mib": before.resident_mib,
        "peak_mib": after.peak_mib,
        "after_mib": after.resident_mib,
        "cpu_s": cpu_s,
        "cpu_s_per_update": cpu_s / max(1, len(fleet.accepted)),
        **_percentiles(calls),
    }


def _percentiles(calls: Calls) -> dict[str, Mapping[str, float]]:
    """Seconds of each kind of call, and of what is waited for: the middle, the 99th percentile and the longest."""
    kinds = {**calls.times, **calls.waits}
    return {
        "p50_s": {name: times.median for name, times in kinds.items()},
        "p99_s": {name: times.percentile(99) for name, times in kinds.items()},
        "longest_s": {name: times.longest for name, times in kinds.items()},
        "calls": {name: len(times.seconds) for name, times in kinds.items()},
    }


def _named(what: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {f"{name}: {what}": count for name, count in counts.items()}


def _counted(sentences: list[str]) -> dict[str, int]:
    return {sentence: sentences.count(sentence) for sentence in set(sentences)}


def _need_descriptors(boards: int) -> None:
    """Take descriptors for all boards' connections. Raises ValueError where the system allows too few."""
    wanted, (soft, hard) = 256 + DESCRIPTORS_OF_A_BOARD * boards, resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _memory() -> str | None:
    return str(MEMORY) if MEMORY.is_dir() else None
