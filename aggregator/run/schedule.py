"""The schedule: when profiling ends, and when rounds open, close and are extended. Pure.

Nothing here reads a clock, a socket or a disk: `decide` is called whenever something happened or its own `wake_s` has
come, and whoever called it obeys. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aggregator.settings.config import RoundsSection

Phase = Literal["profiling", "between", "round", "finished"]


@dataclass(frozen=True, slots=True)
class View:
    """The facts that the schedule decides by.

    `between`: no round is open, `round` is the last one closed (0: none). `live`: boards heard of lately; `answered`:
    boards whose update (or, while profiling, profile) was accepted or refused; `accepted` counts the accepted ones, and
    late ones of earlier rounds among them; `refused` are the boards of the others. `since_s`: when the phase began;
    while profiling, when enough boards had enrolled, None before. `quorum_s`: when the quorum was reached, None before.
    `until_s`: deadline of the phase, None to derive it from `since_s`. `unjudged`: uploads that are here and not judged
    yet; a phase that waits for boards does not end over what they have sent.
    """

    phase: Phase
    round: int
    live: frozenset[str]
    answered: frozenset[str]
    accepted: int
    since_s: float | None
    quorum_s: float | None = None
    until_s: float | None = None
    refused: frozenset[str] = frozenset()
    unjudged: int = 0


@dataclass(frozen=True, slots=True)
class BeginTraining:
    """Make the first basis of the profiles that arrived."""

    reason: str


@dataclass(frozen=True, slots=True)
class BeginRound:
    """Open the next round."""

    round: int


@dataclass(frozen=True, slots=True)
class CloseRound:
    """Merge the accepted updates, at least one, into the next version."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class AbandonRound:
    """End a round that nobody can fill any more. What it accepted is lost; the next one begins at the same version."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Extend:
    """The deadline passed without a quorum: go on until `until_s` and tell people."""

    until_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """All rounds are closed."""


Action = BeginTraining | BeginRound | CloseRound | AbandonRound | Extend | Finish


@dataclass(frozen=True, slots=True)
class Decision:
    """`action`: what to do now, then ask again. `wake_s`: with no action, when to ask again though nothing happens."""

    action: Action | None = None
    wake_s: float | None = None


def decide(view: View, rules: RoundsSection, now: float) -> Decision:
    """Say what happens next. Pure: equal arguments give equal answers."""
    if view.phase == "profiling":
        return _profiling(view, rules, now)
    if view.phase == "round":
        return _round(view, rules, now)
    if view.round < rules.total:  # also after the end: whoever raises `rounds` goes on
        return Decision(BeginRound(view.round + 1))
    return Decision(Finish()) if view.phase == "between" else Decision()


def _profiling(view: View, rules: RoundsSection, now: float) -> Decision:
    if view.since_s is None or view.unjudged:
        return Decision()
    if view.accepted >= rules.min_devices and view.live <= view.answered:
        return Decision(BeginTraining("all boards have profiled"))
    until_s = view.since_s + rules.profile_deadline_s if view.until_s is None else view.until_s
    if now < until_s:
        return Decision(wake_s=until_s)
    if view.accepted:
        return Decision(BeginTraining(f"profiling deadline, {view.accepted} profiles"))
    return Decision(Extend(now + rules.profile_deadline_s, "no board has profiled by the deadline"))


def _round(view: View, rules: RoundsSection, now: float) -> Decision:
    since_s = now if view.since_s is None else view.since_s
    until_s = since_s + rules.deadline_s if view.until_s is None else view.until_s
    quorum = max(1, rules.quorum)
    if view.unjudged and not (rules.is_asynchronous and view.accepted >= quorum):
        return Decision()
    if view.accepted < quorum:
        if now < until_s:
            return Decision(wake_s=until_s)
        refused = len(view.live & view.refused)
        if refused and view.live <= view.answered and view.accepted + refused >= quorum:
            # A board answers a round once: those refused can make up the quorum in another one alone.
            reason = f"{view.accepted} of {quorum} updates needed accepted, {refused} refused, nobody left to answer"
            return Decision(AbandonRound(view.round, reason))
        reason = f"{view.accepted} of {quorum} updates needed have arrived by the deadline"
        return Decision(Extend(now + rules.deadline_s, reason))
    if rules.is_asynchronous:
        return Decision(CloseRound(view.round, "quorum"))
    if view.live <= view.answered:
        return Decision(CloseRound(view.round, "all live boards answered"))
    quorum_s = now if view.quorum_s is None else view.quorum_s
    if now >= until_s:
        return Decision(CloseRound(view.round, "deadline"))
    if now >= quorum_s + rules.grace_s:
        return Decision(CloseRound(view.round, "quorum and grace"))
    return Decision(wake_s=min(until_s, quorum_s + rules.grace_s))
