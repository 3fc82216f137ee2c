"""Commits to the disk, in the order that survives a power cut: blob, then the row that names it.

Everything here blocks, and is called by one thread at a time, under the run's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from aggregator.downloads.versions import Versions
from aggregator.errors import CallError, StateError
from aggregator.merge.contribution import SentVersion
from aggregator.merge.defences.defended import NONE
from aggregator.merge.rules import Total, folded
from aggregator.merge.state import AdapterState, encode_state
from aggregator.merge.sums import TakenBack, taken_back
from aggregator.merge.weights import excess
from aggregator.run.admit import accepted_before, judge
from aggregator.run.open_round import OpenRound
from aggregator.run.round_spec import PROFILING
from aggregator.settings.config import RunConfig
from aggregator.settings.terms import Terms
from aggregator.store.records import Answer
from aggregator.store.storage import Storage
from aggregator.store.uploads import Part
from wire.errors import WireError
from wire.limits import MAX_TEXT_CHARS
from wire.messages import RoundSpec

KEPT_VERSIONS = 3
"""Versions whose blobs stay: the current one, the one boards may still fetch, and one to look back to. A run that
counts late updates keeps all that these may have been trained on."""


log = logging.getLogger("aggregator")


class MergeFailedError(Exception):
    """A round's sum does not give a version whose every value is finite."""


class Committer:
    """Takes updates in and publishes versions.

    Args:
        config: run.toml.
        terms: what the run holds fixed.
        storage: where everything is written.
        clock: monotonic seconds.
    """

    def __init__(self, config: RunConfig, terms: Terms, storage: Storage, clock: Callable[[], float]) -> None:
        self._config, self._terms, self._storage, self._clock = config, terms, storage, clock
        self._versions = Versions(storage.records, storage.blobs)
        self._sent: dict[int, SentVersion] = {}  # the newest, and the one that the last late update was trained on

    def take_in(
        self, device: str, digest: str | None, part: Part, spec: RoundSpec, open_round: OpenRound, newest: AdapterState
    ) -> tuple[Answer, OpenRound]:
        """Judge an upload and store it; the answer that is returned counts, for its row is there.

        Args:
            device: who sent it.
            digest: what the sender announced; None for a profile.
            part: the upload, whole. It is discarded if it is refused or an error is raised.
            spec: the round that it was trained for.
            open_round: the round that is open.
            newest: the newest version.

        Raises CallError for another digest or a version that cannot be read any more, WireError for bytes that are no
        message.
        """
        path, real_digest = part.finish()
        try:
            _check_digest(digest, real_digest)
            data = path.read_bytes()
            verdict = judge(data, self._terms, spec, self._sent_version(spec, newest), open_round)
        except (CallError, WireError):
            part.discard()
            raise
        answer = Answer(
            round=spec.round,
            counted_in=open_round.round,
            device=device,
            digest=real_digest,
            size_bytes=len(data),
            n_examples=verdict.n_examples,
            accepted=verdict.contribution is not None,
            reason=verdict.reason[:MAX_TEXT_CHARS],
            staleness=open_round.version - spec.version,
        )
        if verdict.contribution is None:
            part.discard()
            after = open_round.with_refused(answer)
        else:
            after = open_round.with_accepted(answer, verdict.contribution, verdict.sizes, self._clock())
            self._storage.blobs.adopt(path, real_digest)
        records = self._storage.records
        return (records.add_profile if open_round.round == PROFILING else records.add_update)(answer), after

    def _sent_version(self, spec: RoundSpec, newest: AdapterState) -> SentVersion:
        """The version that a round's boards trained on. Raises CallError "gone" where it cannot be read any more."""
        try:
            state = self._versions.get(spec.version, newest)
        except StateError as error:  # a board would send again for ever if it were told that we failed
            log.error("an update of round %d is refused: %s", spec.round, error)
            raise CallError("gone", f"version {spec.version} cannot be read here any more") from error
        sent = self._sent.get(spec.version) or SentVersion(self._terms.rule, state, self._terms.download)
        self._sent = {
            **{version: each for version, each in self._sent.items() if version == newest.version},
            spec.version: sent,
        }
        return sent

    def bounded(self, closing: OpenRound, newest: AdapterState) -> Total:
        """The sums of a round in which no board counts as more than `merge.max_weight` times the middle one.

        Only when a round closes is that known; a board that has counted as more is read again, and the difference
        taken back. A defence bounds weights by itself. Raises MergeFailedError where such an update cannot be read.
        """
        total, merge = closing.total, self._config.merge
        if total is None:
            raise MergeFailedError("a round without updates cannot be merged")
        if merge.defence != NONE:
            return total
        too_much = excess(closing.weights(), merge.weight_bound)
        corrections = (
            self._correction(closing.answers[name], less, closing, newest) for name, less in too_much.items()
        )
        try:
            summed: Total = folded(self._terms.rule, corrections, total)
        except (StateError, CallError, WireError) as error:
            raise MergeFailedError(f"an accepted update cannot be read again: {error}") from error
        return summed

    def _correction(self, answer: Answer, less: float, closing: OpenRound, newest: AdapterState) -> TakenBack:
        """The contribution of a board, with the weight that has to be taken back."""
        spec = RoundSpec(round=answer.round, version=closing.version - answer.staleness)
        verdict = accepted_before(self._storage.blobs.get(answer.digest), self._sent_version(spec, newest), closing)
        assert verdict.contribution is not None
        return taken_back(verdict.contribution, less)

    def publish_first(self, bare: AdapterState, profiles: Total) -> AdapterState:
        """Make version 1 of the profiles' sketches, and store it."""
        state = self._terms.rule.first_basis(bare, profiles, max_rank=self._terms.max_rank, seed=self._config.seed)
        digest = self._storage.blobs.put(encode_state(state))
        self._storage.records.add_version(state.version, digest)
        return state

    def merged(self, state: AdapterState, total: Total) -> tuple[AdapterState, bytes]:
        """The next version, and its bytes. Raises MergeFailedError."""
        try:
            after = self._terms.rule.merge(state, total, self._config.merge.settings)
            return after, encode_state(after)
        except (ValueError, np.linalg.LinAlgError, WireError) as error:  # WireError: a value is not finite
            raise MergeFailedError(f"merging failed: {error}") from error

    def publish(
        self, round_id: int, reason: str, version: int, data: bytes, traffic: Mapping[str, tuple[int, int]]
    ) -> None:
        """Store a version and close the round that made it, with the byte counts so far."""
        digest = self._storage.blobs.put(data)
        self._storage.records.merge_round(round_id, reason, version, digest, traffic)

    def tidy(self, version: int, rounds: Iterable[int]) -> None:
        """Drop what no board can ask for any more, now that `version` is the newest and only uploads of `rounds` may
        still count."""
        oldest = version - max(KEPT_VERSIONS, self._config.rounds.staleness_limit + 1) + 1
        self._storage.records.forget_versions(oldest)
        self._storage.blobs.sweep(self._storage.records.live_digests())
        self._storage.cuts.forget(oldest)
        self._storage.uploads.sweep(frozenset(rounds))


def _check_digest(announced: str | None, real: str) -> None:
    """Raise CallError where an upload has another digest than announced."""
    if announced not in (None, real):
        raise CallError("bad_request", "what arrived has another SHA-256 than announced", "Send it again from 0.")
