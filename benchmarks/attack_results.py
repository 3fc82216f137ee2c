"""What benchmarks.attacks finds, kept in a file after every run so that an interruption loses one run at most."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.attack_kinds import Attack
from benchmarks.fleet_setting import Setting
from wire.atomic_file import write_atomically

NOTHING, SCREENING = "nothing", "screening"
"""Guards besides the names of defences, all of which stand behind screening."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Which run. `guard`: NOTHING, SCREENING or a defence; `share`: of boards that are bad."""

    rule: str
    attack: Attack
    share: float
    guard: str
    seed: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """`loss`: held-out, in nats per target token, the mean over the good boards' own text, after the last round; None
    where training did not stay finite. `refused`: parts of the bad and the good boards' updates that were refused."""

    work: Work
    loss: float | None
    refused_bad: float
    refused_good: float
    cpu_s: float


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known. `fleet`: what all runs share; rule and seed are each run's own."""

    machine: str
    fleet: Setting
    runs: tuple[Run, ...] = ()

    def losses(self, rule: str, attack: Attack, share: float, guard: str, seeds: tuple[int, ...]) -> list[float | None]:
        """By seed, of those that are known."""
        works = [Work(rule=rule, attack=attack, share=share, guard=guard, seed=seed) for seed in seeds]
        found = {run.work: run.loss for run in self.runs}
        return [found[work] for work in works if work in found]


class Store:
    """A study, and the file that follows it. Raises SystemExit where the file holds a study of other settings."""

    def __init__(self, path: Path | None, study: Study) -> None:
        self._path = path
        self.study = study
        if path is not None and path.exists():
            found = msgspec.json.decode(path.read_bytes(), type=Study)
            if found.fleet != study.fleet:
                raise SystemExit(f"{path} holds a study of other settings: remove it or name another file")
            self.study = found

    def has(self, work: Work) -> bool:
        return any(run.work == work for run in self.study.runs)

    def add(self, run: Run) -> None:
        self.study = msgspec.structs.replace(self.study, runs=(*self.study.runs, run))
        if self._path is not None:
            write_atomically(self._path, msgspec.json.format(msgspec.json.encode(self.study)))
