"""A restarted server's memory: the newest version, the open round with its updates folded again, the boards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aggregator.downloads.versions import Versions, read_version
from aggregator.errors import StateError
from aggregator.merge.state import AdapterState, initial_state
from aggregator.merge.sums import Contribution
from aggregator.run.admit import accepted_before
from aggregator.run.fleet import Boards
from aggregator.run.open_round import Collection, begin_profiling, begin_round
from aggregator.run.round_spec import round_spec
from aggregator.run.staleness import Closed
from aggregator.settings.config import RunConfig
from aggregator.settings.terms import Terms
from aggregator.store.blobs import Blobs
from aggregator.store.records import Answer, Round
from aggregator.store.store import OPEN_STATES, Store
from wire.errors import WireError
from wire.rounds import RoundState


@dataclass(frozen=True, slots=True)
class Memory:
    """`collecting` is None between rounds and after the last; `closed` is the last round that is over, `late` those
    whose updates still count."""

    state: AdapterState
    collecting: Collection | None
    closed: int
    late: Closed


def rebuild(config: RunConfig, terms: Terms, store: Store, blobs: Blobs, now: float) -> Memory:
    """Read everything back. Raises StateError where the folder is damaged.

    The open round gets its whole deadline again: while the server was away no board could answer. Updates are folded
    in the order in which they were stored, so the sums are those from before, bit for bit.
    """
    versions = store.versions()
    if not versions:
        profiling = begin_profiling(config, terms)
        state = initial_state(terms.weights)
        collecting = _Refolding(terms, blobs, Versions(store, blobs), state, now).all(profiling, store.profiles())
        return Memory(state, collecting, 0, Closed(config.staleness_limit))
    state = read_version(blobs, versions, max(versions))
    rounds = store.rounds()
    over = [row for row in rounds if row.state not in OPEN_STATES]
    closed = max((row.round for row in over), default=0)
    late = _late(config, over, versions, state.version)
    row = next((row for row in rounds if row.state in OPEN_STATES), None)
    if row is None:
        return Memory(state, None, closed, late)
    fresh = begin_round(config, terms, row.round, row.version, now)
    if row.state == RoundState.EXTENDED.value:
        fresh = fresh.extended(now + config.deadline_s)
    again = _Refolding(terms, blobs, Versions(store, blobs), state, now)
    return Memory(state, again.all(fresh, store.updates(row.round)), closed, late)


def _late(config: RunConfig, over: Iterable[Round], versions: Mapping[int, str], newest: int) -> Closed:
    """The closed rounds whose updates still count: the version that they were trained on is there."""
    late = Closed(config.staleness_limit)
    for row in over:
        if row.version in versions:
            late = late.adding(round_spec(config, row.round, row.version), newest)
    return late


def rebuild_boards(store: Store, liveness_s: float, now: float) -> Boards:
    """Every enrolled board with what it had reported. Nobody could call while the server was away, so all of them are
    waited for, for the liveness time."""
    boards = Boards(liveness_s)
    for device in store.devices():
        boards.add(device).seen_s = now
    boards.restore(store.reports())
    for known, counts in store.counts("device").items():
        boards[str(known)].accepted, boards[str(known)].refused = counts.accepted, counts.refused
    for known, reason in store.refusals().items():
        boards[known].reason = reason
    return boards


@dataclass(frozen=True, slots=True)
class _Refolding:
    """Folds answers that were accepted or refused before the restart, each as it was then."""

    terms: Terms
    blobs: Blobs
    versions: Versions
    newest: AdapterState
    now: float

    def all(self, collection: Collection, answers: Iterable[Answer]) -> Collection:
        for answer in answers:
            if answer.accepted:
                collection = collection.accepting(answer, self._again(answer, collection), self.now)
                while (after := collection.compacted()) is not collection:
                    collection = after
            else:
                collection = collection.refused(answer)
        return collection

    def _again(self, answer: Answer, into: Collection) -> Contribution:
        """It was screened then, and counts now; against the version that the board was sent."""
        sent = self.versions.get(into.version - answer.staleness, self.newest)
        try:
            return accepted_before(self.blobs.get(answer.digest), self.terms, sent, into)
        except WireError as error:
            raise StateError(
                f"The update of {answer.device} for round {answer.round} cannot be read: {error}",
                "Restore the folder from a backup.",
            ) from error
