"""Restoring a run from its store: the newest version, the open round with its updates folded again, the boards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aggregator.downloads.versions import Versions, read_version
from aggregator.errors import StateError
from aggregator.merge.contribution import SentVersion
from aggregator.merge.state import AdapterState, initial_state
from aggregator.run.admit import Verdict, accepted_before
from aggregator.run.fleet import Boards
from aggregator.run.open_round import OpenRound, begin_profiling, begin_round
from aggregator.run.round_spec import round_spec
from aggregator.run.staleness import LateRounds
from aggregator.settings.config import RunConfig
from aggregator.settings.terms import Terms
from aggregator.store.contract import RunRecords
from aggregator.store.records import OPEN_STATES, Answer, Round
from aggregator.store.storage import Storage
from wire.errors import WireError
from wire.rounds import RoundState


@dataclass(frozen=True, slots=True)
class Restored:
    """A run as it was left. `open_round` is None between rounds and after the last; `closed` is the last round that is
    over, `late` those whose updates still count."""

    state: AdapterState
    open_round: OpenRound | None
    closed: int
    late: LateRounds


def rebuild(config: RunConfig, terms: Terms, storage: Storage, now: float) -> Restored:
    """Read everything back. Raises StateError where the folder is damaged.

    The open round gets its whole deadline again: while the server was away no board could answer. Updates are folded
    in the order in which they were stored, so the sums are those from before, bit for bit.
    """
    records = storage.records
    versions = records.versions()
    if not versions:
        profiling = begin_profiling(config, terms)
        state = initial_state(terms.weights)
        open_round = _Refolding(terms, storage, state, now).all(profiling, records.profiles())
        return Restored(state, open_round, 0, LateRounds(config.rounds.staleness_limit))
    state = read_version(storage.blobs, versions, max(versions))
    rounds = records.rounds()
    over = [row for row in rounds if row.state not in OPEN_STATES]
    closed = max((row.round for row in over), default=0)
    late = _late(config, over, versions, state.version)
    row = next((row for row in rounds if row.state in OPEN_STATES), None)
    if row is None:
        return Restored(state, None, closed, late)
    open_round = begin_round(config, terms, row.round, row.version, now)
    if row.state == RoundState.EXTENDED.value:
        open_round = open_round.with_extension(now + config.rounds.deadline_s)
    open_round = _Refolding(terms, storage, state, now).all(open_round, records.updates(row.round))
    return Restored(state, open_round, closed, late)


def _late(config: RunConfig, over: Iterable[Round], versions: Mapping[int, str], newest: int) -> LateRounds:
    """The closed rounds whose updates still count: the version that they were trained on is there."""
    late = LateRounds(config.rounds.staleness_limit)
    for row in over:
        if row.version in versions:
            late = late.with_closed(round_spec(config, row.round, row.version), newest)
    return late


def rebuild_boards(records: RunRecords, liveness_s: float, now: float) -> Boards:
    """Every enrolled board with what it had reported. Nobody could call while the server was away, so all of them are
    waited for, for the liveness time."""
    boards = Boards(liveness_s)
    for device in records.devices():
        boards.add(device).seen_s = now
    boards.restore(records.reports())
    counts, reasons = records.counts("device"), records.refusals()
    for board in boards:  # not those that were removed
        if board.device in counts:
            board.accepted, board.refused = counts[board.device].accepted, counts[board.device].refused
        board.reason = reasons.get(board.device, "")
    return boards


class _Refolding:
    """Folds answers that were accepted or refused before the restart, each as it was then."""

    def __init__(self, terms: Terms, storage: Storage, newest: AdapterState, now: float) -> None:
        self._terms, self._blobs, self._newest, self._now = terms, storage.blobs, newest, now
        self._versions = Versions(storage.records, storage.blobs)
        self._sent: SentVersion | None = None  # the last that was asked for: answers mostly come on one

    def all(self, open_round: OpenRound, answers: Iterable[Answer]) -> OpenRound:
        for answer in answers:
            if not answer.accepted:
                open_round = open_round.with_refused(answer)
                continue
            verdict = self._verdict_again(answer, open_round)
            assert verdict.contribution is not None
            open_round = open_round.with_accepted(answer, verdict.contribution, verdict.sizes, self._now)
            while (after := open_round.with_compacted_sums()) is not open_round:
                open_round = after
        return open_round

    def _verdict_again(self, answer: Answer, open_round: OpenRound) -> Verdict:
        """It was screened then, and counts now; against the version that the board was sent."""
        sent = self._sent_version(open_round.version - answer.staleness)
        try:
            return accepted_before(self._blobs.get(answer.digest), sent, open_round)
        except WireError as error:
            raise StateError(
                f"The update of {answer.device} for round {answer.round} cannot be read: {error}",
                "Restore the folder from a backup.",
            ) from error

    def _sent_version(self, version: int) -> SentVersion:
        if self._sent is None or self._sent.state.version != version:
            state = self._versions.get(version, self._newest)
            self._sent = SentVersion(self._terms.rule, state, self._terms.download)
        return self._sent
