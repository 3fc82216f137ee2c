"""The open round: what boards have answered, and its times. Profiling is round 0. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from aggregator.merge.drift import drift_weights
from aggregator.merge.fairness import fair_weights
from aggregator.run.round_spec import PROFILING, profiling_spec
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

    What boards sent stays on the disk: it is summed when the round closes.

    Attributes:
        spec: what the round asks of boards.
        quorum: accepted answers that are enough.
        since_s: when it began; None while a profiling server waits for boards to enrol.
        staleness_power: how fast late updates of earlier rounds lose weight.
        fairness: how much more boards count whose loss is high (merge.fairness).
        losses: what boards have said of the version that they trained on, by device; known when the round closes.
        drift: how much less boards count that train a part of the model alone (merge.drift).
        drifts: what part of the model each board has left out, by device; known when the round closes.
        until_s: the deadline after an extension.
        quorum_s: when the quorum was reached.
        answers: what came while it is open, one per board, whichever round it was trained for.
        cohort: sizes of the accepted answers, in their order.
        before: those of the round before, so that the first to answer are compared with something.
        asked_again: devices whose answer was lost; they are told of the round though they know of it.
    """

    spec: RoundSpec
    quorum: int
    since_s: float | None
    staleness_power: float = 0.0
    fairness: float = 0.0
    drift: float = 0.0
    until_s: float | None = None
    quorum_s: float | None = None
    state: RoundState = RoundState.OPEN
    answers: dict[str, Answer] = field(default_factory=dict)
    cohort: tuple[Sizes, ...] = ()
    before: tuple[Sizes, ...] = ()
    asked_again: frozenset[str] = frozenset()
    losses: Mapping[str, float] = field(default_factory=dict)
    drifts: Mapping[str, float] = field(default_factory=dict)

    @property
    def round(self) -> int:
        return self.spec.round

    @property
    def version(self) -> int:
        return self.spec.version

    @property
    def answered(self) -> frozenset[str]:
        """The devices that have answered, accepted or refused."""
        return frozenset(self.answers)

    @property
    def counted(self) -> tuple[Answer, ...]:
        """The accepted answers, in the order in which they are summed."""
        return tuple(answer for answer in self.answers.values() if answer.accepted)

    @property
    def accepted(self) -> int:
        """How many answers count."""
        return len(self.counted)

    @property
    def stale(self) -> int:
        """How many of the accepted answers are of an older version."""
        return sum(answer.staleness > 0 for answer in self.counted)

    def weights(self) -> dict[str, float]:
        """The weight of every accepted answer, by device, as the board claims it, by its loss where the run is to be
        fair, and by what it left out of the model where that counts."""
        claims = {
            answer.device: answer.n_examples * staleness_weight(answer.staleness, self.staleness_power)
            for answer in self.counted
        }
        return drift_weights(fair_weights(claims, self.losses, self.fairness), self.drifts, self.drift)

    def view(self, live: frozenset[str], unjudged: int = 0) -> View:
        """The facts that the schedule decides by, while those boards are live and so many uploads wait."""
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
            unjudged=unjudged,
        )

    def with_answer(self, answer: Answer, sizes: Sizes, now: float) -> OpenRound:
        """The round with the answer of one more board. `sizes` are those of an accepted one."""
        after = replace(
            self, answers={**self.answers, answer.device: answer}, asked_again=self.asked_again - {answer.device}
        )
        if not answer.accepted:
            return after
        reached = self.quorum_s is None and after.accepted >= self.quorum
        return replace(
            after,
            state=advance(self.state, RoundEvent.UPDATE_ACCEPTED),
            cohort=(*self.cohort, sizes),
            quorum_s=now if reached else self.quorum_s,
        )

    def without(self, devices: Collection[str]) -> OpenRound:
        """The round without the answers of these devices, which are lost: they are asked again."""
        sizes = zip(self.counted, self.cohort, strict=True)
        after = replace(
            self,
            answers={device: answer for device, answer in self.answers.items() if device not in devices},
            cohort=tuple(size for answer, size in sizes if answer.device not in devices),
            asked_again=self.asked_again | frozenset(devices),
            drifts={},
        )
        return after if after.accepted >= self.quorum else replace(after, quorum_s=None)

    def with_losses(self, losses: Mapping[str, float]) -> OpenRound:
        """The round with what boards have said of the versions that they trained on; itself where that is no news, or
        nobody asks."""
        return self if not self.fairness or losses == self.losses else replace(self, losses=dict(losses))

    def with_extension(self, until_s: float) -> OpenRound:
        """The round with a later deadline, since too few have answered."""
        return replace(self, state=advance(self.state, RoundEvent.DEADLINE_WITH_TOO_FEW), until_s=until_s)

    def with_beginning(self, now: float) -> OpenRound:
        """Profiling whose deadline starts to run: enough boards have enrolled."""
        return self if self.since_s is not None else replace(self, since_s=now)


def begin_profiling(config: RunConfig) -> OpenRound:
    """Profiling, whose deadline does not run yet."""
    return OpenRound(spec=profiling_spec(config), quorum=config.rounds.min_devices, since_s=None)


def begin_round(
    config: RunConfig, terms: Terms, spec: RoundSpec, now: float, before: tuple[Sizes, ...] = ()
) -> OpenRound:
    """A new round. `before`: sizes of the last one, which say nothing where rounds train B and A in turn."""
    return OpenRound(
        spec=spec,
        quorum=config.rounds.quorum,
        since_s=now,
        staleness_power=config.rounds.staleness_power,
        fairness=config.merge.fairness,
        drift=config.merge.drift,
        before=before if len(terms.rule.TRAITS.cycle) == 1 else (),
    )
