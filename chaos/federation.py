"""One run of a fleet: a server, its boards, and the lines between, with faults or without."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.disk.file_faults import FileFaults
from chaos.fleet.process import KeptProcess
from chaos.ledger import Ledger
from chaos.mishaps import SIDES, DiskTrouble, KilledAtCall, KilledOnLine, Mishaps, Side, names_of
from chaos.network.line_faults import LINE_FAULTS, LineFaults
from chaos.network.ports import quiet_port
from chaos.network.proxy import FaultProxy, Trap
from demo.fleet import BIN, run_command

SETTINGS: Mapping[str, str] = {
    "train.targets": '["q", "o"]',
    "train.local_steps": "1",
    "train.max_source_tokens": "32",
    "train.max_target_tokens": "12",
    "train.upload": '"fp32"',
    "merge.max_rank": "3",
    "merge.server_rank": "4",
    "rounds.deadline_s": "86400.0",
    "rounds.grace_s": "86400.0",
    "rounds.profile_deadline_s": "86400.0",
}
"""A small model, and rounds that end when every board has answered and not before: both runs have equal cohorts."""

STALLED_S = 180.0
"""A run in which nothing is acknowledged for so long is stuck: boards pause for 1 s at most at these runs' pace, a
server that waits for its disk for 30 s."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a run.

    Attributes:
        seed: of the training and of the faults.
        rounds: of training.
        boards: that take part in each.
    """

    seed: int
    rounds: int
    boards: int

    @property
    def names(self) -> tuple[str, ...]:
        """The boards' names, which are their ids as well."""
        return tuple(f"board{number}" for number in range(1, self.boards + 1))


@dataclass(frozen=True, slots=True)
class Chaos:
    """The faults of a run.

    Attributes:
        library: for faults of files, as `chaos.disk.file_faults.build_library` made it; None leaves these out.
        line_chance: of each request to meet a fault.
        longest_pause: between two mishaps of a side, in rounds: so that a slow machine meets no more of them.
        patience_s: how long a mishap waits until it is met; not every named call is made in every round.
        until_all_fired: end the run once every kind of fault has fired, whichever round it is in.
        longest_s: end it after so many seconds, whichever round it is in.
    """

    library: Path | None
    line_chance: float = 0.04
    longest_pause: float = 4.0
    patience_s: float = 3.0
    until_all_fired: bool = False
    longest_s: float = math.inf

    @property
    def kinds(self) -> frozenset[str]:
        """Every kind of fault that may fire."""
        mishaps = {name for side in SIDES for name in names_of(side)}
        if self.library is None:
            mishaps = {name for name in mishaps if "under the" not in name and "call" not in name}
        return frozenset({*LINE_FAULTS, *mishaps})


@dataclass(slots=True)
class Outcome:
    """All that a run has shown.

    Attributes:
        folder: the server's.
        ledger: what it acknowledged.
        faults: how often each kind fired.
        ends: how each process ended: its name, the status, how often.
        is_stuck: whether it was given up.
    """

    folder: Path
    ledger: Ledger
    faults: Counter[str] = field(default_factory=Counter)
    ends: dict[str, Counter[int]] = field(default_factory=dict)
    is_stuck: bool = False


Order = Mapping[int, Sequence[str]]
"""Boards in the order in which the updates of each round are to be taken in."""


class Federation:
    """A server and its boards, each behind a line of its own.

    Args:
        folder: where all of it is.
        plan: how large the run is.
        chaos: the faults; None for a run without any.
        order: in which uploads are passed on; None as they come.
    """

    def __init__(self, folder: Path, plan: Plan, chaos: Chaos | None = None, order: Order | None = None) -> None:
        self.plan, self._folder, self._chaos, self._order = plan, folder, chaos, order
        self.ledger = Ledger()
        self._server_folder, self._port = folder / "server", quiet_port()
        self._files: dict[str, FileFaults] = {}
        self._mishaps: Counter[str] = Counter()
        self._processes: dict[str, KeptProcess] = {}
        self._lines: dict[str, FaultProxy] = {}

    async def run(self, on_round: Callable[[int], None]) -> Outcome:
        """The whole run, to the end of the last round, or until all has fired. `on_round` hears how many rounds every
        board has sent."""
        await self._prepare()
        lanes = [asyncio.ensure_future(self._lane(side)) for side in SIDES] if self._chaos is not None else []
        serving = asyncio.ensure_future(self._processes["server"].keep())
        boards = asyncio.gather(*(self._processes[name].keep() for name in self.plan.names))
        try:
            is_stuck = not await self._follow(boards, on_round)
        finally:
            for lane in lanes:
                lane.cancel()
            ended = await asyncio.gather(*lanes, return_exceptions=True)
            self._heal()
            await asyncio.gather(*(self._processes[name].stop() for name in self.plan.names))
            await self._processes["server"].stop()
            serving.cancel()
            boards.cancel()
            await asyncio.gather(serving, boards, return_exceptions=True)
            await asyncio.gather(*(line.stop() for line in self._lines.values()))
        for error in ended:
            if isinstance(error, Exception):  # a run whose mishaps have stopped proves nothing
                raise error
        ends = {name: process.ends for name, process in self._processes.items()}
        return Outcome(self._server_folder, self.ledger, self.fired(), ends, is_stuck)

    def fired(self) -> Counter[str]:
        """How often each fault has fired so far."""
        fired = Counter[str]()
        for line in self._lines.values():
            fired.update(line.fired)
        for owner, files in self._files.items():
            side = "server" if owner == "server" else "board"
            for (error, call), count in files.failed.items():
                fired[f"{error} under the {side}: {call}"] += count
        return +(fired + self._mishaps)

    def missing(self) -> frozenset[str]:
        """The kinds of fault that have not fired yet."""
        if self._chaos is None:
            return frozenset()
        return self._chaos.kinds - {kind.partition(":")[0] for kind in self.fired()}

    async def _prepare(self) -> None:
        settings = {
            **SETTINGS,
            "run.seed": str(self.plan.seed),
            "run.rounds": str(self.plan.rounds),
            "rounds.quorum": str(self.plan.boards),
        }
        pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        where, count = str(self._server_folder), str(self.plan.boards)
        await run_command("aggregator", "init", where, "--model", "builtin", "--min-devices", count, *pairs)
        token = await run_command("aggregator", "token", "create", where, "--uses", count, "--json", key="token")
        command = (str(BIN / "aggregator"), "serve", where, "--port", str(self._port), "--tls", "off")
        self._add("server", command, self._server_folder)
        faults = LineFaults(f"{self.plan.seed} lines", self._chaos.line_chance) if self._chaos is not None else None
        for name in self.plan.names:
            before = self._turn if self._order is not None else None
            line = FaultProxy(name, self._port, self.ledger.note, faults, before)
            await line.start()
            self._lines[name] = line
            state = self._folder / name
            state.mkdir()
            url = f"http://127.0.0.1:{line.port}"
            program = (sys.executable, "-m", "chaos.fleet.board")
            self._add(name, (*program, url, token.strip(), str(state), name), state)

    def _add(self, name: str, command: Sequence[str], folder: Path) -> None:
        environment: Mapping[str, str] = {}
        if self._chaos is not None and self._chaos.library is not None:
            self._files[name] = FileFaults(self._chaos.library, folder, self._folder / f"{name}.control")
            environment = self._files[name].environment
        self._processes[name] = KeptProcess(name, command, environment, self._folder / f"{name}.log")

    async def _turn(self, board: str, round_id: int) -> None:
        """Wait until it is a board's turn to upload."""
        assert self._order is not None
        for before in self._order.get(round_id, ()):
            if before == board:
                return
            await self.ledger.until_heard(round_id, before)

    async def _follow(self, boards: asyncio.Future[list[None]], on_round: Callable[[int], None]) -> bool:
        """Wait until all boards have ended, or enough has fired; False where nothing has happened for too long."""
        seen, since, done_rounds = -1, time.monotonic(), 0
        began_s = since
        while not boards.done() and not self._is_enough(done_rounds, time.monotonic() - began_s):
            await asyncio.wait({boards}, timeout=0.2)
            if len(self.ledger.acknowledged) != seen:
                seen, since = len(self.ledger.acknowledged), time.monotonic()
            elif time.monotonic() - since > STALLED_S:
                return False
            while len(self.ledger.boards_of(done_rounds + 1)) == self.plan.boards:
                done_rounds += 1
            on_round(done_rounds)
        if boards.done():
            boards.result()
        return True

    def _is_enough(self, done_rounds: int, elapsed_s: float) -> bool:
        """Whether the run may end though there are more rounds."""
        if self._chaos is None or done_rounds == 0:
            return False
        return elapsed_s > self._chaos.longest_s or (self._chaos.until_all_fired and not self.missing())

    # --- mishaps -----------------------------------------------------------------------------------------------------

    async def _lane(self, side: Side) -> None:
        """One mishap of a side after another, to the run's end, or until each kind has fired."""
        assert self._chaos is not None
        mishaps = Mishaps(f"{self.plan.seed} mishaps of the {side}", side)
        while not (self._chaos.until_all_fired and self.missing().isdisjoint(names_of(side))):
            mishap = mishaps.next()
            if self._chaos.until_all_fired and mishap.name not in self.missing():
                continue  # it would only put off those that are still to fire
            await self._pass(mishaps.uniform(0, self._chaos.longest_pause))
            owner = "server" if side == "server" else mishaps.choice(self.plan.names)
            if isinstance(mishap, KilledOnLine):
                has_fired = await self._spring(mishap)
            elif owner not in self._files:
                continue
            elif isinstance(mishap, DiskTrouble):
                has_fired = await self._trouble(self._files[owner], mishap)
            else:
                has_fired = await self._kill_at_call(self._files[owner], mishap)
            if not has_fired:
                mishaps.put_back(mishap)

    async def _pass(self, rounds: float) -> None:
        """Wait until so many rounds' updates have come."""
        until = len(self.ledger.acknowledged) + rounds * self.plan.boards
        while len(self.ledger.acknowledged) < until:  # noqa: ASYNC110 - other events come between
            await asyncio.sleep(0.05)

    async def _trouble(self, files: FileFaults, mishap: DiskTrouble) -> bool:
        before = files.failed.total()
        files.fail(mishap.error, chance=mishap.chance, times=mishap.times, seed=mishap.seed)
        await asyncio.sleep(mishap.duration_s)
        has_fired = await self._within_patience(lambda: files.failed.total() > before)
        files.heal()
        return has_fired

    async def _kill_at_call(self, files: FileFaults, mishap: KilledAtCall) -> bool:
        before = files.killed.total()
        files.kill(calls=mishap.calls, path=mishap.path, at=mishap.at)
        has_fired = await self._within_patience(lambda: files.killed.total() > before)
        files.spare()
        self._mishaps[mishap.name] += has_fired
        return has_fired

    async def _spring(self, mishap: KilledOnLine) -> bool:
        trap = Trap(mishap.place, lambda board: self._processes["server" if mishap.side == "server" else board].kill())
        for line in self._lines.values():
            line.trap = trap
        has_fired = await self._within_patience(lambda: trap.is_sprung)
        for line in self._lines.values():
            line.trap = None if line.trap is trap else line.trap
        self._mishaps[mishap.name] += has_fired
        return has_fired

    async def _within_patience(self, is_so: Callable[[], bool]) -> bool:
        """Whether something becomes so within the time that a mishap is waited for."""
        assert self._chaos is not None
        until = time.monotonic() + self._chaos.patience_s
        while not is_so():
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.02)
        return True

    def _heal(self) -> None:
        for files in self._files.values():
            files.heal()
            files.spare()
        for line in self._lines.values():
            line.trap, line.faults = None, None
