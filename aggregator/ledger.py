"""What goes onto the disk, in the order that survives a power cut: blob, then the row that names it.

Everything here blocks, and is called by one thread at a time, under the orchestrator's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from aggregator.collection import PROFILING, Collection
from aggregator.config import RunConfig
from aggregator.disk import Disk
from aggregator.errors import CallError
from aggregator.intake import judge
from aggregator.merge.rules import Total
from aggregator.merge.state import AdapterState, encode_state
from aggregator.records import Answer
from aggregator.terms import Terms
from aggregator.uploads import Part
from wire.errors import WireError
from wire.limits import MAX_TEXT_CHARS

KEPT_VERSIONS = 3
"""Versions whose blobs stay: the current one, the one boards may still fetch, and one to look back to."""


class MergeFailedError(Exception):
    """A round's sum does not give a version whose every value is finite."""


class Ledger:
    """Takes updates in and publishes versions. `clock`: monotonic seconds."""

    def __init__(self, config: RunConfig, terms: Terms, disk: Disk, clock: Callable[[], float]) -> None:
        self._config, self._terms, self._disk, self._clock = config, terms, disk, clock

    def take_in(self, device: str, digest: str | None, part: Part, work: Collection) -> tuple[Answer, Collection]:
        """Judge an upload and store it; what is returned counts, for the row is there.

        `digest` is what the sender announced, None for a profile. Raises CallError for another digest, WireError for
        bytes that are no message; both discard the upload.
        """
        path, found = part.finish()
        try:
            if digest not in (None, found):
                raise CallError(
                    "bad_request", "what arrived has another SHA-256 than announced", "Send it again from 0."
                )
            data = path.read_bytes()
            verdict = judge(data, self._terms, work)
        except (CallError, WireError):
            part.discard()
            raise
        accepted = verdict.contribution is not None
        reason = verdict.reason[:MAX_TEXT_CHARS]
        answer = Answer(work.round, device, found, len(data), verdict.n_examples, accepted, reason)
        if verdict.contribution is None:
            part.discard()
            after = work.refused(answer)
        else:
            after = work.accepting(answer, verdict.contribution, self._clock())
            self._disk.blobs.adopt(path, found)
        store = self._disk.store
        return (store.add_profile if work.round == PROFILING else store.add_update)(answer), after

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
            made = terms.rule.merge(
                state, total, server_rank=terms.server_rank, max_rank=terms.max_rank, eta=self._config.eta
            )
            return made, encode_state(made)
        except (ValueError, np.linalg.LinAlgError, WireError) as error:  # WireError: a value is not finite
            raise MergeFailedError(f"merging failed: {error}") from error

    def publish(
        self, round_id: int, reason: str, version: int, data: bytes, traffic: Mapping[str, tuple[int, int]]
    ) -> None:
        """Store a version and close the round that made it, with the byte counts so far."""
        digest = self._disk.blobs.put(data)
        self._disk.store.merge_round(round_id, reason, version, digest, traffic)

    def tidy(self, version: int) -> None:
        """Drop what no board can ask for any more, now that `version` is the newest."""
        oldest = version - KEPT_VERSIONS + 1
        self._disk.store.forget_versions(oldest)
        self._disk.blobs.sweep(self._disk.store.live_digests())
        self._disk.cuts.forget(oldest)
        self._disk.uploads.sweep(None)
