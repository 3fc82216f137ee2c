"""The sums of a round, made from its updates' files when it closes.

While a round is open nothing is summed: memory does not grow with the boards, and a server that is started again has
nothing to do over. Updates are summed in the order in which they were accepted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from aggregator.errors import CallError, StateError
from aggregator.merge.contribution import SentVersion, profile_contribution
from aggregator.merge.defences.defended import Defended
from aggregator.merge.drift import drift
from aggregator.merge.in_groups import merged_in_groups
from aggregator.merge.rules import Total, folded
from aggregator.merge.state import AdapterState
from aggregator.merge.sums import Contribution
from aggregator.merge.weights import bounded_claims
from aggregator.run.admit import contribution_of
from aggregator.run.intake.sent_versions import SentVersions
from aggregator.run.open_round import OpenRound
from aggregator.settings.config import RunConfig
from aggregator.settings.terms import Terms
from aggregator.store.blobs import Blobs
from aggregator.store.records import Answer
from aggregator.store.update_files import UpdateFile
from wire.codec import decode
from wire.errors import WireError
from wire.messages import Profile


class MergeFailedError(Exception):
    """A round's sum does not give a version whose every value is finite."""


class LostAnswersError(Exception):
    """Files of accepted answers are missing or damaged. `reasons`: the answers, each with what was found."""

    def __init__(self, reasons: Sequence[tuple[Answer, str]]) -> None:
        super().__init__(f"{len(reasons)} accepted uploads cannot be read")
        self.reasons = tuple(reasons)


class RoundSums:
    """Reads what a round has accepted, and makes the next version of it. Blocks."""

    def __init__(self, config: RunConfig, terms: Terms, blobs: Blobs, sent: SentVersions) -> None:
        self._config, self._terms, self._blobs, self._sent = config, terms, blobs, sent
        self._index = {weight.name: i for i, weight in enumerate(terms.weights)}

    def first_basis(self, bare: AdapterState, profiling: OpenRound) -> AdapterState:
        """Version 1 of the profiles. Raises LostAnswersError."""
        self.check(profiling)
        counts_as = self._weights(profiling)
        profiles = (replace(self._profile(each), weight=counts_as[each.device]) for each in profiling.counted)
        total = folded(self._terms.rule, profiles)
        return self._terms.rule.first_basis(bare, total, max_rank=self._terms.max_rank, seed=self._config.seed)

    def merged(self, state: AdapterState, closing: OpenRound) -> tuple[AdapterState, Total | None]:
        """The next version, and where a defence has looked at whole boards all that it saw.

        Raises MergeFailedError, LostAnswersError.
        """
        files = self._files(closing)
        rule, settings = self._terms.rule, self._config.merge.settings
        try:
            if isinstance(rule, Defended):
                total = folded(rule, self._contributions(closing, files, list(self._index), state))
                return rule.merge(state, total, settings), total

            def boards(names: Sequence[str]) -> Iterator[Contribution]:
                return self._contributions(closing, files, names, state)

            return merged_in_groups(rule, state, boards, settings), None
        except (ValueError, np.linalg.LinAlgError, WireError) as error:  # WireError: a value is not finite
            raise MergeFailedError(f"merging failed: {error}") from error

    def with_drifts(self, closing: OpenRound, state: AdapterState) -> OpenRound:
        """The round with what each of its boards left out of the model; itself where that is known, or nobody asks.

        Reads all of its updates. Raises MergeFailedError, LostAnswersError.
        """
        if not closing.drift or closing.drifts.keys() == {answer.device for answer in closing.counted}:
            return closing
        traits, drifts = self._terms.rule.TRAITS, {}
        try:
            for answer, added in zip(closing.counted, self.contributions(closing, state), strict=True):
                sent = self._sent.get(closing.version - answer.staleness, state)
                drifts[answer.device] = drift(sent.state, added, traits)
        except WireError as error:  # a value is not finite
            raise MergeFailedError(f"merging failed: {error}") from error
        return replace(closing, drifts=drifts)

    def contributions(
        self, closing: OpenRound, state: AdapterState, names: Sequence[str] | None = None
    ) -> Iterator[Contribution]:
        """The contribution of every board, in their order, to these weights or to all. Raises LostAnswersError."""
        chosen = list(self._index) if names is None else names
        return self._contributions(closing, self._files(closing), chosen, state)

    def check(self, open_round: OpenRound) -> None:
        """Raise LostAnswersError where a file is missing or damaged. Reads all of them."""
        lost = []
        for answer in open_round.counted:
            try:
                self._blobs.check(answer.digest)
            except StateError as error:
                lost.append((answer, error.message))
        if lost:
            raise LostAnswersError(lost)

    def _files(self, closing: OpenRound) -> list[tuple[Answer, UpdateFile]]:
        files, lost = [], []
        for answer in closing.counted:
            try:
                files.append((answer, UpdateFile.open(self._blobs, answer.digest, self._index)))
            except StateError as error:
                lost.append((answer, error.message))
        if lost:
            raise LostAnswersError(lost)
        return files

    def _contributions(
        self,
        closing: OpenRound,
        files: Sequence[tuple[Answer, UpdateFile]],
        names: Sequence[str],
        state: AdapterState,
    ) -> Iterator[Contribution]:
        """The contributions of the boards to these weights, each read when it is its turn."""
        sent: dict[int, SentVersion] = {}
        counts_as = self._weights(closing)
        for answer, file in files:
            version = closing.version - answer.staleness
            try:
                if version not in sent:
                    sent[version] = self._sent.get(version, state)
                contribution = contribution_of(file.read(names), sent[version], closing)
            except (StateError, CallError) as error:
                raise LostAnswersError([(answer, error.message)]) from error
            yield replace(contribution, weight=counts_as[answer.device])

    def _weights(self, closing: OpenRound) -> Mapping[str, float]:
        """How much each board counts, by device: no more than `merge.max_weight` times the middle one. A defence sees
        what they claim, and bounds it by itself."""
        claims = closing.weights()
        is_defended = isinstance(self._terms.rule, Defended)
        return claims if is_defended else bounded_claims(claims, self._config.merge.weight_bound)

    def _profile(self, answer: Answer) -> Contribution:
        return profile_contribution(decode(self._blobs.get(answer.digest), Profile))
