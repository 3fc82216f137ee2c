"""Additions to the corpus: `python -m fuzz.keep TARGET…` copies what runs on this machine have found worth keeping.

Of the inputs that libFuzzer has kept, those go into the repository that reach a line which no input there reaches, the
shortest first, as long as the target's corpus stays below MOST_BYTES.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from fuzz.contract import Judge
from fuzz.places import ROOT, WORK, corpus, corpus_folder
from fuzz.targets import SHARES, load

MOST_BYTES = 32 * 1024
"""Bytes of one target's corpus: it is tried with every `make test`."""

TRACED = tuple(str(ROOT / name) for name in ("aggregator", "wire", "edge_client", "braid_common"))

Line = tuple[CodeType, int]


def main() -> int:
    """Copy what reaches new lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+", choices=list(SHARES))
    for name in parser.parse_args().targets:
        with tempfile.TemporaryDirectory() as folder, load(name).open(Path(folder)) as judge:
            n_added = keep(name, judge)
        size = sum(path.stat().st_size for path in corpus(name))
        print(f"{name}: {n_added} inputs added, {len(corpus(name))} inputs of {size:,} bytes in all")
    return 0


def keep(name: str, judge: Judge) -> int:
    """Copy what a target needs; how many inputs these are."""
    reached: set[Line] = set()
    for path in corpus(name):
        reached |= lines_of(judge, path.read_bytes())
    left = MOST_BYTES - sum(path.stat().st_size for path in corpus(name))
    n_added = 0
    for path in sorted((WORK / name).iterdir(), key=lambda path: path.stat().st_size):
        data = path.read_bytes()
        if len(data) > left:
            break
        if (new := lines_of(judge, data)) - reached:
            reached |= new
            (corpus_folder(name) / f"{path.name[:12]}.input").write_bytes(data)
            left, n_added = left - len(data), n_added + 1
    return n_added


def lines_of(judge: Judge, data: bytes) -> set[Line]:
    """The lines of our own code that an input reaches."""
    reached: set[Line] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(TRACED):
            return None
        reached.add((frame.f_code, frame.f_lineno))
        return trace

    with _tracing(trace):
        judge.check(data)
    judge.rest()
    return reached


@contextmanager
def _tracing(trace: Callable[..., Any]) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(trace)
    threading.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(None)


if __name__ == "__main__":
    sys.exit(main())
