"""Restoring a run from its store: the newest version, the open round with its answers, the boards.

No upload is read for it: what was accepted stays on the disk until its round closes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aggregator.downloads.versions import decoded
from aggregator.errors import DiskError, StateError, is_of_disk
from aggregator.merge.state import AdapterState, initial_state
from aggregator.run.fleet import Boards
from aggregator.run.open_round import OpenRound, begin_profiling, begin_round
from aggregator.run.round_spec import round_spec
from aggregator.run.screen import decode_sizes
from aggregator.run.staleness import LateRounds
from aggregator.settings.config import RunConfig
from aggregator.settings.terms import Terms
from aggregator.store.contract import RunRecords
from aggregator.store.records import OPEN_STATES, Answer, Round
from aggregator.store.storage import Storage
from wire.rounds import RoundState

UNREADABLE = (
    "The next start tries again, and nothing is given up until then. Where the disk never reads it again, move that "
    "file away: the run goes on from the version before."
)
"""What to do about a version's file that the disk cannot read."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A run as it was left.

    Attributes:
        state: the newest version that can be read.
        digest: of its file; "" for version 0, which has none.
        open_round: None between rounds and after the last.
        closed: the last round that is over.
        late: those of them whose updates still count.
        losses: sentences about what could not be restored.
    """

    state: AdapterState
    digest: str
    open_round: OpenRound | None
    closed: int
    late: LateRounds
    losses: tuple[str, ...] = ()


def rebuild(config: RunConfig, terms: Terms, storage: Storage, now: float) -> Restored:
    """Read everything back. Raises StateError where the folder is damaged beyond what the run can do without, and
    DiskError where the disk cannot say whether it is.

    The open round gets its whole deadline again: while the server was away no board could answer.
    """
    records = storage.records
    state, digest, lost = _newest(terms, storage)
    rounds = records.rounds()
    lost += _abandon_orphans(records, rounds, state.version)
    rounds = records.rounds() if lost else rounds
    over = [row for row in rounds if row.state not in OPEN_STATES]
    closed = max((row.round for row in over), default=0)
    versions = records.versions()
    late = _late(config, over, versions, state.version)
    if not versions:
        open_round = _answered(begin_profiling(config), records.profiles(), now)
        return Restored(state, digest, open_round, closed, late, tuple(lost))
    row = next((row for row in rounds if row.state in OPEN_STATES), None)
    if row is None:
        return Restored(state, digest, None, closed, late, tuple(lost))
    spec = round_spec(config, row.round, row.version, versions[row.version])
    open_round = begin_round(config, terms, spec, now)
    if row.state == RoundState.EXTENDED.value:
        open_round = open_round.with_extension(now + config.rounds.deadline_s)
    open_round = _answered(open_round, records.updates(row.round), now)
    return Restored(state, digest, open_round, closed, late, tuple(lost))


def _newest(terms: Terms, storage: Storage) -> tuple[AdapterState, str, list[str]]:
    """The newest version whose file is sound, its digest, and what was found of newer ones, which are forgotten.

    Where all of several files are gone it is the folder that is wrong, and nothing is forgotten. Raises StateError; and
    DiskError where the disk reports an error, which says nothing about the file: it may be read the next time.
    """
    versions = storage.records.versions()
    damaged: dict[int, str] = {}
    for version in sorted(versions, reverse=True):
        try:
            data = storage.blobs.get(versions[version])
        except StateError as error:
            if is_of_disk(error):
                raise DiskError(error.message, UNREADABLE) from error
            damaged[version] = error.message
            continue
        state = decoded(data, version)
        return state, versions[version], _forget(storage, versions, damaged, state.version)
    if len(damaged) > 1:
        raise StateError(f"No version can be read: {damaged[max(damaged)]}", "Restore the folder from a backup.")
    return initial_state(terms.weights), "", _forget(storage, versions, damaged, 0)


def _forget(storage: Storage, versions: Mapping[int, str], damaged: Mapping[int, str], sound: int) -> list[str]:
    """Forget damaged versions; a sentence about each."""
    sentences = []
    for version, reason in damaged.items():
        storage.blobs.set_aside(versions[version])
        storage.records.lose_version(version, reason)
        sentences.append(f"version {version} is lost, the run goes on from version {sound}: {reason}")
    return sentences


def _abandon_orphans(records: RunRecords, rounds: Iterable[Round], newest: int) -> list[str]:
    """Abandon an open round whose version is lost; a sentence about it."""
    sentences = []
    for row in rounds:
        if row.state in OPEN_STATES and row.version > newest:
            reason = f"version {row.version}, on which it began, is lost"
            records.abandon_round(row.round, reason)
            sentences.append(f"round {row.round} abandoned: {reason}")
    return sentences


def _late(config: RunConfig, over: Iterable[Round], versions: Mapping[int, str], newest: int) -> LateRounds:
    """The closed rounds whose updates still count: the version that they were trained on is there."""
    late = LateRounds(config.rounds.staleness_limit)
    for row in over:
        if row.version in versions:
            late = late.with_closed(round_spec(config, row.round, row.version, versions[row.version]), newest)
    return late


def _answered(open_round: OpenRound, answers: Iterable[Answer], now: float) -> OpenRound:
    """The round with what was answered before the restart, in the same order."""
    for answer in answers:
        open_round = open_round.with_answer(answer, decode_sizes(answer.sizes), now)
    return open_round


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
