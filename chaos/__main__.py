"""`python -m chaos`: a fleet of real processes under faults by seed, and what it lost (docs/develop/chaos.md).

Status 1 where an acknowledged update was lost or counted twice, where the model is another than without faults, where a
program ended by a bug, and where the run got stuck.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from braid_common.terminal import moves_cursor
from braid_common.units import show_seconds
from chaos.disk.file_faults import build_library, find_compiler
from chaos.federation import Chaos, Federation, Plan
from chaos.report import as_json, as_text
from chaos.suite import run_suite

DESCRIPTION = "Run a fleet of real processes under faults by seed, and say what it lost (docs/develop/chaos.md)."

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.5


@dataclass(slots=True)
class Progress:
    """A line that says how far a run is: redrawn on a terminal, written now and then elsewhere."""

    is_live: bool = field(default_factory=lambda: moves_cursor(sys.stderr))
    _phase: str = ""
    _began_s: float = 0.0
    _drawn_s: float = 0.0

    def __call__(self, phase: str, done: int, fleet: Federation) -> None:
        """Take in that so many rounds are over."""
        now_s, rounds = time.monotonic(), fleet.plan.rounds
        if phase != self._phase:
            self._phase, self._began_s, self._drawn_s = phase, now_s, 0.0
        if now_s - self._drawn_s < (LIVE_EVERY_S if self.is_live else PLAIN_EVERY_S):
            return
        self._drawn_s = now_s
        left = f", {show_seconds(round((now_s - self._began_s) / done * (rounds - done)))} left" if done else ""
        text = (
            f"{phase}: round {done} of {rounds}, {len(fleet.ledger.acknowledged)} updates acknowledged, "
            f"{sum(fleet.fired().values())} faults{left}"
        )
        sys.stderr.write(f"\r\x1b[2K{text}" if self.is_live else f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Remove the live line."""
        if self.is_live:
            sys.stderr.write("\r\x1b[2K")


def main(argv: list[str] | None = None) -> int:
    """Run, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=DESCRIPTION)
    parser.add_argument("--seed", type=int, default=1, help="of the faults and of the training [1]")
    parser.add_argument("--rounds", type=int, default=500, help="rounds of training [500]")
    parser.add_argument("--boards", type=int, default=8, help="boards in each round [8]")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the run with faults after so many")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well; - is the output")
    parser.add_argument("--folder", type=Path, help="keep stores and logs there [a folder that is removed]")
    flags = parser.parse_args(argv)
    folder = flags.folder or Path(tempfile.mkdtemp(prefix="braid-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    library = build_library(folder) if find_compiler() else None
    if library is None:
        print("no C compiler is here: files do not fail, and nobody is killed at their calls", file=sys.stderr)
    progress, began_s = Progress(), time.monotonic()
    plan = Plan(flags.seed, flags.rounds, flags.boards)
    result = asyncio.run(run_suite(folder, plan, Chaos(library, longest_s=60 * flags.minutes), progress))
    progress.close()
    elapsed_s = time.monotonic() - began_s
    if str(flags.json) == "-":
        print(json.dumps(as_json(result, elapsed_s), indent=2))
    else:
        print("\n".join(as_text(result, elapsed_s)))
        if flags.json is not None:
            flags.json.write_text(json.dumps(as_json(result, elapsed_s), indent=2) + "\n", encoding="utf-8")
    if flags.folder is None and result.is_good:
        shutil.rmtree(folder)
    elif not result.is_good:
        print(f"stores and logs are in {folder}", file=sys.stderr)
    return int(not result.is_good)


if __name__ == "__main__":
    sys.exit(main())
