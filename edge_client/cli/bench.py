"""`edge-client bench`: what training costs on this board, phase by phase, on random text."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from braid_common.base.files import read_t5_config
from braid_common.base.t5_config import FLAN_T5, T5Config
from edge_client.agent.allowances import parse_memory
from edge_client.agent.console import Console
from edge_client.base.locate import BUILTIN, require_whole, resolve
from edge_client.bench.measure import run_request, write_base
from edge_client.bench.plot import check_plot, draw
from edge_client.bench.report import Terms, facts, make_report
from edge_client.bench.request import Request, Tell
from edge_client.bench.round_time import Link
from edge_client.bench.setting import Setting, plan_setting
from edge_client.bench.table import lines
from edge_client.cli.options import debug_option
from edge_client.errors import ConfigError, base_errors
from edge_client.host.board import Board, probe_board
from edge_client.host.machine import describe_machine
from edge_client.host.matmul_measure import measure_matmul_speed
from edge_client.host.matmul_speed import with_matmul_speed
from edge_client.host.packages import require_packages
from edge_client.host.processor_name import processor
from edge_client.state.folder import default_state_folder
from edge_client.state.matmul_speed_file import read_matmul_speed
from quantize.formats import FORMATS
from wire.limits import MAX_RANK

SHAPES = tuple(name.removeprefix("flan-t5-") for name in FLAN_T5)
"""FLAN-T5s by the last part of their names."""

DISK_FOLDER = Path("/var/tmp")  # noqa: S108 - only a place for a temporary folder of our own
"""Where a random base is written unless TMPDIR is set. It takes gigabytes, and /tmp is memory on many boards."""


@dataclass(frozen=True, slots=True)
class BenchFlags:
    """The flags of `edge-client bench` beside those of its Setting. "" and None mean: not given."""

    model: str
    shape: str | None
    memory: str
    threads: int
    steps: int
    link_mbps: tuple[float, ...]
    latency_ms: float
    local_steps: int
    epochs: int


@click.command()
@click.option("--model", envvar="BRAID_MODEL", default="", help="Base: hub id, folder or builtin.  [default: builtin]")
@click.option("--shape", type=click.Choice(SHAPES), help="Instead: a FLAN-T5 of this size with random weights.")
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    help="Precision of the base in memory.  [default: the best that fits]",
)
@click.option(
    "--scope",
    type=click.Choice(["decoder", "all"]),
    default="decoder",
    show_default=True,
    help="Which weights are trained.",
)
@click.option(
    "--micro-batch", type=click.IntRange(1, 4096), default=4, show_default=True, help="Examples of a training step."
)
@click.option(
    "--source-tokens", type=click.IntRange(8, 8192), default=512, show_default=True, help="Length of every source."
)
@click.option(
    "--target-tokens", type=click.IntRange(2, 8192), default=64, show_default=True, help="Length of every target."
)
@click.option(
    "--rank", type=click.IntRange(1, MAX_RANK), default=8, show_default=True, help="Strands that each weight trains."
)
@click.option("--steps", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Measured steps.")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="For torch.  [default: its own choice]")
@click.option("--memory", envvar="BRAID_MEMORY", default="", help="Memory to use, as 800MiB.  [default: what is free]")
@click.option(
    "--link-mbps",
    type=click.FloatRange(0, 1e6, min_open=True),
    multiple=True,
    default=(1.0, 10.0, 100.0),
    show_default="1, 10, 100",
    help="Link speed in Mbit/s; may be repeated.",
)
@click.option(
    "--latency-ms",
    type=click.FloatRange(0, 1e6),
    default=20.0,
    show_default=True,
    help="Delay of a link, there and back.",
)
@click.option("--local-steps", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Steps of a round.")
@click.option(
    "--epochs",
    type=click.IntRange(1, 10_000),
    default=3,
    show_default=True,
    help="Epochs that share one pass of the encoder.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw it, as .png or .svg.")
@debug_option
def bench(as_json: bool, plot: Path | None, debug: bool, **values: Any) -> None:
    """Measure this board: seconds per phase of a training step, tokens/s, MFU, memory, energy, granularity.

    Trains on random text, so no data is needed and nothing is learnt.
    """
    del debug
    wanted = Setting(**{field.name: values.pop(field.name) for field in fields(Setting)})
    flags = BenchFlags(**values)
    _check(flags.model, flags.shape, (*flags.link_mbps, flags.latency_ms), plot)
    board = _board(flags.memory, flags.threads)
    terms = Terms(
        model=f"FLAN-T5-{flags.shape} with random weights" if flags.shape else flags.model or BUILTIN,
        board=board.model or processor(),
        machine=describe_machine("torch"),
        epochs=flags.epochs,
        local_steps=flags.local_steps,
        links=[Link(mbps, flags.latency_ms) for mbps in sorted(set(flags.link_mbps))],
    )
    with _base(flags.model, flags.shape, lambda base: plan_setting(wanted, board, base, terms.model)) as folder:
        base = _config(folder)
        plan = plan_setting(wanted, board, base, terms.model)
        request = Request(str(folder), wanted.run(base), plan, flags.steps, flags.threads)
        report = make_report(terms, board, request, base, run_request(request, _progress))
    click.echo(json.dumps(facts(report)) if as_json else "\n".join(lines(report)))
    if plot:
        draw(report, plot)


def _check(model: str, shape: str | None, of_links: Sequence[float], plot: Path | None) -> None:
    """Check the flags, as far as that needs no measurement."""
    if model and shape:
        raise ConfigError("--model and --shape exclude each other", "give one of them")
    if not all(map(math.isfinite, of_links)):  # nan passes every range
        raise ConfigError("a link's speed or latency is not a number", "write it as --link-mbps 10 --latency-ms 20")
    if plot:
        check_plot(plot)
    require_packages()


def _board(memory: str, threads: int) -> Board:
    """The board with its measured arithmetic; kept measurements are used, new ones are not kept."""
    board = probe_board(parse_memory(memory))
    return with_matmul_speed(board, read_matmul_speed(default_state_folder(), threads) or measure_matmul_speed(threads))


@contextlib.contextmanager
def _progress() -> Iterator[Tell]:
    """How far the measurement is, on stderr."""
    console = Console(stream=sys.stderr)
    try:
        yield lambda phase, step, steps: console.progress(phase=f"bench: {phase}", step=step, steps=steps)
    finally:
        console.close()


@contextlib.contextmanager
def _base(model: str, shape: str | None, check: Callable[[T5Config], object]) -> Iterator[Path]:
    """The base's folder. A random one is written to a temporary folder, unless `check` refuses its config.json."""
    if shape is None:
        folder = resolve(model or BUILTIN)
        require_whole(folder)
        yield folder
        return
    place = None if "TMPDIR" in os.environ or not os.access(DISK_FOLDER, os.W_OK) else DISK_FOLDER
    with _ended_by_sigterm(), tempfile.TemporaryDirectory(prefix="braid-bench-", dir=place) as parent:
        folder = Path(parent) / "base"
        with _progress() as tell:
            tell(f"writing random weights of FLAN-T5-{shape}'s shape", 0, 1)
            write_base(folder, shape, check)
        yield folder


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM leaves by way of every `with`: no gigabytes stay behind on the disk."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _config(folder: Path) -> T5Config:
    with base_errors("name another base with --model"):
        return read_t5_config(folder)
