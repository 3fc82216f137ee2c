"""What goes onto the disk, in the order that survives a power cut: blob, then the row that names it.

Everything here blocks, and is called by one thread at a time, under the orchestrator's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from aggregator.downloads.versions import Versions
from aggregator.errors import CallError, StateError
from aggregator.merge.rules import Total
from aggregator.merge.state import AdapterState, encode_state
from aggregator.run.admit import judge
from aggregator.run.open_round import Collection
from aggregator.run.round_spec import PROFILING
from aggregator.settings.config import RunConfig, merge_settings
from aggregator.settings.terms import Terms
from aggregator.store.disk import Disk
from aggregator.store.records import Answer
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


class Ledger:
    """Takes updates in and publishes versions. `clock`: monotonic seconds."""

    def __init__(self, config: RunConfig, terms: Terms, disk: Disk, clock: Callable[[], float]) -> None:
        self._config, self._terms, self._disk, self._clock = config, terms, disk, clock
        self._versions = Versions(disk.store, disk.blobs)

    def take_in(
        self, device: str, digest: str | None, part: Part, spec: RoundSpec, work: Collection, newest: AdapterState
    ) -> tuple[Answer, Collection]:
        """Judge an upload and store it; what is returned counts, for the row is there.

        `digest` is what the sender announced, None for a profile; `spec` of the round it was trained for, `work` the
        one that is open. Raises CallError for another digest or a version that cannot be read any more, WireError for
        bytes that are no message; all discard the upload.
        """
        path, found = part.finish()
        try:
            if digest not in (None, found):
                raise CallError(
                    "bad_request", "what arrived has another SHA-256 than announced", "Send it again from 0."
                )
            data = path.read_bytes()
            verdict = judge(data, self._terms, spec, self._sent(spec, newest), work)
        except (CallError, WireError):
            part.discard()
            raise
        answer = Answer(
            round=spec.round,
            counted_in=work.round,
            device=device,
            digest=found,
            size_bytes=len(data),
            n_examples=verdict.n_examples,
            accepted=verdict.contribution is not None,
            reason=verdict.reason[:MAX_TEXT_CHARS],
            staleness=work.version - spec.version,
        )
        if verdict.contribution is None:
            part.discard()
            after = work.refused(answer)
        else:
            after = work.accepting(answer, verdict.contribution, self._clock())
            self._disk.blobs.adopt(path, found)
        store = self._disk.store
        return (store.add_profile if work.round == PROFILING else store.add_update)(answer), after

    def _sent(self, spec: RoundSpec, newest: AdapterState) -> AdapterState:
        try:
            return self._versions.get(spec.version, newest)
        except StateError as error:  # a board would send again for ever if it were told that we failed
            log.error("an update of round %d is refused: %s", spec.round, error)
            raise CallError("gone", f"version {spec.version} cannot be read here any more") from error

    def publish_first(self, bare: AdapterState, profiles: Total) -> AdapterState:
        """Make version 1 of the profiles' sketches, and store it."""
        state = self._terms.rule.first_basis(bare, profiles, max_rank=self._terms.max_rank, seed=self._config.seed)
        digest = self._disk.blobs.put(encode_state(state))
        self._disk.store.add_version(state.version, digest)
        return state

    def merged(self, state: AdapterState, total: Total) -> tuple[AdapterState, bytes]:
        """The next version, and its bytes. Raises MergeFailedError."""
        terms = self._terms
        try:
            made = terms.rule.merge(state, total, merge_settings(self._config))
            return made, encode_state(made)
        except (ValueError, np.linalg.LinAlgError, WireError) as error:  # WireError: a value is not finite
            raise MergeFailedError(f"merging failed: {error}") from error

    def publish(
        self, round_id: int, reason: str, version: int, data: bytes, traffic: Mapping[str, tuple[int, int]]
    ) -> None:
        """Store a version and close the round that made it, with the byte counts so far."""
        digest = self._disk.blobs.put(data)
        self._disk.store.merge_round(round_id, reason, version, digest, traffic)

    def tidy(self, version: int, rounds: Iterable[int]) -> None:
        """Drop what no board can ask for any more, now that `version` is the newest and only uploads of `rounds` may
        still count."""
        oldest = version - max(KEPT_VERSIONS, self._config.staleness_limit + 1) + 1
        self._disk.store.forget_versions(oldest)
        self._disk.blobs.sweep(self._disk.store.live_digests())
        self._disk.cuts.forget(oldest)
        self._disk.uploads.sweep(frozenset(rounds))
