"""Training speed and memory: transformers + PEFT, the same with bitsandbytes in 4 bits, and ours, in turn in one run.

    python -m benchmarks.training_speed                        # small, base, large
    python -m benchmarks.training_speed --quick                # some minutes, to see that it works
    python -m benchmarks.training_speed --shapes xl            # ours only: decoder scope, nf4, one example at a time

FLAN-T5's shapes with random values, batch 4 × 512/64 tokens, LoRA of rank 8 on q and v, all cores. Every run is a fresh
process; the contestants alternate, repeat by repeat, and medians are printed. Tokens are source and target. A peer's
peak starts with its first step; ours includes loading and encoding. Where a peer runs out of memory it gets fewer
examples at a time and the row says so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec

from benchmarks.training_speed.contest import (
    SHAPES,
    Contestant,
    ContestantFailed,
    Kind,
    Measurement,
    Row,
    Workload,
)
from benchmarks.training_speed.peers import PeerJob, run_peer
from benchmarks.training_speed.table import sketch_shares, table
from braid_common.units import MIB
from edge_client.host.machine import describe_machine
from edge_client.host.matmul_measure import measure_matmul_speed
from edge_client.jobs.messages import CacheDtype, Compute, Format
from wire.run import Scope

STEPS = {"small": 12, "base": 8, "large": 3, "xl": 3, "xxl": 1}
"""Measured steps by shape, fewer where a step takes longer."""

OURS_ONLY = frozenset(("xl", "xxl"))
"""Their fp32 weights alone take 11 and 45 GB."""

SEED = 7

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def main() -> None:
    options = _options()
    if options.quick:
        options.shapes, options.contestants, options.formats = ["small"], ["peft", "ours"], ["bf16"]
        options.steps, options.repeats = 2, 1
    # First of all: it forks, which a process that has run a product of its own must not do.
    options.compute = options.compute or _fast_compute(options.threads)
    machine = describe_machine(*PACKAGES)
    print(f"{machine}\n")
    rows: list[Row] = []
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            of_shape = _run_shape(shape, options, Path(folder))
        print(f"### {shape}\n\n{table(of_shape)}\n", flush=True)
        print("\n".join([*sketch_shares(of_shape), ""]), flush=True)
        rows += of_shape
    if options.json:
        Path(options.json).write_bytes(msgspec.json.format(msgspec.json.encode({"machine": machine, "rows": rows})))


def _run_shape(shape: str, options: argparse.Namespace, folder: Path) -> list[Row]:
    """Every contestant on one shape, in turn, `repeats` times."""
    from quantize.random_base import write_random_base  # imports torch

    write_random_base(folder / "base", shape, seed=SEED)
    workload = _workload(shape, options)
    rows = [
        Row(contestant=contestant, workload=_own(workload, contestant, options), runs=())
        for contestant in _contestants(shape, options)
    ]
    for repeat in range(options.repeats):
        print(f"{shape}, repeat {repeat + 1} of {options.repeats}", file=sys.stderr)
        rows = [row if row.reason and not row.runs else _once_more(row, folder) for row in rows]
    return rows


def _once_more(row: Row, folder: Path) -> Row:
    """The row with one more run, with fewer examples at a time if memory ran out, or with the reason why not."""
    name = f"  {row.contestant.name}, {row.contestant.scope}, micro-batch {row.workload.micro_batch}"
    try:
        run = _measure(row.contestant, row.workload, folder)
    except ContestantFailed as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        reason = f"micro-batch {row.workload.micro_batch}: {failure}"
        if failure.lacked_memory and row.workload.micro_batch > 1:
            less = msgspec.structs.replace(row.workload, micro_batch=row.workload.micro_batch // 2)
            return _once_more(msgspec.structs.replace(row, workload=less, runs=(), reason=reason), folder)
        return msgspec.structs.replace(row, reason=reason)
    print(f"{name}: {run.tokens_per_s:,.0f} tokens/s, {run.peak_bytes / MIB:,.0f} MiB", file=sys.stderr)
    return msgspec.structs.replace(row, runs=(*row.runs, run))


def _measure(contestant: Contestant, workload: Workload, folder: Path) -> Measurement:
    if contestant.kind == "ours":
        from benchmarks.training_speed.ours import run_ours  # imports torch

        return run_ours(contestant, workload, folder / "base")
    saved = folder / "transformers"
    job = PeerJob(action="train", contestant=contestant, workload=workload, model_folder=str(saved))
    if contestant.kind == "bitsandbytes" and not saved.exists():
        run_peer(msgspec.structs.replace(job, action="save"))
    return run_peer(job)


# --- who takes part --------------------------------------------------------------------------------------------------


def _contestants(shape: str, options: argparse.Namespace) -> list[Contestant]:
    if shape in OURS_ONLY:
        return [Contestant(kind="ours", format="nf4", scope="decoder", compute=options.compute, cache=options.cache)]
    contestants = _peers(options) if "peft" in options.contestants else []
    contestants += _quantised_peers(options) if "bitsandbytes" in options.contestants else []
    return contestants + (_ours(options) if "ours" in options.contestants else [])


def _peers(options: argparse.Namespace) -> list[Contestant]:
    """Transformers + PEFT as documented, q and v everywhere; and on the same weights as our decoder scope."""
    return [Contestant(kind="peft", format="fp32", scope=scope) for scope in options.scopes]


def _quantised_peers(options: argparse.Namespace) -> list[Contestant]:
    """The same in 4 bits. Gradient checkpointing is what is documented; it trades time for memory, so q and v are run
    without it too."""
    plain = [Contestant(kind="bitsandbytes", format="nf4", scope=scope) for scope in options.scopes]
    documented = [msgspec.structs.replace(peer, checkpointing=True) for peer in plain if peer.scope == "all"]
    return documented + plain


def _ours(options: argparse.Namespace) -> list[Contestant]:
    """Every format in every scope, and the first format twice more: with a sketch of every batch, which `braid` needs
    now and then, and with both factors trained, as most merge rules have it."""
    contestants = []
    for scope in options.scopes:
        for format in options.formats:
            contestant = Contestant(
                kind="ours",
                format=format,
                scope=scope,
                compute="fp32" if format == "fp32" else options.compute,
                cache=options.cache if scope == "decoder" else "none",
                checkpointing=options.checkpointing,
            )
            contestants.append(contestant)
        first = contestants[-len(options.formats)]
        contestants += [msgspec.structs.replace(first, sketch=True), msgspec.structs.replace(first, trains_a=True)]
    return contestants


def _fast_compute(threads: int) -> Compute:
    """The dtype that a board with this speed of matrix products plans with."""
    measured = measure_matmul_speed(threads)
    return measured.compute if measured is not None else "fp32"


def _workload(shape: str, options: argparse.Namespace) -> Workload:
    return Workload(shape=shape, steps=options.steps or STEPS[shape], threads=options.threads, seed=SEED)


def _own(workload: Workload, contestant: Contestant, options: argparse.Namespace) -> Workload:
    """The workload with the contestant's micro-batch: peers get the whole batch, as documented."""
    if contestant.kind != "ours":
        return msgspec.structs.replace(workload, micro_batch=workload.batch)
    size = 1 if workload.shape in OURS_ONLY else min(options.micro_batch, workload.batch)
    return msgspec.structs.replace(workload, micro_batch=size)


# --- options ---------------------------------------------------------------------------------------------------------


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", type=_some_of(*SHAPES), default=["small", "base", "large"])
    parser.add_argument("--contestants", type=_some_of(*get_args(Kind)), default=list(get_args(Kind)))
    parser.add_argument("--scopes", type=_some_of(*get_args(Scope)), default=["all", "decoder"])
    parser.add_argument("--formats", type=_some_of(*get_args(Format)), default=["bf16", "int8", "nf4"], help="ours")
    parser.add_argument("--cache", choices=get_args(CacheDtype), default="bf16", help="ours, decoder scope")
    parser.add_argument("--compute", choices=get_args(Compute), help="ours; default: the faster one, measured")
    parser.add_argument("--micro-batch", type=int, default=4, help="ours; xl and xxl always take 1")
    parser.add_argument("--checkpointing", action="store_true", help="ours: compute each block again in backward")
    parser.add_argument("--steps", type=int, default=0, help="measured steps; default by shape")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="for everybody; default: torch's choice, all cores")
    parser.add_argument("--quick", action="store_true", help="small, bf16, two steps once: to see that it works")
    parser.add_argument("--json", help="write every run to this file")
    return parser.parse_args()


def _some_of(*names: str) -> Callable[[str], list[str]]:
    """A parser of comma-separated names, each one of `names`."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := sorted(set(chosen) - set(names)):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(names)}")
        return chosen

    return parse


if __name__ == "__main__":
    main()
