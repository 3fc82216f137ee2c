"""One run of benchmarks.attacks: a fleet with bad boards, behind the server's own screening and defences. Called in
worker processes."""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean

import msgspec
import torch

from aggregator.merge.defences.defended import DEFENCES, defended
from aggregator.merge.sums import Contribution
from aggregator.run.screen import Sizes, sizes, too_far, too_large
from benchmarks.attacks.kinds import attacked, with_shuffled_labels
from benchmarks.attacks.results import NOTHING, Run, Work
from benchmarks.simulation.federation import Fleet
from benchmarks.simulation.session import FleetSession
from benchmarks.simulation.setting import Setting
from benchmarks.simulation.texts import BoardText, boards, load_pools
from braid_common.seeds import derive_seed
from edge_client.errors import ClientError
from edge_client.host.worker_memory import keep_malloc_small
from wire.adam import farthest
from wire.errors import WireError


def begin_worker() -> None:
    """Call first in every worker process."""
    keep_malloc_small()
    torch.set_num_threads(1)


def run(fleet: Setting, data_folder: Path, pools: Path, work: Work) -> Run:
    """All rounds of one fleet. `pools`: the file that keeps the texts that were read."""
    start_s = time.process_time()
    setting = msgspec.structs.replace(fleet, rule=work.rule, seed=work.seed)
    texts = boards(load_pools(data_folder, pools), setting.partition, work.seed, setting.n_train, setting.n_held_out)
    tally = _Tally()
    try:
        loss = _trained(setting, work, texts, tally)
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


@dataclass
class _Tally:
    """Updates sent and refused."""

    bad: int = 0
    good: int = 0
    refused_bad: int = 0
    refused_good: int = 0

    def count(self, is_bad: bool, refused: bool) -> None:
        self.bad += is_bad
        self.good += not is_bad
        self.refused_bad += is_bad and refused
        self.refused_good += not is_bad and refused


def bad_boards(n_boards: int, share: float, seed: int) -> tuple[int, ...]:
    """Which are bad, in ascending order; a larger share has those of a smaller one and more."""
    order = random.Random(derive_seed(seed, "bad boards")).sample(range(n_boards), n_boards)
    return tuple(sorted(order[: round(share * n_boards)]))


def _trained(setting: Setting, work: Work, texts: Sequence[BoardText], tally: _Tally) -> float:
    """The good boards' mean held-out loss after the last round."""
    bad = bad_boards(len(texts), work.share, work.seed)
    labels = work.attack == "shuffled labels"
    texts = [with_shuffled_labels(t, work.seed) if labels and i in bad else t for i, t in enumerate(texts)]
    fleet = Fleet(setting, texts, _files(bad if labels else ()), _session())
    if work.guard in DEFENCES:
        fleet.rule = defended(fleet.rule, work.guard, min(work.share, 0.49))
    fleet.begin()
    known: list[Sizes] = []
    for _ in range(setting.rounds):
        accepted = _round(fleet, work, bad, known, tally)
        if not accepted:
            break  # the server would wait for a quorum until somebody looks: the run stands still at this version
        fleet.merge(accepted)
        known = [sizes(added) for added in accepted]
    losses = fleet.point().losses
    return fmean(loss for i, loss in enumerate(losses) if i not in bad)


def _round(fleet: Fleet, work: Work, bad: Sequence[int], before: Sequence[Sizes], tally: _Tally) -> list[Contribution]:
    """What is accepted of a round. Bad boards send first, when there is the least to compare them with: the sizes of
    the round `before`."""
    others = [i for i in range(len(fleet.ranks)) if i not in bad]
    accepted: list[Contribution] = []
    cohort = list(before) if len(fleet.rule.TRAITS.cycle) == 1 else []
    order = [*(() if work.attack == "absent" else bad), *others]
    for board, update in zip(order, fleet.updates(order), strict=True):
        added = fleet.contribution(update)
        if board in bad:
            added = attacked(added, work.attack, derive_seed(work.seed, "attack", fleet.round, board))
        refused = work.guard != NOTHING and _is_refused(added, cohort, fleet.setting)
        tally.count(board in bad, refused)
        if not refused:
            accepted.append(added)
            cohort.append(sizes(added))
    return accepted


def _is_refused(added: Contribution, cohort: Sequence[Sizes], setting: Setting) -> bool:
    """By the server's screening."""
    most = farthest(setting.learning_rate, setting.local_steps)
    return too_far(added, most, setting.upload) is not None or too_large(sizes(added), cohort) is not None


@dataclass
class _Kept:
    """Of one process: encoder outputs and profiles serve its later runs."""

    folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)
    session: FleetSession = field(default_factory=FleetSession)


@cache
def _kept() -> _Kept:
    return _Kept()


def _session() -> FleetSession:
    return _kept().session


def _files(shuffled: Sequence[int]) -> Path:
    """Where a fleet's files are; a profile of shuffled labels is another one."""
    name = "-".join(["boards", *map(str, shuffled)])
    return Path(_kept().folder.name) / name
