"""Lengths of a run's texts: chosen from what the first boards report, where run.toml leaves them open. Pure.

A board tells, for a few percentages, the length that so many of its texts do not exceed (`wire.text_lengths`). Between
two of them nothing is known, so that a length is taken to hold no more than the percentage that it certainly holds:
what is chosen holds HELD_PERCENT of the pooled texts or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from aggregator.settings.config import RoundsSection
from wire.limits import MAX_TEXT_TOKENS
from wire.run import LONGEST_CHOSEN_SOURCE_TOKENS, LONGEST_CHOSEN_TARGET_TOKENS, TrainSettings
from wire.text_lengths import PERCENTS, TextLengths

HELD_PERCENT = 95
"""Part of the boards' texts that a chosen length holds whole. The longest twentieth would cost every step memory."""

MOSTLY_CUT = 0.5
"""A run that cuts a larger part of its fleet's texts than this is told of, with the number to set."""

Side = Literal["source", "target"]

STEPS: dict[Side, int] = {"source": 32, "target": 8}
"""Lengths are multiples of these, to which boards pad their batches anyway."""

LONGEST: dict[Side, int] = {"source": LONGEST_CHOSEN_SOURCE_TOKENS, "target": LONGEST_CHOSEN_TARGET_TOKENS}


@dataclass(frozen=True, slots=True)
class ChosenLengths:
    """The lengths that a run has chosen; they stay with it for good."""

    max_source_tokens: int
    max_target_tokens: int

    def encode(self) -> str:
        """The lengths as the store keeps them."""
        return msgspec.json.encode((self.max_source_tokens, self.max_target_tokens)).decode()

    @classmethod
    def decode(cls, stored: str) -> ChosenLengths:
        """The lengths that `encode` wrote. Raises ValueError for anything else."""
        return cls(*msgspec.json.decode(stored, type=tuple[int, int]))

    def fill(self, settings: TrainSettings) -> TrainSettings:
        """The settings with these lengths, where run.toml leaves them open."""
        return msgspec.structs.replace(
            settings,
            max_source_tokens=settings.max_source_tokens or self.max_source_tokens,
            max_target_tokens=settings.max_target_tokens or self.max_target_tokens,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision about open lengths: to take `lengths` now; where there are none, to ask again at `wake_s`, or when the
    next board has reported."""

    lengths: ChosenLengths | None = None
    wake_s: float | None = None


def choose(reports: Sequence[TextLengths], first_s: float | None, rules: RoundsSection, now: float) -> Choice:
    """The lengths of a run, as soon as as many boards have reported as it needs to begin, or the time for profiling has
    passed since the first of them.

    Args:
        reports: of the boards that take part.
        first_s: when the first report came, on the clock of `now`.
        rules: how many boards a run needs, and how long it waits for them.
        now: monotonic seconds.
    """
    if not reports or first_s is None:
        return Choice()
    until_s = first_s + rules.profile_deadline_s
    if len(reports) < rules.min_devices and now < until_s:
        return Choice(wake_s=until_s)
    source, target = (min(length_that_holds(reports, side), LONGEST[side]) for side in ("source", "target"))
    return Choice(ChosenLengths(source, target))


def length_that_holds(reports: Sequence[TextLengths], side: Side) -> int:
    """The smallest multiple of the side's step that certainly holds HELD_PERCENT of all boards' texts, MAX_TEXT_TOKENS
    at most; each board counts by its examples."""
    wanted = HELD_PERCENT * sum(report.n_examples for report in reports)
    lengths = sorted({tokens for report in reports for tokens in _quantiles(report, side)})
    # The longest of all holds everything. In whole numbers: 95 % of 20 texts are 19, not 18.999….
    enough = next(
        length
        for length in lengths
        if sum(report.n_examples * _held_percent(report, side, length) for report in reports) >= wanted
    )
    return min(-(-enough // STEPS[side]) * STEPS[side], MAX_TEXT_TOKENS)


def share_cut(reports: Sequence[TextLengths], side: Side, limit: int) -> float:
    """Part of all boards' texts, 0 to 1, that a limit cuts; of a board that measured under another one, the most that
    it can be."""
    total = sum(report.n_examples for report in reports)
    return sum(report.n_examples * _cut_of(report, side, limit) for report in reports) / total


def warnings(reports: Sequence[TextLengths], settings: TrainSettings) -> dict[Side, str]:
    """A sentence, with the number to set, for each side of which more than MOSTLY_CUT is cut; none while a length is
    open."""
    limits: dict[Side, int] = {"source": settings.max_source_tokens, "target": settings.max_target_tokens}
    shares = {side: share_cut(reports, side, limit) for side, limit in limits.items() if limit and reports}
    return {
        side: f"{share:.0%} of the boards' {side}s are longer than train.max_{side}_tokens = {limits[side]} and are "
        f"cut: set it to {length_that_holds(reports, side)} in run.toml, which holds {HELD_PERCENT} % of them, and "
        "serve again"
        for side, share in shares.items()
        if share > MOSTLY_CUT
    }


def waiting(n_reports: int, rules: RoundsSection) -> str:
    """The reports that a run whose lengths are open waits for, in words."""
    return f"boards' text lengths ({n_reports} of {rules.min_devices} boards have told theirs)"


def _cut_of(report: TextLengths, side: Side, limit: int) -> float:
    measured_under, share = {
        "source": (report.max_source_tokens, report.sources_cut),
        "target": (report.max_target_tokens, report.targets_cut),
    }[side]
    if measured_under == limit:
        return share
    return 1 - _held_percent(report, side, limit) / 100


def _held_percent(report: TextLengths, side: Side, limit: int) -> int:
    """Percentage of a board's texts that a limit certainly holds."""
    held = (percent for percent, tokens in zip(PERCENTS, _quantiles(report, side), strict=True) if tokens <= limit)
    return max(held, default=0)


def _quantiles(report: TextLengths, side: Side) -> tuple[int, ...]:
    return report.source_tokens if side == "source" else report.target_tokens
