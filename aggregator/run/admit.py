"""What becomes of an update's or a profile's bytes: decoded, checked against the run, screened. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aggregator.merge.contribution import contribution, profile_contribution
from aggregator.merge.state import AdapterState
from aggregator.merge.sums import Contribution
from aggregator.run.open_round import Collection
from aggregator.run.round_spec import PROFILING
from aggregator.run.screen import screen, screen_profile, too_far, too_large
from aggregator.run.staleness import staleness_weight
from aggregator.settings.terms import Terms
from wire.codec import check_protocol, decode
from wire.messages import Profile, RoundSpec, Update


@dataclass(frozen=True, slots=True)
class Verdict:
    """`contribution` is None when the message was refused for `reason`."""

    n_examples: int
    contribution: Contribution | None
    reason: str = ""


def judge(data: bytes, terms: Terms, spec: RoundSpec, sent: AdapterState, into: Collection) -> Verdict:
    """Whether a message of a board may be added to a collection. It was trained for the round of `spec` (that of the
    collection, or an earlier one whose updates still count) on `sent`, the version of that round.

    Raises WireError for bytes that are no such message, ProtocolVersionError for a peer of another version; anything
    that is well-formed but does not belong here is a refusal with a reason.
    """
    if into.round == PROFILING:
        return _judge_profile(data, terms, into)
    return _judge_update(data, terms, spec, sent, into)


def _judge_update(data: bytes, terms: Terms, spec: RoundSpec, sent: AdapterState, into: Collection) -> Verdict:
    update = decode(data, Update)
    check_protocol(update.protocol)
    if reason := screen(update, terms, spec, rank=terms.rank):
        return Verdict(update.n_examples, None, reason)
    added = _contribution(update, terms, sent, into)
    if reason := too_far(added, terms.farthest, terms.upload):
        return Verdict(update.n_examples, None, reason)
    return _of_size(update.n_examples, added, into)


def _contribution(update: Update, terms: Terms, sent: AdapterState, into: Collection) -> Contribution:
    """What an update adds. A late one counts less.

    Its sketches count only in a round that makes a basis, or one board could make a basis alone. Their Ω is that of
    another round: the sum is then a sketch of both rounds' gradients, one below the other, and its rows still span the
    directions that matter in either.
    """
    staleness = into.version - sent.version
    made = contribution(update, terms.rule, sent, terms.download, staleness)
    weight = made.weight * staleness_weight(staleness, into.staleness_power)
    return replace(made, weight=weight, sketches=made.sketches if into.spec.sketch else {})


def _judge_profile(data: bytes, terms: Terms, into: Collection) -> Verdict:
    profile = decode(data, Profile)
    check_protocol(profile.protocol)
    if reason := screen_profile(profile, terms, importance=terms.importance):
        return Verdict(profile.n_examples, None, reason)
    return _of_size(profile.n_examples, profile_contribution(profile), into)


def _of_size(n_examples: int, added: Contribution, into: Collection) -> Verdict:
    reason = too_large(added, (*into.before, *into.cohort))
    return Verdict(n_examples, None, reason) if reason else Verdict(n_examples, added)


def accepted_before(data: bytes, terms: Terms, sent: AdapterState, into: Collection) -> Contribution:
    """The contribution of a message that was accepted before a restart. Raises WireError where it is damaged."""
    if into.round == PROFILING:
        return profile_contribution(decode(data, Profile))
    return _contribution(decode(data, Update), terms, sent, into)
