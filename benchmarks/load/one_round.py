"""Memory of a server in one round of many boards of FLAN-T5-base's shape, and how soon it listens when it is killed.

    python -m benchmarks.load.one_round                       # 50 boards
    python -m benchmarks.load.one_round --boards 1000 --json one_round.json

The server is a process of its own under the shipped unit's limits, with its defaults: rule weave, scope "decoder",
uploads in bf16. Boards enrol and profile, and send updates of rank 8 on every weight that differ in their example
counts alone, which costs the server what any others do. All but the last are accepted when the server is killed with
SIGKILL and started again; the last one closes the round. Memory is resident, of the process alone (VmRSS, VmHWM): files
that the system keeps in its cache count nowhere. "after" is 2 s after the merge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np

from benchmarks.load.base_shape import write_base
from benchmarks.load.honest import TIMEOUT_S, enrol, sent_whole, sketches_of
from benchmarks.processes.server import ServerProcess
from benchmarks.processes.unit import unit_limits
from braid_common.units import MIB
from edge_client.host.machine import describe_machine
from wire.codec import decode, encode
from wire.messages import Adapter, AdapterPart, Enrolled, Tensor, Update, UpdatePart
from wire.routes import PROFILING
from wire.tensors import pack, unpack

RANK = 8
"""Rank of the updates on every weight."""

STEP = 1e-3
"""Standard deviation of what a board adds to each value."""

SIDE_BY_SIDE = 8
"""Boards that send at a time."""

MERGE_S = 1800.0
"""Longest wait for the merge."""


def main() -> None:
    options = _options()
    print(f"{describe_machine('numpy')}, {options.boards} boards of {options.shape}'s shape", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_base(Path(folder) / "base", options.shape)
        settings = {
            "rounds.min_devices": str(options.boards),
            "rounds.quorum": str(options.boards),
            "rounds.deadline_s": "86400.0",
            "rounds.profile_deadline_s": "86400.0",
            "rounds.liveness_s": "86400.0",
            "train.importance": "sketch",
            "train.max_source_tokens": "192",
            "train.max_target_tokens": "32",
        }
        with ServerProcess(Path(folder) / "run", settings, unit_limits(), model=str(Path(folder) / "base")) as server:
            facts = asyncio.run(_round(server, options.boards))
    for name, value in facts.items():
        print(f"{name:24} {value:10.1f}")
    if options.json:
        Path(options.json).write_text(json.dumps(facts, indent=2))


async def _round(server: ServerProcess, n_boards: int) -> dict[str, float]:
    """One round, with a kill before its last update."""
    facts: dict[str, float] = {"boards": n_boards, "idle_mib": server.cost().resident_mib}
    token = server.token(n_boards)
    boards = [await enrol(server.url, token, number) for number in range(n_boards)]
    await _send_all(server, boards, PROFILING, _profiles(boards[0]))
    _note(facts, server, "profiling")
    await _version(server, boards[0], 1)
    _note(facts, server, "first_basis")

    updates = await _updates(server, boards[0])
    facts["update_mib"] = len(updates(0)) / MIB
    await _send_all(server, boards[:-1], 1, updates)
    _note(facts, server, "uploads")
    facts["cpu_s_before_merge"] = server.cost().cpu_s
    server.kill()
    began = time.monotonic()
    server.start()
    facts["restart_s"], facts["restart_cpu_s"] = time.monotonic() - began, server.cost().cpu_s
    await asyncio.sleep(2.0)
    _note(facts, server, "restart")

    began, cpu_s = time.monotonic(), server.cost().cpu_s
    await _send_all(server, boards[-1:], 1, lambda number: updates(n_boards - 1))
    await _version(server, boards[0], 2)
    facts["merge_s"], facts["merge_cpu_s"] = time.monotonic() - began, server.cost().cpu_s - cpu_s
    await asyncio.sleep(2.0)
    _note(facts, server, "merge")
    return facts


def _note(facts: dict[str, float], server: ServerProcess, what: str) -> None:
    cost = server.cost()
    facts[f"{what}_peak_mib"], facts[f"{what}_after_mib"] = cost.peak_mib, cost.resident_mib
    server.forget_peak()


async def _send_all(
    server: ServerProcess, boards: Sequence[Enrolled], round_id: int, body: Callable[[int], bytes]
) -> None:
    """Send a body for each of the boards, and wait for all judgements."""
    slots = asyncio.Semaphore(SIDE_BY_SIDE)

    async def send(number: int) -> None:
        async with slots:
            await sent_whole(server.url, boards[number], round_id, body(number))

    await asyncio.gather(*map(send, range(len(boards))))


def _profiles(board: Enrolled) -> Callable[[int], bytes]:
    message = sketches_of(board.run)
    return lambda number: encode(msgspec.structs.replace(message, n_examples=100 + number))


async def _updates(server: ServerProcess, board: Enrolled) -> Callable[[int], bytes]:
    """The update of a board that has trained what it downloads, by the board's number."""
    ranks = ".".join(str(min(RANK, *(weight.rows, weight.columns))) for weight in board.run.weights)
    adapter = decode(await _get(server, board, f"/v1/adapters/1?ranks={ranks}"), Adapter)
    task = json.loads(msgspec.json.encode(msgspec.msgpack.decode(await _get(server, board, "/v1/work?wait=0"))))
    drawn = np.random.default_rng(2)
    spec, run = task["spec"], board.run
    message = Update(
        protocol=run.protocol,
        run_id=run.run_id,
        round=spec["round"],
        version=spec["version"],
        version_digest=spec["version_digest"],
        manifest=run.manifest,
        n_examples=1,
        parts=tuple(_trained(part, run.weights[i].rows, drawn) for i, part in enumerate(adapter.parts)),
    )
    return lambda number: encode(msgspec.structs.replace(message, n_examples=100 + number))


def _trained(part: AdapterPart, rows: int, drawn: np.random.Generator) -> UpdatePart:
    def moved(tensor: Tensor | None, shape: tuple[int, int]) -> Tensor:
        before = 0.0 if tensor is None else unpack(tensor)
        return pack((before + STEP * drawn.standard_normal(shape)).astype(np.float32), "bf16")

    rank, columns = part.basis.shape
    return UpdatePart(name=part.name, b=moved(part.start_b, (rows, rank)), a=moved(part.basis, (rank, columns)))


async def _version(server: ServerProcess, board: Enrolled, version: int) -> None:
    """Wait until the server has published a version."""
    until = time.monotonic() + MERGE_S
    while time.monotonic() < until:
        work: Any = msgspec.msgpack.decode(await _get(server, board, "/v1/work?wait=0"))
        if work["kind"] in ("train", "evaluate") and work["spec"]["version"] >= version:
            return
        await asyncio.sleep(0.2)
    raise TimeoutError(f"no version {version}")


async def _get(server: ServerProcess, board: Enrolled, path: str) -> bytes:
    headers = {"Authorization": f"Bearer {board.credential}"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
        session.get(server.url + path) as response,
    ):
        response.raise_for_status()
        return await response.read()


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load.one_round", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--boards", type=int, default=50)
    parser.add_argument("--shape", default="flan-t5-base", help="FLAN-T5 whose shape the base has")
    parser.add_argument("--folder", help="where the server's folder is made, and removed; takes 10 MB a board")
    parser.add_argument("--json", help="file for the figures")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
