"""The process in which one target is fuzzed: `python -m fuzz.child`, started by `python -m fuzz`.

libFuzzer draws inputs and keeps those that reach code which none before has reached; it never hands the process back.
What happens is told in lines of JSON: `Progress` every second and at the end, `Found` for each find.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris
import msgspec

from fuzz.contract import Mutate
from fuzz.lines import Found, Progress
from fuzz.places import corpus
from fuzz.watch import Find, Watch, peak_bytes

TRACED = ("aggregator", "wire", "edge_client", "braid_common")
"""Packages whose branches the fuzzer sees."""

TELL_EVERY_S = 1.0

BY_FORM = 0.8
"""Share of inputs that are changed by their form; the others are libFuzzer's own changes, which know what was compared
with what."""

OF_CORPUS = 0.4
"""Share of these that begin at an input of the corpus: most of those that libFuzzer keeps have been refused early."""


def main() -> None:
    """Fuzz until the time is up."""
    options = _options()
    with atheris.instrument_imports(include=list(TRACED)):
        from fuzz.targets import load  # traced from its first line on

        target = load(options.target)
    os.chdir(options.folder)
    with target.open(options.folder) as judge:
        watch = Watch(judge, options.found, _tell_find)
        clock = _Clock(options.seconds)
        seeds = [path.read_bytes() for path in corpus(options.target)]

        def once(data: bytes) -> None:
            watch.once(data)
            clock.tick(watch)

        atheris.Setup([sys.argv[0], *options.arguments], once, custom_mutator=_mutator(target.mutate, seeds))
        atheris.Fuzz()


class _Clock:
    """Tells how far the work is, and ends the process when its time is up: libFuzzer would not say what it did."""

    def __init__(self, seconds: float) -> None:
        self._next = time.monotonic()
        self._end = self._next + seconds

    def tick(self, watch: Watch) -> None:
        now = time.monotonic()
        if now < self._next and now < self._end:
            return
        self._next = now + TELL_EVERY_S
        is_last = now >= self._end
        outcomes = dict(watch.outcomes.most_common(20))
        left_s = max(0.0, self._end - now)
        _tell(Progress(watch.n_inputs, watch.slowest_s, peak_bytes(), left_s, outcomes, is_last))
        if is_last:
            os._exit(0)


def _mutator(mutate: Mutate, seeds: Sequence[bytes]) -> Callable[[bytes, int, int], bytes]:
    """The function that libFuzzer asks for another input, near one that it has kept."""

    def changed(data: bytes, max_bytes: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() >= BY_FORM:
            return bytes(atheris.Mutate(data, max_bytes))
        start = rng.choice(seeds) if rng.random() < OF_CORPUS else bytes(data)
        return mutate(start, rng)[:max_bytes]

    return changed


def _tell_find(find: Find, trace: str) -> None:
    _tell(Found(find.kind, find.where, find.message, find.file, trace))


def _tell(line: Progress | Found) -> None:
    try:
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # whoever started this has gone
        os._exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("arguments", nargs="*", help="libFuzzer's own")
    return parser.parse_args()


if __name__ == "__main__":
    main()
