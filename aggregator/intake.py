"""What becomes of an update's or a profile's bytes: decoded, checked against the run, screened. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.collection import PROFILING, Collection
from aggregator.merge.sums import Contribution, contribution, profile_contribution
from aggregator.screen import screen, screen_profile
from aggregator.terms import Terms
from wire.codec import check_protocol, decode
from wire.messages import Profile, Update


@dataclass(frozen=True, slots=True)
class Verdict:
    """`contribution` is None when the message was refused for `reason`."""

    n_examples: int
    contribution: Contribution | None
    reason: str = ""


def judge(data: bytes, terms: Terms, into: Collection) -> Verdict:
    """Whether a message may be added to a collection.

    Raises WireError for bytes that are no such message, ProtocolVersionError for a peer of another version; anything
    that is well-formed but does not belong here is a refusal with a reason.
    """
    return _judge_profile(data, terms, into) if into.round == PROFILING else _judge_update(data, terms, into)


def _judge_update(data: bytes, terms: Terms, into: Collection) -> Verdict:
    update = decode(data, Update)
    check_protocol(update.protocol)
    where = {"round_id": into.round, "version": into.version}
    reason = screen(update, terms, **where, sketch=into.sketch, cohort=into.cohort)
    return Verdict(update.n_examples, None, reason) if reason else Verdict(update.n_examples, contribution(update))


def _judge_profile(data: bytes, terms: Terms, into: Collection) -> Verdict:
    profile = decode(data, Profile)
    check_protocol(profile.protocol)
    if reason := screen_profile(profile, terms, importance=terms.importance, cohort=into.cohort):
        return Verdict(profile.n_examples, None, reason)
    return Verdict(profile.n_examples, profile_contribution(profile))


def contribution_of(data: bytes, is_profile: bool) -> Contribution:
    """The arrays of a message that was accepted before. Raises WireError where it is damaged."""
    return profile_contribution(decode(data, Profile)) if is_profile else contribution(decode(data, Update))
