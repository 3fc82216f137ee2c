"""The watch over a target: each input's outcome, time and memory, and the finds among them. Knows no fuzzer."""

from __future__ import annotations

import hashlib
import resource
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from braid_common.units import MIB
from fuzz.contract import BrokenError, Judge
from fuzz.places import ROOT

SLOW_S = 1.0
"""An input that takes longer is a find, if it does three times in a row: other programs may have had the processor."""

TRIES = 3

GROWTH_BYTES = 64 * MIB
"""Memory that one input of a few kilobytes may add to the process's peak: claims of gigabytes are looked for."""


@dataclass(frozen=True, slots=True)
class Find:
    """A promise that was broken.

    Attributes:
        kind: in a word or two, such as "500" or "slow".
        where: the place in the code, as far as it is known.
        message: the exception's words.
        file: where the input lies that broke it first.
    """

    kind: str
    where: str
    message: str
    file: str


class Watch:
    """Watches one target.

    Args:
        judge: the target's.
        found: folder where inputs of finds are kept.
        tell: hears of each find of a new kind or place.
    """

    def __init__(self, judge: Judge, found: Path, tell: Callable[[Find, str], None]) -> None:
        self._judge, self._found, self._tell = judge, found, tell
        self._seen: Counter[tuple[str, str]] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.n_inputs, self.slowest_s = 0, 0.0
        self._peak_bytes = peak_bytes()

    def once(self, data: bytes) -> None:
        """Try one input. Nothing is raised: a find is told, once for each kind and place, and the work goes on."""
        self.n_inputs += 1
        took_s = self._timed(data)
        for _ in range(TRIES - 1):
            if took_s <= SLOW_S:
                break
            took_s = min(took_s, self._timed(data))
        self.slowest_s = max(self.slowest_s, took_s)
        if took_s > SLOW_S:
            self._note("slow", "", f"took {took_s:.1f} s at least, {TRIES} times", "", data)
        peak = peak_bytes()
        if self.n_inputs > 1 and peak - self._peak_bytes > GROWTH_BYTES:
            grown = (peak - self._peak_bytes) // MIB
            self._note("memory", "", f"added {grown} MiB for {len(data)} bytes", "", data)
        self._peak_bytes = peak

    @property
    def n_finds(self) -> int:
        """Finds of different kinds and places."""
        return len(self._seen)

    def count(self, kind: str) -> int:
        """How many finds of one kind there were, of different places."""
        return sum(one == kind for one, _ in self._seen)

    def _timed(self, data: bytes) -> float:
        begin = time.perf_counter()
        if word := self._tried(lambda: self._judge.check(data), data):
            self.outcomes[word] += 1
        took_s = time.perf_counter() - begin
        self._tried(self._judge.rest, data)
        return took_s

    def _tried(self, work: Callable[[], str | None], data: bytes) -> str | None:
        try:
            return work()
        except BrokenError as error:
            self._note(error.kind, error.where, str(error), traceback.format_exc(), data)
        except Exception as error:  # noqa: BLE001 - any exception that a target lets through is what is looked for
            kind = type(error).__name__
            self._note(kind, place_of(error), str(error), traceback.format_exc(), data)
        return None

    def _note(self, kind: str, where: str, message: str, trace: str, data: bytes) -> None:
        self._seen[kind, where] += 1
        if self._seen[kind, where] > 1:
            return
        self._found.mkdir(parents=True, exist_ok=True)
        path = self._found / f"{kind.lower().replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:12]}.input"
        path.write_bytes(data)
        self._tell(Find(kind, where, message[:500], str(path)), trace)


def place_of(error: BaseException) -> str:
    """File and function of the innermost frame of our own code in which an exception was raised; "" for none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if frame.filename.startswith(f"{ROOT}/") and "/site-packages/" not in frame.filename
    ]
    return f"{Path(own[-1].filename).relative_to(ROOT)} {own[-1].name}" if own else ""


def peak_bytes() -> int:
    """The most memory that this process has had at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
