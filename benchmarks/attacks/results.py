"""What benchmarks.attacks finds."""

from __future__ import annotations

import msgspec

from benchmarks.attacks.kinds import Attack
from benchmarks.simulation.setting import Setting
from benchmarks.study.file import StudySoFar

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


class Study(StudySoFar, frozen=True, kw_only=True):
    """All that is known. `settings`: of the fleet; rule and seed are each run's own."""

    settings: Setting = msgspec.field(name="fleet")
    runs: tuple[Run, ...] = ()

    def losses(self, rule: str, attack: Attack, share: float, guard: str, seeds: tuple[int, ...]) -> list[float | None]:
        """By seed, of those that are known."""
        works = [Work(rule=rule, attack=attack, share=share, guard=guard, seed=seed) for seed in seeds]
        found = {run.work: run.loss for run in self.runs}
        return [found[work] for work in works if work in found]

    def has(self, work: Work) -> bool:
        return any(run.work == work for run in self.runs)
