"""Predicted over measured peak memory of the training worker, each setting in a fresh process.

    python -m benchmarks.memory.prediction                # every setting of benchmarks/memory/settings.py
    python -m benchmarks.memory.prediction --quick        # a fifth of them
    python -m benchmarks.memory.prediction --base small   # only the settings of one base

`builtin` is the base that Braid brings, on this machine's networkx docstrings, whose lengths differ; the others have
FLAN-T5's true shapes with random values, on texts as long as the settings allow. A setting is a round of few steps with
a sketch, its checkpoint and its message, the encoding pass included where there is a cache; or that pass alone. The
adapter's frozen part has the server's full rank. Exit status 1 where a ratio is outside RANGE.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import builtin_base
from benchmarks.memory.jobs import Comparison, compare
from benchmarks.memory.settings import BUILTIN, MAX_RANK, SEED, SETTINGS, Setting
from braid_common.units import MIB
from edge_client.host.machine import describe_machine

RANGE = (0.90, 1.15)
"""Limits of predicted/measured: below it a board may be killed, above it strands are lost."""

COLUMNS = "base | format | trains | | micro-batch | lengths | strands | predicted MiB | measured MiB | ratio"


def main() -> int:
    """Exit status 1 where a ratio is outside RANGE."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(setting.base for setting in SETTINGS))
    parser.add_argument("--base", choices=names, help="only this base's settings")
    parser.add_argument("--quick", action="store_true", help="only the settings that show a mistake soonest")
    parser.add_argument("--threads", type=int, default=1, help="of each worker (default: 1)")
    parser.add_argument("--bases", type=Path, help="folder that keeps the random bases (default: none are kept)")
    options = parser.parse_args()
    chosen = [s for s in SETTINGS if options.base in (None, s.base) and (s.quick or not options.quick)]
    with tempfile.TemporaryDirectory() as folder:
        return _print_table(chosen, options.bases or Path(folder), options.threads)


def _print_table(settings: Sequence[Setting], bases: Path, threads: int) -> int:
    print(f"{describe_machine('torch')}, {threads} {'thread' if threads == 1 else 'threads'}\n")
    print(f"| {COLUMNS} |\n{'| --- ' * (COLUMNS.count('|') + 1)}|", flush=True)
    rows: list[tuple[float, str]] = []
    start_s = time.monotonic()
    for setting in settings:
        comparison = compare(setting, _base(setting.base, bases), threads)
        rows.append((comparison.ratio, _row(setting, comparison)))
        print(rows[-1][1], flush=True)
        _tell_time_left(len(rows), len(settings), time.monotonic() - start_s)
    out_of_range = [row for ratio, row in rows if not RANGE[0] <= ratio <= RANGE[1]]
    ratios = [ratio for ratio, _ in rows]
    print(f"\npredicted/measured {min(ratios):.2f} to {max(ratios):.2f} in {len(rows)} settings")
    print(
        "\n".join([f"outside {RANGE[0]:.2f} to {RANGE[1]:.2f}:", *out_of_range] if out_of_range else ["none outside"])
    )
    return 1 if out_of_range else 0


def _base(name: str, folder: Path) -> Path:
    if name == BUILTIN:
        return builtin_base.folder()
    if not (folder / name).exists():
        from quantize.random_base import write_random_base  # imports torch

        write_random_base(folder / name, name, seed=SEED)
    return folder / name


def _row(setting: Setting, comparison: Comparison) -> str:
    cells = [
        setting.base,
        setting.format,
        setting.work,
        _extras(setting),
        str(setting.micro_batch),
        f"{setting.source}/{setting.target}",
        "" if setting.work == "encoding" else f"{comparison.n_strands}{', uneven' if setting.uneven else ''}",
        f"{comparison.predicted.total_bytes / MIB:.0f}",
        f"{comparison.measured_bytes / MIB:.0f}",
        f"{comparison.ratio:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _extras(setting: Setting) -> str:
    """The rest of a setting, beside its format, work and lengths."""
    extras = {
        f"{setting.cache} cache": setting.cache != "none",
        "checkpointing": setting.checkpointing,
        f"trains {'A' if setting.trains == 'a' else 'A and B'}": setting.trains != "b",
        f"uploads {setting.upload}": setting.upload != "bf16",
        f"{setting.compute} products": bool(setting.compute),
        f"rank at most {setting.max_rank}": setting.max_rank != MAX_RANK,
    }
    return ", ".join(name for name, is_so in extras.items() if is_so)


def _tell_time_left(n_done: int, n_all: int, elapsed_s: float) -> None:
    left_min = elapsed_s / n_done * (n_all - n_done) / 60
    print(f"{n_done} of {n_all}, about {left_min:.0f} min left", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
