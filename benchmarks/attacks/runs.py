"""Runs of benchmarks.attacks: fleets with bad boards, behind the server's own screening and defences."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import msgspec

from aggregator.merge.defences.defended import DEFENCES, defended
from aggregator.merge.sums import Contribution
from aggregator.run.screen import Sizes, sizes, too_far, too_large
from benchmarks.attacks.kinds import Attack, attacked, with_shuffled_labels
from benchmarks.simulation.setting import Setting
from benchmarks.simulation.texts import BoardText, boards, load_pools
from benchmarks.study.runner import Study
from braid_common.seeds import derive_seed
from edge_client.errors import ClientError
from wire.adam import farthest
from wire.errors import WireError

if TYPE_CHECKING:
    from benchmarks.simulation.federation import Federation

NOTHING, SCREENING = "nothing", "screening"
"""Guards besides the names of defences, all of which stand behind screening."""

MOST_ATTACKERS = 0.49
"""The largest share of bad boards that a defence can be told."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a run. `guard`: NOTHING, SCREENING or a defence; `share`: part of the boards that is bad (0…1)."""

    rule: str
    attack: Attack
    share: float
    guard: str
    seed: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one run.

    Attributes:
        loss: held-out, in nats per target token, the mean over the good boards' own text, after the last round; None
            where training did not stay finite.
        refused_bad, refused_good: parts (0…1) of the bad and the good boards' updates that were refused.
        cpu_s: CPU seconds of the whole run.
    """

    work: Work
    loss: float | None
    refused_bad: float
    refused_good: float
    cpu_s: float

    @property
    def key(self) -> Work:
        """The run's name in the study."""
        return self.work

    @property
    def line(self) -> str:
        """The run in one line."""
        work, loss = self.work, "not finite" if self.loss is None else f"{self.loss:.3f}"
        name = f"{work.rule}, {work.attack} {work.share:.0%}, {work.guard}, seed {work.seed}"
        return f"{name}: {loss}; {self.cpu_s:.0f} CPU s"


class AttackStudy(Study, frozen=True, kw_only=True):
    """All that is known. `settings`: of the fleet; rule and seed are each run's own."""

    settings: Setting = msgspec.field(name="fleet")
    runs: tuple[Run, ...] = ()


@dataclass
class _Tally:
    """Counts updates sent and refused."""

    bad: int = 0
    good: int = 0
    refused_bad: int = 0
    refused_good: int = 0

    def count(self, is_bad: bool, refused: bool) -> None:
        self.bad += is_bad
        self.good += not is_bad
        self.refused_bad += is_bad and refused
        self.refused_good += not is_bad and refused


def run_one(work: Work, *, settings: Setting, data_folder: Path, folder: Path) -> Run:
    """All rounds of one fleet. Called in worker processes, each with files of its own in `folder`."""
    start_s = time.process_time()
    setting = msgspec.structs.replace(settings, rule=work.rule, seed=work.seed)
    pools = load_pools(data_folder, folder, setting.partition)
    texts = boards(pools, setting.partition, work.seed, setting.n_train, setting.n_held_out)
    tally = _Tally()
    try:
        loss = _trained(setting, work, texts, folder / f"process-{os.getpid()}", tally)
    except (ClientError, WireError, ValueError) as error:  # a loss or a factor is not finite
        print(f"{work}: {error}", flush=True)
        loss = math.inf
    return Run(
        work=work,
        loss=loss if math.isfinite(loss) else None,
        refused_bad=tally.refused_bad / max(1, tally.bad),
        refused_good=tally.refused_good / max(1, tally.good),
        cpu_s=time.process_time() - start_s,
    )


def bad_boards(n_boards: int, share: float, seed: int) -> tuple[int, ...]:
    """The boards that are bad, in ascending order; a larger share has those of a smaller one and more."""
    order = random.Random(derive_seed(seed, "bad boards")).sample(range(n_boards), n_boards)
    return tuple(sorted(order[: round(share * n_boards)]))


def _trained(setting: Setting, work: Work, texts: Sequence[BoardText], folder: Path, tally: _Tally) -> float:
    """The good boards' mean held-out loss after the last round, in nats per target token."""
    from benchmarks.simulation.fleet import begin, new_fleet, point  # imports torch
    from benchmarks.simulation.session import process_session

    bad = bad_boards(len(texts), work.share, work.seed)
    if work.attack == "shuffled labels":
        texts = [with_shuffled_labels(text, work.seed) if i in bad else text for i, text in enumerate(texts)]
    fleet = new_fleet(setting, texts, folder, process_session())
    if work.guard in DEFENCES:
        fleet.rule = defended(fleet.rule, work.guard, min(work.share, MOST_ATTACKERS))
    begin(fleet)
    known: list[Sizes] = []
    for _ in range(setting.rounds):
        accepted = _round(fleet, work, bad, known, tally)
        if not accepted:
            break  # the server would wait for a quorum until somebody looks: the run stands still at this version
        fleet.merge(accepted)
        known = [sizes(added) for added in accepted]
    return fmean(loss for i, loss in enumerate(point(fleet).losses) if i not in bad)


def _round(
    fleet: Federation, work: Work, bad: Sequence[int], before: Sequence[Sizes], tally: _Tally
) -> list[Contribution]:
    """The contributions that are accepted of a round.

    Bad boards send first, when there is the least to compare them with: the sizes of the round `before`.
    """
    others = [i for i in range(len(fleet.boards)) if i not in bad]
    accepted: list[Contribution] = []
    cohort = list(before) if len(fleet.rule.TRAITS.cycle) == 1 else []
    order = [*(() if work.attack == "absent" else bad), *others]
    for board, update in zip(order, fleet.updates(order), strict=True):
        added = fleet.contribution(update)
        if board in bad:
            added = attacked(added, work.attack, derive_seed(work.seed, "attack", fleet.round, board))
        refused = work.guard != NOTHING and _is_refused(added, cohort, fleet)
        tally.count(board in bad, refused)
        if not refused:
            accepted.append(added)
            cohort.append(sizes(added))
    return accepted


def _is_refused(added: Contribution, cohort: Sequence[Sizes], fleet: Federation) -> bool:
    """Whether the server's screening refuses a contribution."""
    recipe = fleet.recipe
    most = farthest(recipe.learning_rate, recipe.local_steps)
    return too_far(added, most, recipe.upload) is not None or too_large(sizes(added), cohort) is not None
