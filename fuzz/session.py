"""One target's part of a run: its process, what that tells, and what it leaves behind when it breaks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from fuzz.lines import Found, Progress
from fuzz.places import FOUND, ROOT, WORK, corpus_folder

CHILD = ("-m", "fuzz.child")
"""Arguments that start a target's process."""

LONGEST_S = 60
"""An input that never ends is given up after this, and the process with it."""

PEAK_MIB = 512
"""Memory that a target's process may have in all: the code and its libraries, the fuzzer's own tables, and a server."""

PROCESS_S = 150.0
"""How long one process lives. What traces the code keeps some 2 KB of each request for good (atheris 3.0), which would
look like a leak of the server."""

MOST_BREAKS = 5
"""Processes of one target that may break; then its part of the run is over."""

_COVERAGE = re.compile(rb"cov: (\d+) ft: \d+ corp: (\d+)")
_ARTEFACTS = {"crash-": "process crashed", "timeout-": "never ends", "oom-": "memory", "leak-": "memory"}

_LINES = msgspec.json.Decoder(Progress | Found)


@dataclass
class Result:
    """The outcome for one target; several processes of it add up.

    Attributes:
        inputs: tried in all.
        coverage: edges of traced code that were reached.
        kept: inputs that reach them.
        outcomes: how often what became of an input.
        finds: each of another kind or place.
    """

    target: str
    inputs: int = 0
    took_s: float = 0.0
    coverage: int = 0
    kept: int = 0
    slowest_s: float = 0.0
    peak_bytes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    finds: list[Found] = field(default_factory=list)

    @property
    def n_500(self) -> int:
        """Finds that are answers with 500."""
        return sum(find.kind == "500" for find in self.finds)


Tell = Callable[[Result, float], None]
"""Hears of progress: the result so far, and the seconds left."""


def fuzz(result: Result, max_bytes: int, seconds: float, seed: int, tell: Tell) -> None:
    """Fuzz one target for so long, in as many processes as it takes; `result` grows meanwhile."""
    left_s, breaks = seconds, 0
    while left_s > 0 and breaks < MOST_BREAKS:
        given_s = min(left_s, PROCESS_S)
        after_s, arguments = left_s - given_s, _arguments(result.target, max_bytes, given_s, seed)
        unused_s = _run_process(result, arguments, given_s, _later(tell, after_s))
        breaks += unused_s > 0
        left_s, seed = after_s + unused_s, seed + 1


def _later(tell: Tell, after_s: float) -> Tell:
    """Progress of one process as that of all: others come after it."""
    return lambda result, left_s: tell(result, left_s + after_s)


def _arguments(target: str, max_bytes: int, seconds: float, seed: int) -> list[str]:
    kept = WORK / target
    kept.mkdir(parents=True, exist_ok=True)
    (FOUND / target).mkdir(parents=True, exist_ok=True)
    return [
        *("--target", target, "--seconds", f"{seconds:.1f}", "--found", str(FOUND / target)),
        "--",
        *(f"-seed={seed % 2**31 or 1}", f"-max_len={max_bytes}", f"-timeout={LONGEST_S}", f"-rss_limit_mb={PEAK_MIB}"),
        *("-len_control=0", "-mutate_depth=2"),  # inputs keep their form: whole at once, changed a little
        *(f"-artifact_prefix={FOUND / target}/", str(kept), str(corpus_folder(target))),
    ]


def _run_process(result: Result, arguments: list[str], seconds: float, tell: Tell) -> float:
    """Run one process to its end; the seconds that are left of its time."""
    before, artefacts = replace(result, outcomes=Counter(result.outcomes)), _artefacts(result.target)
    last, tail = Progress(0, 0.0, 0, seconds, {}), deque[bytes](maxlen=60)
    with _folder() as folder, _started(folder, arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told = _told(line)
            if isinstance(told, Progress):
                last = told
                _count(result, before, told, seconds)
                tell(result, told.left_s)
            elif told is not None:
                _add(result, told)
            elif match := _COVERAGE.search(line):
                result.coverage, result.kept = max(result.coverage, int(match[1])), int(match[2])
            elif not line.startswith(b"INFO: Instrumenting"):
                tail.append(line)
    if last.is_last and process.returncode == 0:
        return 0.0
    trace = b"".join(tail).decode(errors="replace")
    new = sorted(_artefacts(result.target) - artefacts)
    for path in new:
        _add(result, Found(_kind(path), "", f"the process ended with status {process.returncode}", str(path), trace))
    if not new:
        words = "without an input that shows it"
        _add(result, Found("process crashed", f"status {process.returncode}", words, "", trace))
    return max(last.left_s, 1.0)


@contextmanager
def _started(folder: str, arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A target's process; it ends with the block, at once where that fails."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TMPDIR": folder, "PYTHONPATH": paths}
    command = [sys.executable, *CHILD, "--folder", folder, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def _count(result: Result, before: Result, told: Progress, seconds: float) -> None:
    """Add a process's counts so far to those before it."""
    result.inputs, result.took_s = before.inputs + told.inputs, before.took_s + seconds - told.left_s
    result.outcomes = before.outcomes + Counter(told.outcomes)
    result.slowest_s = max(result.slowest_s, told.slowest_s)
    result.peak_bytes = max(result.peak_bytes, told.peak_bytes)


def _told(line: bytes) -> Progress | Found | None:
    if not line.startswith(b"{"):
        return None
    try:
        told: Progress | Found = _LINES.decode(line)
    except msgspec.DecodeError:
        return None
    return told


def _add(result: Result, find: Found) -> None:
    if all((known.kind, known.where) != (find.kind, find.where) for known in result.finds):
        result.finds.append(find)


def _artefacts(target: str) -> set[Path]:
    return {path for path in (FOUND / target).iterdir() if path.name.startswith(tuple(_ARTEFACTS))}


def _kind(path: Path) -> str:
    return next(kind for start, kind in _ARTEFACTS.items() if path.name.startswith(start))


def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder on a disk in memory, where there is one: a server's is written thousands of times a second."""
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="fuzz-", dir=in_memory)
