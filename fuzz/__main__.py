"""A run of the fuzzer over all targets, or some, one after another.

    python -m fuzz --minutes 10
    python -m fuzz --minutes 30 --only requests crowds

Each target gets its share of the time. A find is told at once, with the command that repeats it; the run goes on. At
the end there is one table, and the status is 1 where something was found.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from braid_common.units import MIB
from fuzz.lines import Found
from fuzz.session import PEAK_MIB, Result, fuzz
from fuzz.targets import SHARES, load
from fuzz.watch import SLOW_S

TELL_EVERY_S = 10.0

NEEDED = (
    "the fuzzer needs atheris: pip install 'braid-fl[fuzz]'; it has wheels for x86-64 Linux and Python 3.10 to 3.14"
)


def main() -> int:
    """Fuzz, and print the table."""
    options = _options()
    if importlib.util.find_spec("atheris") is None:
        print(NEEDED, file=sys.stderr)
        return 2
    names = options.only or list(SHARES)
    results: list[Result] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was found is told
    with suppress(KeyboardInterrupt):
        _fuzz_each(names, options, results)
    print()
    print(table(results))
    print(verdict(results))
    return int(any(result.finds for result in results))


def _fuzz_each(names: Sequence[str], options: argparse.Namespace, results: list[Result]) -> None:
    """Fuzz one target after another; `results` grows with them, so that those of a run that is stopped are there."""
    whole = sum(SHARES[name] for name in names)
    for name in names:
        target = load(name)
        seconds = options.minutes * 60 * SHARES[name] / whole
        print(f"{name}: {target.about}, {seconds:.0f} s", flush=True)
        result, teller = Result(name), _Teller()
        results.append(result)
        fuzz(result, target.max_bytes, seconds, options.seed, teller.tell)
        teller.tell_finds(result)


class _Teller:
    """Prints how far a target is, now and then, and what it has found as soon as it is known."""

    def __init__(self) -> None:
        self._next, self._n_told = time.monotonic() + TELL_EVERY_S, 0

    def tell_finds(self, result: Result) -> None:
        for find in result.finds[self._n_told :]:
            _tell_find(result.target, find)
        self._n_told = len(result.finds)

    def tell(self, result: Result, left_s: float) -> None:
        self.tell_finds(result)
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + TELL_EVERY_S
        print(f"  {progress(result)}, {left_s:.0f} s left", flush=True)


def progress(result: Result) -> str:
    """A target's figures in one line."""
    rate = result.inputs / max(result.took_s, 1e-9)
    finds = "1 find" if len(result.finds) == 1 else f"{len(result.finds)} finds"
    return (
        f"{result.inputs:,} inputs, {rate:,.0f}/s, coverage {result.coverage:,}, slowest {result.slowest_s:.2f} s, "
        f"{result.peak_bytes / MIB:.0f} MiB, {finds}"
    )


def table(results: list[Result]) -> str:
    """All figures, a line for each target and one for all together."""
    heads = ("target", "inputs", "per s", "coverage", "kept", "crashes", "500s", "slow", "slowest s", "peak MiB")
    rows = [_row(result) for result in results]
    inputs = sum(result.inputs for result in results)
    slowest = max(result.slowest_s for result in results)
    peak = max(result.peak_bytes for result in results)
    columns = [sum(int(row[i]) for row in rows) for i in (5, 6, 7)]
    rows.append(("all", f"{inputs:,}", "", "", "", *map(str, columns), f"{slowest:.2f}", f"{peak / MIB:.0f}"))
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (heads, *rows)
    ]
    return "\n".join(lines)


def _row(result: Result) -> tuple[str, ...]:
    slow = sum(find.kind in ("slow", "never ends") for find in result.finds)
    crashes = len(result.finds) - result.n_500 - slow
    rate = result.inputs / max(result.took_s, 1e-9)
    return (
        *(result.target, f"{result.inputs:,}", f"{rate:,.0f}", f"{result.coverage:,}", f"{result.kept:,}"),
        *(str(crashes), str(result.n_500), str(slow), f"{result.slowest_s:.2f}", f"{result.peak_bytes / MIB:.0f}"),
    )


def verdict(results: list[Result]) -> str:
    """The run in one sentence, and what became of requests."""
    n_finds = sum(len(result.finds) for result in results)
    outcomes = "\n".join(
        f"  {result.target}: " + ", ".join(f"{count:,} {word}" for word, count in result.outcomes.most_common(8))
        for result in results
    )
    bounds = f"no input took {SLOW_S:.0f} s, no process {PEAK_MIB} MiB"
    return f"{outcomes}\n" + (f"{n_finds} finds, see above" if n_finds else f"nothing found; {bounds}")


def _tell_find(target: str, find: Found) -> None:
    first = find.message.partition("\n")[0]  # a traceback follows it in some
    print(f"FOUND in {target}: {find.kind} {find.where}: {first}")
    if find.trace:
        print("\n".join(f"    {line}" for line in find.trace.rstrip().splitlines()))
    if find.file:
        print(f"    python -m fuzz.replay {target} {find.file}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together (10)")
    parser.add_argument("--only", nargs="+", choices=list(SHARES), metavar="TARGET", help=", ".join(SHARES))
    parser.add_argument("--seed", type=int, default=int(time.time()), help="for libFuzzer; by default the time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
