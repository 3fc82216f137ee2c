"""A run's log: a line of JSON for programs in ``log.jsonl``, the same on the terminal for people."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builtin_base.training.speed import Peak
from builtin_base.training.state import State

LOG = "log.jsonl"


def log(folder: Path, row: Mapping[str, Any]) -> None:
    """Append a row to ``log.jsonl`` and print it, with the time of day."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"at": time.strftime("%m-%d %H:%M:%S"), **row}) + "\n")
    print(time.strftime("%H:%M:%S"), json.dumps(row), flush=True)


@dataclass(slots=True)
class Since:
    """Sums since the last line of the log."""

    step: int
    n_tokens: int
    clock_s: float = field(default_factory=time.monotonic)
    cpu_s: float = field(default_factory=time.process_time)
    losses: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, losses: Mapping[str, float]) -> None:
        """Add a step's losses; the second batch of a kind, ``span_2``, counts with the first."""
        for name, loss in losses.items():
            self.losses[name.partition("_2")[0]].append(loss)

    def row(self, state: State, peak: Peak | None) -> dict[str, Any]:
        """Sum up: mean losses, tokens a second of the clock and of the processors, and the share of the matrix peak."""
        n_tokens = state.n_tokens - self.n_tokens
        clock_s, cpu_s = time.monotonic() - self.clock_s, time.process_time() - self.cpu_s
        speed: dict[str, float] = {
            "tokens_per_s": round(n_tokens / clock_s),
            "tokens_per_cpu_s": round(n_tokens / cpu_s),
        }
        if peak:
            speed["peak_share"] = round(peak.share(n_tokens, clock_s, cpu_s), 3)
        losses = {name: round(sum(values) / len(values), 4) for name, values in sorted(self.losses.items())}
        return {"step": state.step, "tokens": state.n_tokens, **speed, **losses}
