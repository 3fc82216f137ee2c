"""Whole rounds of real clients under real memory limits: the plan, the memory that it took, and whether it kept to it.

    python -m benchmarks.memory.never_killed                                 # an hour and more on two cores
    python -m benchmarks.memory.never_killed --base builtin --limits 450,700

Each row is a new run of one round: an aggregator outside, `edge-client join` in a control group that holds so much
memory and no swap (benchmarks/memory/control_group.py; takes root). `small` and `base` are FLAN-T5's shapes with random
values. A client may complete its round or refuse to begin; a process that the kernel kills is a promise broken.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory.control_group import control_group
from benchmarks.memory.limited_join import Joined, aggregator, join, measure_board, new_state, write_text
from braid_common.units import MIB
from edge_client.errors import ExitCode
from edge_client.host.machine import describe_machine

BUILTIN = "builtin"
BASES = (BUILTIN, "small", "base")
LIMITS_MIB = (450, 550, 700, 900, 1200, 1600, 2200, 3072)
SETTINGS = {
    "train.batch": "8",
    "train.micro_batch": "8",
    "train.local_steps": "3",
    "train.max_source_tokens": "256",
    "train.max_target_tokens": "64",
}
"""All else is as `aggregator init` sets it."""

COLUMNS = (
    "limit MiB",
    "base",
    "plan",
    "predicted MiB",
    "probe MiB",
    "worker's peak MiB",
    "group's peak MiB",
    "outcome",
)
"""Predicted, probe and worker's peak are of the training worker. The group's peak is all that was charged to the group,
the client and pages of files that the kernel could drop included."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of one client under one limit."""

    limit_mib: int
    base: str
    joined: Joined
    oom_kills: int
    group_peak_bytes: int

    @property
    def is_kept(self) -> bool:
        """Completed or refused, and nothing was killed."""
        return not self.oom_kills and self.joined.exit_code in (ExitCode.OK, ExitCode.MEMORY)

    def row(self) -> str:
        """The trial as a line of the table."""
        peaks = [int(event["peak_bytes"]) for event in self.joined.events if "peak_bytes" in event]
        cells = [str(self.limit_mib), self.base, *self._planned(), _mib(max(peaks, default=0))]
        return f"| {' | '.join([*cells, _mib(self.group_peak_bytes), self._outcome()])} |"

    def _planned(self) -> list[str]:
        """Three cells: the plan in words, its predicted peak (MiB), and that of the probe before the round (MiB)."""
        plans, probes = self.joined.of("plan"), self.joined.of("probe")
        if not plans:
            return ["–", "–", "–"]
        plan = plans[-1]
        words = [f"{plan['format']}, {plan['micro_batch']} at a time, {plan['ranks_total']} strands"]
        words += ["checkpointing"] * plan["checkpointing"] + [f"{plan['cache']} cache"] * (plan["cache"] != "none")
        words += ["encoder frozen"] * plan["frozen_encoder"]
        tried = _mib(probes[-1]["peak_bytes"]) if probes else "–"
        return [", ".join(words), _mib(plan["predicted_peak_bytes"]), tried]

    def _outcome(self) -> str:
        ends = {ExitCode.OK: "completed", ExitCode.MEMORY: "refused"}
        end = ends.get(ExitCode(max(0, self.joined.exit_code)), f"failed: {self.joined.events[-1:]}")
        backed_off = f", backed off {len(self.joined.of('backed_off'))} times" * bool(self.joined.of("backed_off"))
        return end + backed_off + f", **{self.oom_kills} killed**" * bool(self.oom_kills)


def main() -> int:
    """Exit status 1 where a process was killed or a client failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=BASES, action="append", help="only this base; may be given again")
    parser.add_argument("--limits", default=",".join(map(str, LIMITS_MIB)), help="MiB, with commas")
    parser.add_argument("--quick", action="store_true", help="the builtin base under 700 MiB, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.base, options.limits = [BUILTIN], "700"
    print(f"{describe_machine('torch')}\n")
    print(f"| {' | '.join(COLUMNS)} |")
    print("| --- " * len(COLUMNS) + "|")
    trials = []
    with tempfile.TemporaryDirectory() as folder:
        matmul_speed = measure_board(Path(folder) / "measured")
        for base in options.base or BASES:
            model = _model(base, Path(folder) / base)
            for limit_mib in map(int, options.limits.split(",")):
                trials.append(asyncio.run(_trial(limit_mib, base, model, matmul_speed)))
                print(trials[-1].row(), flush=True)
    kept = sum(trial.is_kept for trial in trials)
    completed = sum(trial.joined.exit_code == ExitCode.OK for trial in trials)
    print(f"\n{kept} of {len(trials)} promises kept, {completed} rounds completed")
    return int(kept < len(trials))


def _model(base: str, folder: Path) -> str:
    if base == BUILTIN:
        return BUILTIN
    from quantize.random_base import write_random_base  # imports torch

    write_random_base(folder, base, seed=7)
    return str(folder)


async def _trial(limit_mib: int, base: str, model: str, matmul_speed: Path) -> Trial:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_text(folder / "text.jsonl", words=260)
        state = new_state(folder / "state", matmul_speed)
        async with aggregator(folder / "server", model, SETTINGS) as server:
            with control_group("never-killed", limit_mib * MIB) as group:
                joined = await join(group, server, state, model=model, data=data)
                return Trial(limit_mib, base, joined, group.oom_kills, group.peak_bytes)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.0f}" if size_bytes else "–"


if __name__ == "__main__":
    raise SystemExit(main())
