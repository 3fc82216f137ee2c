"""Inputs that were kept, tried again without a fuzzer: `python -m fuzz.replay TARGET FILE…`; status 1 for a find."""

from __future__ import annotations

import argparse
import faulthandler
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fuzz.places import corpus
from fuzz.targets import SHARES, load
from fuzz.watch import Find, Watch


def replay(name: str, files: Iterable[Path]) -> tuple[Watch, list[tuple[Find, str]]]:
    """Try inputs one after another; what was watched, and each find with its traceback."""
    finds: list[tuple[Find, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        work, found = Path(folder) / "work", Path(folder) / "found"
        work.mkdir()
        with load(name).open(work) as judge:
            watch = Watch(judge, found, lambda find, trace: finds.append((find, trace)))
            for file in files:
                before = len(finds)
                watch.once(file.read_bytes())
                finds[before:] = [
                    (Find(find.kind, find.where, find.message, str(file)), trace) for find, trace in finds[before:]
                ]
    return watch, finds


def main() -> int:
    """Print what became of the inputs."""
    faulthandler.enable()  # an input that ends the process says where; libFuzzer, which keeps it, does not
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=list(SHARES))
    parser.add_argument("files", nargs="*", type=Path, help="inputs; the target's corpus where none is named")
    options = parser.parse_args()
    watch, finds = replay(options.target, options.files or corpus(options.target))
    for find, trace in finds:
        print(f"{find.file}: {find.kind} {find.where}: {find.message}\n{trace}")
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in watch.outcomes.most_common())
    print(f"{watch.n_inputs} inputs, {len(finds)} finds, slowest {watch.slowest_s:.3f} s: {outcomes}")
    return int(bool(finds))


if __name__ == "__main__":
    sys.exit(main())
