"""The cost of a round's merge: time, memory and error, against a dense SVD per layer and a naive stack.

    python -m benchmarks.merge_speed                                    # small and base, 20 and 200 boards
    python -m benchmarks.merge_speed --shapes large xl --layers 4       # a subset of the layers, which the table names

The weights are q and v of every attention of FLAN-T5, with random adapters; boards have ranks 4, 8, 16 and 32 in turn,
and the sum is cut to rank 32. Every contestant runs in a process of its own, on all cores, as often as `--repeats`
says unless one run takes longer than 20 s; numbers are medians. CPU seconds are of all its threads: where others use
the machine they say more than the clock, with `--threads 1`. Boards are made one by one, fully decoded, and folded as
they arrive: making them is not counted as time, and one of them is in everybody's memory. Memory is the peak (VmHWM)
less what was resident once libraries were imported; so ours includes the state of the run, and peers' does not.

The error is the first weight's distance from the dense float64 sum cut by its SVD, over that one's norm. Nothing is
extrapolated. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from braid_common.units import MIB
from edge_client.host.machine import describe_machine
from wire.run import Weight

LONG_S = 20.0
"""A run that takes longer is not repeated."""

_FIELDS = ("fold_s", "merge_s", "total_s", "cpu_s", "peak_bytes")

_TITLES = (
    *("boards", "contestant", "runs", "fold s", "merge s", "sum s", "CPU s"),
    *("dense SVD ÷ this", "by CPU s", "peak MiB", "error"),
)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant in one process.

    Attributes:
        fold_s, merge_s: wall time of folding all boards, and of the merge.
        cpu_s: CPU time of both, all threads.
        peak_bytes: peak memory beyond the imported libraries.
        error: relative distance from the best merge of the first weight.
    """

    fold_s: float
    merge_s: float
    cpu_s: float
    peak_bytes: int
    error: float

    @property
    def total_s(self) -> float:
        """Wall time of folding and merging."""
        return self.fold_s + self.merge_s


def main() -> None:
    options = _options()
    if options.step:
        name, shape, boards, layers = options.step
        print(msgspec.json.encode(_measure(name, _weights(shape, int(layers)), int(boards))).decode())
        return
    print(f"{describe_machine('numpy', 'torch')}, {options.threads or 'all'} threads\n", flush=True)
    for shape in options.shapes:
        _measure_shape(shape, options)


def _measure_shape(shape: str, options: argparse.Namespace) -> None:
    weights = _weights(shape, options.layers)
    sides = " and ".join(sorted({f"{weight.rows} × {weight.columns}" for weight in weights}))
    n_all = len(_weights(shape, 0))
    part = f"the first {len(weights)} of its {n_all}" if len(weights) < n_all else f"all {n_all}"
    print(f"### {shape}: {part} q and v, {sides}\n", flush=True)
    print("| " + " | ".join(_TITLES) + " |\n| --- | --- |" + " ---: |" * (len(_TITLES) - 2), flush=True)
    for boards in options.clients:
        dense: list[Run] = []
        for name in options.contestants:
            runs = _runs(name, shape, boards, options)
            dense = runs if name == "dense SVD" else dense
            print(f"| {boards} | {name} | {_cells(runs, dense)} |", flush=True)
    print()


def _runs(name: str, shape: str, boards: int, options: argparse.Namespace) -> list[Run]:
    runs: list[Run] = []
    while len(runs) < options.repeats and not any(run.total_s > LONG_S for run in runs):
        command = [
            sys.executable,
            "-m",
            "benchmarks.merge_speed",
            "--step",
            name,
            shape,
            str(boards),
            str(options.layers),
        ]
        threads = {key: str(options.threads) for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        environment = {**os.environ, **(threads if options.threads else {})}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
        runs.append(msgspec.json.decode(done.stdout, type=Run))
    return runs


def _cells(runs: Sequence[Run], dense: Sequence[Run]) -> str:
    fold_s, merge_s, total_s, cpu_s, peak = (_median(runs, field) for field in _FIELDS)
    ratios = " | ".join(
        f"{_median(dense, field) / _median(runs, field):.1f}" if dense else "–" for field in ("total_s", "cpu_s")
    )
    error = max(run.error for run in runs)
    times = f"{fold_s:.2f} | {merge_s:.2f} | {total_s:.2f} | {cpu_s:.2f}"
    return f"{len(runs)} | {times} | {ratios} | {peak / MIB:,.0f} | {error:.1e}"


def _median(runs: Sequence[Run], field: str) -> float:
    return float(statistics.median(getattr(run, field) for run in runs))


# --- in a process of its own -----------------------------------------------------------------------------------------


def _measure(name: str, weights: tuple[Weight, ...], n_boards: int) -> Run:
    """Fold and merge `n_boards` boards; memory from here on."""
    from benchmarks.merge_speed.contestants import CONTESTANTS, PEERS, WITH_SKETCHES, board, relative_error
    from edge_client.host.worker_memory import peak_bytes, resident_bytes

    _warm_up(name in PEERS)
    before = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    contestant = CONTESTANTS[name](weights)
    fold_s = cpu_s = 0.0
    for number in range(n_boards):
        added = board(weights, number, contestant.sent, name in WITH_SKETCHES)
        wall_s, busy_s = _timed(partial(contestant.fold, added))
        fold_s, cpu_s = fold_s + wall_s, cpu_s + busy_s
        del added
    merge_s, busy_s = _timed(contestant.merge)
    peak = peak_bytes() - before
    error = relative_error(name, contestant, weights, n_boards)
    return Run(fold_s=fold_s, merge_s=merge_s, cpu_s=cpu_s + busy_s, peak_bytes=peak, error=error)


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds that `work` takes: by the clock, and of all this process's threads."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start_s, time.process_time() - start_cpu_s


def _warm_up(peer: bool) -> None:
    """Load what a contestant computes with, as a server has that ran before."""
    import numpy as np

    np.linalg.eigh(np.eye(4))
    if peer:
        import torch

        torch.linalg.svd(torch.eye(64))
    gc.freeze()  # nobody pays for looking through what was imported; the server freezes it too


def _weights(shape: str, layers: int) -> tuple[Weight, ...]:
    """q and v of every attention of a FLAN-T5, or the first `layers` of them."""
    from quantize.random_base import SHAPES
    from wire.manifest import t5_weights

    weights = tuple(w for w in t5_weights(SHAPES[shape], "all") if w.name.endswith((".q", ".v")))
    return weights[:layers] if layers else weights


# --- options ---------------------------------------------------------------------------------------------------------


def _options() -> argparse.Namespace:
    from benchmarks.merge_speed.contestants import CONTESTANTS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge_speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=("small", "base", "large", "xl"), default=["small", "base"])
    parser.add_argument("--clients", nargs="+", type=int, default=[20, 200], help="boards of a round")
    parser.add_argument("--contestants", nargs="+", choices=tuple(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--layers", type=int, default=0, help="only so many of the weights; default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="for everybody; default: all cores")
    parser.add_argument("--quick", action="store_true", help="two weights, three boards, once: to see that it works")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)  # what a fresh process does
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.clients, options.layers, options.repeats = ["small"], [3], 2, 1
    return options


if __name__ == "__main__":
    main()
