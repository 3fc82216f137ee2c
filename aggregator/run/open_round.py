"""The open round: what boards have sent for it, the running sums, its times. Profiling is round 0. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from aggregator.merge.rules import Rule, Total
from aggregator.merge.sums import Contribution
from aggregator.run.round_spec import PROFILING, profiling_spec, round_spec
from aggregator.run.schedule import View
from aggregator.run.screen import Sizes
from aggregator.run.staleness import staleness_weight
from aggregator.settings.config import RunConfig
from aggregator.settings.terms import Terms
from aggregator.store.records import Answer
from wire.messages import RoundSpec
from wire.rounds import RoundEvent, RoundState, advance


@dataclass(frozen=True, slots=True)
class OpenRound:
    """A round that takes updates, or profiling. Immutable; each step returns the next.

    Attributes:
        spec: what the round asks of boards.
        rule: the merge rule, whose sums these are.
        quorum: accepted answers that are enough.
        since_s: when it began; None while a profiling server waits for boards to enrol.
        staleness_power: how fast late updates of earlier rounds lose weight.
        until_s: the deadline after an extension.
        quorum_s: when the quorum was reached.
        answers: what came while it is open, one per board, whichever round it was trained for.
        total: the rule's sums; None before the first accepted answer.
        cohort: sizes of the accepted answers.
        before: those of the round before, so that the first to answer are compared with something.
        stale: how many of the accepted answers are of an older version.
    """

    spec: RoundSpec
    rule: Rule[Any]
    quorum: int
    since_s: float | None
    staleness_power: float = 0.0
    until_s: float | None = None
    quorum_s: float | None = None
    state: RoundState = RoundState.OPEN
    answers: dict[str, Answer] = field(default_factory=dict)
    total: Total | None = None
    cohort: tuple[Sizes, ...] = ()
    before: tuple[Sizes, ...] = ()
    stale: int = 0

    @property
    def round(self) -> int:
        return self.spec.round

    @property
    def version(self) -> int:
        return self.spec.version

    @property
    def accepted(self) -> int:
        """How many answers are in the sums."""
        return 0 if self.total is None else self.total.n_updates

    @property
    def answered(self) -> frozenset[str]:
        """The devices that have answered, accepted or refused."""
        return frozenset(self.answers)

    def weights(self) -> dict[str, float]:
        """The weight of every accepted answer, by device, as the board claims it and the sums have it."""
        return {
            device: answer.n_examples * staleness_weight(answer.staleness, self.staleness_power)
            for device, answer in self.answers.items()
            if answer.accepted
        }

    def view(self, live: frozenset[str]) -> View:
        """The facts that the schedule decides by, while those boards are live."""
        return View(
            phase="profiling" if self.round == PROFILING else "round",
            round=self.round,
            live=live,
            answered=self.answered,
            accepted=self.accepted,
            since_s=self.since_s,
            quorum_s=self.quorum_s,
            until_s=self.until_s,
            refused=frozenset(device for device, answer in self.answers.items() if not answer.accepted),
        )

    def with_refused(self, answer: Answer) -> OpenRound:
        """The round with the answer of a board that adds nothing to the sums."""
        return replace(self, answers={**self.answers, answer.device: answer})

    def with_accepted(self, answer: Answer, added: Contribution, sizes: Sizes, now: float) -> OpenRound:
        """The round with one more board in the sums, which may then want to be compacted."""
        total: Total = self.rule.fold(self.total, added)
        reached = self.quorum_s is None and total.n_updates >= self.quorum
        return replace(
            self,
            state=advance(self.state, RoundEvent.UPDATE_ACCEPTED),
            answers={**self.answers, answer.device: answer},
            total=total,
            cohort=(*self.cohort, sizes),
            stale=self.stale + bool(answer.staleness),
            quorum_s=now if reached else self.quorum_s,
        )

    def with_compacted_sums(self) -> OpenRound:
        """The round with the sums of one weight in less memory; itself where none takes more than it should."""
        total = None if self.total is None else self.total.compacted()
        return self if total is self.total else replace(self, total=total)

    def with_extension(self, until_s: float) -> OpenRound:
        """The round with a later deadline, since too few have answered."""
        return replace(self, state=advance(self.state, RoundEvent.DEADLINE_WITH_TOO_FEW), until_s=until_s)

    def with_beginning(self, now: float) -> OpenRound:
        """Profiling whose deadline starts to run: enough boards have enrolled."""
        return self if self.since_s is not None else replace(self, since_s=now)


def begin_profiling(config: RunConfig, terms: Terms) -> OpenRound:
    """Profiling, whose deadline does not run yet."""
    return OpenRound(spec=profiling_spec(config), rule=terms.rule, quorum=config.rounds.min_devices, since_s=None)


def begin_round(
    config: RunConfig, terms: Terms, round_id: int, version: int, now: float, before: tuple[Sizes, ...] = ()
) -> OpenRound:
    """A new round. `before`: sizes of the last one, which say nothing where rounds train B and A in turn."""
    return OpenRound(
        spec=round_spec(config, round_id, version),
        rule=terms.rule,
        quorum=config.rounds.quorum,
        since_s=now,
        staleness_power=config.rounds.staleness_power,
        before=before if len(terms.rule.TRAITS.cycle) == 1 else (),
    )
