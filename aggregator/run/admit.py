"""Judging an upload: its bytes become a contribution to the open round, or a refusal with its reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aggregator.merge.contribution import SentVersion, profile_contribution
from aggregator.merge.sums import Contribution
from aggregator.run.open_round import OpenRound
from aggregator.run.round_spec import PROFILING
from aggregator.run.screen import Kind, Size, screen, screen_profile, sizes, too_far, too_large
from aggregator.run.staleness import staleness_weight
from aggregator.settings.terms import Terms
from wire.codec import check_protocol, decode
from wire.errors import WireError
from wire.messages import Profile, RoundSpec, Update


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of judging a message, with all that was worked out of it, so that nothing is decoded or sized twice.

    `contribution` is None where the message was refused for `reason`.
    """

    n_examples: int
    contribution: Contribution | None = None
    sizes: Mapping[Kind, Size] = field(default_factory=dict)
    reason: str = ""


def judge(data: bytes, terms: Terms, spec: RoundSpec, sent: SentVersion, into: OpenRound) -> Verdict:
    """Whether a message of a board may be added to the open round.

    Args:
        data: the message.
        terms: what the run holds fixed.
        spec: the round that the board trained for: the open one, or an earlier one whose updates still count.
        sent: the version that it trained on.
        into: the open round, or profiling.

    Raises WireError for bytes that are no such message, ProtocolVersionError for a peer of another version; anything
    that is well-formed but does not belong here is a refusal with a reason.
    """
    if into.round == PROFILING:
        profile = decode(data, Profile)
        check_protocol(profile.protocol)
        reason = screen_profile(profile, terms, importance=terms.importance)
        return Verdict(profile.n_examples, reason=reason) if reason else _profile_verdict(profile, into)
    update = decode(data, Update)
    check_protocol(update.protocol)
    reason = screen(update, terms, spec, rank=terms.rank)
    return Verdict(update.n_examples, reason=reason) if reason else _update_verdict(update, terms, sent, into)


def _profile_verdict(profile: Profile, into: OpenRound) -> Verdict:
    try:
        added = profile_contribution(profile)
    except WireError as error:  # a value that is not finite
        return Verdict(profile.n_examples, reason=str(error))
    return _verdict_by_size(profile.n_examples, added, into)


def _update_verdict(update: Update, terms: Terms, sent: SentVersion, into: OpenRound) -> Verdict:
    try:
        added = contribution_of(update, sent, into)
    except WireError as error:  # a value that is not finite
        return Verdict(update.n_examples, reason=str(error))
    if reason := too_far(added, terms.farthest, terms.upload):
        return Verdict(update.n_examples, reason=reason)
    return _verdict_by_size(update.n_examples, added, into)


def _verdict_by_size(n_examples: int, added: Contribution, into: OpenRound) -> Verdict:
    added_sizes = sizes(added)
    if reason := too_large(added_sizes, (*into.before, *into.cohort)):
        return Verdict(n_examples, reason=reason)
    return Verdict(n_examples, added, added_sizes)


def contribution_of(update: Update, sent: SentVersion, into: OpenRound) -> Contribution:
    """The contribution of a screened update to the open round. A late one counts less.

    Its sketches count only in a round that makes a basis, or one board could make a basis alone. Their Ω is that of
    another round: the sum is then a sketch of both rounds' gradients, one below the other, and its rows still span the
    directions that matter in either.
    """
    staleness = into.version - sent.state.version
    added = sent.contribution(update, staleness)
    weight = added.weight * staleness_weight(staleness, into.staleness_power)
    return replace(added, weight=weight, sketches=added.sketches if into.spec.sketch else {})
