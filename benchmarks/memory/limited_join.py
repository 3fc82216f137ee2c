"""One real round of one board in a control group: an aggregator outside, `edge-client join` inside."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.memory.control_group import ControlGroup
from demo.fleet import BIN, Aggregator, Event, run_command
from edge_client.state.folder import StateFolder
from edge_client.state.matmul_speed_file import FILE, ensure_matmul_speed

THREADS = 1

ONE_BOARD = {"run.rounds": "1", "rounds.quorum": "1", "rounds.deadline_s": "600.0", "merge.sketch_every": "1"}
"""Settings of a run of one round that waits for one board only."""


@dataclass(slots=True)
class Joined:
    """The outcome of a client: the events that it told, line by line, and its exit status."""

    events: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int = -1

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind, in order."""
        return [event for event in self.events if event["event"] == kind]


@asynccontextmanager
async def aggregator(folder: Path, model: str, settings: Mapping[str, str]) -> AsyncIterator[Aggregator]:
    """A server of a run for one board, outside of any group that is made here."""
    pairs = [part for name, value in {**ONE_BOARD, **settings}.items() for part in ("--set", f"{name}={value}")]
    await run_command("aggregator", "init", str(folder), "--model", model, "--min-devices", "1", *pairs)
    server = Aggregator(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def join(
    group: ControlGroup,
    server: Aggregator,
    state: Path,
    *,
    model: str,
    data: str,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Joined:
    """`edge-client join` in `group`, with no memory but what the group leaves, until it ends by itself."""
    flags = {
        "--server": server.url,
        "--token": await server.token(),
        "--name": "board",
        "--state": str(state),
        "--model": model,
        "--data": data,
        "--threads": str(THREADS),
        "--eval-examples": "4",
    }
    command = [str(BIN / "edge-client"), "join", "--json", *(part for pair in flags.items() for part in pair)]
    process = await asyncio.create_subprocess_exec(
        *group.command(*command), stdout=asyncio.subprocess.PIPE, start_new_session=True, limit=1 << 20
    )
    joined = Joined()
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            joined.events.append(json.loads(line))
            on_event(joined.events[-1])
        joined.exit_code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()  # its worker dies with it
            await process.wait()
    return joined


def measure_board(folder: Path) -> Path:
    """Measure this machine's speed of matrix products, as a board does when it first starts; the file with it."""
    state = StateFolder(folder)
    state.lock()
    ensure_matmul_speed(state, THREADS, lambda text: None)
    state.unlock()
    return folder / FILE


def new_state(folder: Path, matmul_speed: Path) -> Path:
    """The state folder of a new board whose speed was measured before."""
    folder.mkdir(mode=0o700)
    shutil.copy(matmul_speed, folder)
    return folder


def write_text(path: Path, *, words: int, n_examples: int = 40) -> str:
    """Examples of `words` numbered words each, which a base of random values has in its vocabulary and every other one
    spells. Returns the --data spec."""
    drawn = random.Random(words)
    with path.open("w") as file:
        for _ in range(n_examples):
            source = " ".join(f"w{drawn.randrange(9000)}" for _ in range(words))
            file.write(json.dumps({"source": source, "target": source[: 4 * words]}) + "\n")
    return str(path)
