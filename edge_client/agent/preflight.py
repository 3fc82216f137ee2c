"""The preflight: all that can be wrong on this side is found before the first request leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from braid_common.units import printable
from edge_client.agent.allowances import default_cache_bytes, parse_cache, parse_limits, parse_memory
from edge_client.agent.console import Console
from edge_client.agent.enrolment import prepare_identity
from edge_client.agent.manners.leave_to_train import ALWAYS, Rules
from edge_client.agent.manners.rules import parse_rules, require_sensors
from edge_client.agent.settings import JoinSettings
from edge_client.errors import ConfigError
from edge_client.host.board import Board, probe_board
from edge_client.host.forked import run_forked
from edge_client.host.matmul_speed import MatmulSpeed, with_matmul_speed
from edge_client.host.packages import require_packages
from edge_client.jobs.data_spec import DataSpec
from edge_client.network.transport import parse_pin
from edge_client.plan.round_cost import NO_LIMITS, RoundLimits
from edge_client.state.folder import Identity, StateFolder
from edge_client.state.matmul_speed_file import ensure_matmul_speed

T = TypeVar("T")


class Fork(Protocol):
    """Runs a call in a child process, so that the memory it takes is gone afterwards."""

    def __call__(self, call: Callable[[], T], kind: type[T], /) -> T:
        """`call()`, which must be a `kind` that msgspec can encode."""


@dataclass(frozen=True, slots=True)
class Probes:
    """The looks at the board that a preflight takes.

    Attributes:
        measure: how fast the board multiplies, kept in a state folder; told are folder, threads, and whom to tell.
        packages: raises ConfigError where training lacks one.
        fork: for reading the data.
        root: where /sys is.
    """

    measure: Callable[[StateFolder, int, Callable[[str], None]], MatmulSpeed | None] = ensure_matmul_speed
    packages: Callable[[], None] = require_packages
    fork: Fork = run_forked
    root: Path = Path("/")


PROBES = Probes()
"""The real ones."""


class DataSummary(msgspec.Struct, frozen=True):
    """How many examples a board has and how they were read; the data itself is read again by the worker.

    Attributes:
        lines: the essence for people.
        facts: the essence for programs.
    """

    n_train: int
    n_held_out: int
    n_skipped: int
    first_skipped: str
    lines: tuple[str, ...] = ()
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preflight:
    """The findings of a preflight; `folder` is locked.

    Attributes:
        cache_bytes: disk for the encoder's output, 0 for none.
        limits: what a round may cost.
        rules: when it may train.
    """

    board: Board
    data: DataSummary
    folder: StateFolder
    identity: Identity
    cache_bytes: int = 0
    limits: RoundLimits = NO_LIMITS
    rules: Rules = ALWAYS


def preflight(settings: JoinSettings, console: Console, probes: Probes = PROBES) -> Preflight:
    """Check settings, packages, data, state folder and arithmetic, in this order, and take the folder's lock.

    Sends nothing. Raises ConfigError, DataError, DiskError or LockedError.
    """
    if settings.fingerprint:
        parse_pin(settings.fingerprint)
    board = probe_board(parse_memory(settings.memory))
    cache_bytes = parse_cache(settings.cache)
    limits = parse_limits(settings.round_time, settings.round_traffic)
    rules = parse_rules(settings.window, settings.below, settings.only_on_mains)
    require_sensors(rules, console.notice, probes.root)
    _require_name(settings.data)
    probes.packages()
    data = probes.fork(lambda: _summarise(settings.data_spec), DataSummary)
    if data.n_skipped:
        console.notice(
            f"{data.n_skipped} unusable lines or files in {settings.data} are left out; first: {data.first_skipped}"
        )
    console.event("data", "\n".join(data.lines), **data.facts)
    folder = StateFolder(settings.state)
    folder.lock()
    try:
        identity = prepare_identity(folder, settings)
        arithmetic = probes.measure(folder, settings.threads, console.notice)
        board = with_matmul_speed(board, arithmetic)
        if arithmetic is not None:
            limits = replace(limits, gflops=arithmetic.gflops)
        if cache_bytes is None:
            cache_bytes = default_cache_bytes(folder.path, folder.cache)
        if not cache_bytes:
            folder.empty_cache()
    except BaseException:
        folder.unlock()  # a farewell is not sent while a client seems to run on the folder
        raise
    return Preflight(board, data, folder, identity, cache_bytes, limits, rules)


def _require_name(data: str) -> None:
    """Raise ConfigError for a path that the worker cannot be told: its bytes are no text in this locale."""
    if data != printable(data):
        raise ConfigError(
            f"the name of --data {printable(data)!r} is no text that can be passed on",
            "rename the file, or set a locale that can read its name, such as LC_ALL=C.UTF-8",
        )


def _summarise(spec: DataSpec) -> DataSummary:
    """Read the data once. Raises DataError where it is too little to train on."""
    # In the child alone: the client, which then waits for months, never reads text itself.
    from edge_client.data.essence import essence_facts, essence_lines
    from edge_client.data.load import load_data, require_enough

    data = load_data(spec)
    require_enough(data, spec)
    return DataSummary(
        len(data.train),
        len(data.held_out),
        data.n_skipped,
        printable(data.first_skipped),
        tuple(printable(line) for line in essence_lines(data, spec)),
        essence_facts(data),
    )
