"""Judging uploads that are on the disk: each becomes an answer, accepted or refused, or a failure that its board hears.

Everything here blocks, and is called by one thread at a time, under the run's lock.
"""

from __future__ import annotations

from aggregator.errors import CallError
from aggregator.merge.state import AdapterState
from aggregator.run.admit import Verdict, judge
from aggregator.run.intake.sent_versions import SentVersions
from aggregator.run.open_round import OpenRound
from aggregator.run.round_spec import PROFILING
from aggregator.run.screen import encode_sizes
from aggregator.run.tasks import shut_out
from aggregator.settings.terms import Terms
from aggregator.store.records import Answer, Received, ShutOutError
from aggregator.store.storage import Storage
from wire.errors import ProtocolVersionError, WireError
from wire.limits import MAX_TEXT_CHARS
from wire.messages import RoundSpec


class Judge:
    """Judges one upload after the other.

    Args:
        terms: what the run holds fixed.
        storage: where uploads lie, and answers are written.
        sent: the versions that boards trained on.
    """

    def __init__(self, terms: Terms, storage: Storage, sent: SentVersions) -> None:
        self._terms, self._storage, self._sent = terms, storage, sent

    def judge(
        self, received: Received, spec: RoundSpec, into: OpenRound, newest: AdapterState
    ) -> tuple[Answer, Verdict]:
        """Judge an upload and store the answer, which counts once it is returned.

        Args:
            received: the upload.
            spec: the round that it was trained for.
            into: the round that is open.
            newest: the newest version.

        Raises CallError for what no answer can be given to: bytes that are no message, a version that cannot be read
        any more, or because the board was shut out. StateError where the upload itself is damaged.
        """
        data = self._storage.blobs.get(received.digest)
        try:
            verdict = judge(data, self._terms, spec, self._sent.get(spec.version, newest), into)
        except ProtocolVersionError as error:
            raise CallError("protocol_version", str(error)) from error
        except WireError as error:
            raise CallError("bad_request", str(error)) from error
        answer = Answer(
            round=spec.round,
            counted_in=into.round,
            device=received.device,
            digest=received.digest,
            size_bytes=len(data),
            n_examples=verdict.n_examples,
            accepted=verdict.contribution is not None,
            reason=verdict.reason[:MAX_TEXT_CHARS],
            staleness=into.version - spec.version,
            sizes=encode_sizes(verdict.sizes),
        )
        records = self._storage.records
        try:
            stored = (records.add_profile if into.round == PROFILING else records.add_update)(answer)
        except ShutOutError as error:  # while it waited
            raise shut_out(error) from error
        if not stored.accepted:
            self._drop(received.digest)
        return stored, verdict

    def give_up(self, received: Received) -> None:
        """Forget an upload that no answer can be given to."""
        self._storage.records.drop_received(received.device)
        self._drop(received.digest)

    def _drop(self, digest: str) -> None:
        if digest not in self._storage.records.live_digests():
            self._storage.blobs.drop(digest)
