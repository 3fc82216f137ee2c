"""A restarted server's memory: the newest version, the open round with its updates folded again, the boards."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.blobs import Blobs
from aggregator.board import Boards
from aggregator.collection import PROFILING, Collection, begin_profiling, begin_round
from aggregator.config import RunConfig
from aggregator.errors import StateError
from aggregator.intake import contribution_of
from aggregator.merge.state import AdapterState, decode_state, initial_state
from aggregator.merge.sums import Contribution
from aggregator.records import Answer
from aggregator.store import OPEN_STATES, Store
from aggregator.terms import Terms
from wire.errors import WireError
from wire.rounds import RoundState


@dataclass(frozen=True, slots=True)
class Memory:
    """`collecting` is None between rounds and after the last; `closed` is the last round that is over."""

    state: AdapterState
    collecting: Collection | None
    closed: int


def rebuild(config: RunConfig, terms: Terms, store: Store, blobs: Blobs, now: float) -> Memory:
    """Read everything back. Raises StateError where the folder is damaged.

    The open round gets its whole deadline again: while the server was away no board could answer. Updates are folded
    in the order in which they were stored, so the sums are those from before, bit for bit.
    """
    versions = store.versions()
    if not versions:
        profiling = begin_profiling(config, terms)
        state = initial_state(terms.weights)
        return Memory(state, _refold(profiling, store.profiles(), blobs, now), 0)
    state = read_version(blobs, versions, max(versions))
    rounds = store.rounds()
    closed = max((row.round for row in rounds if row.state not in OPEN_STATES), default=0)
    row = next((row for row in rounds if row.state in OPEN_STATES), None)
    if row is None:
        return Memory(state, None, closed)
    fresh = begin_round(config, terms, row.round, row.version, now)
    if row.state == RoundState.EXTENDED.value:
        fresh = fresh.extended(now + config.deadline_s)
    return Memory(state, _refold(fresh, store.updates(row.round), blobs, now), closed)


def read_version(blobs: Blobs, versions: dict[int, str], version: int) -> AdapterState:
    """A stored version. Raises StateError where it is missing or damaged, KeyError where it was never stored."""
    try:
        return decode_state(blobs.get(versions[version]))
    except WireError as error:
        raise StateError(f"Version {version} cannot be read: {error}", "Restore the folder from a backup.") from error


def rebuild_boards(store: Store, liveness_s: float, now: float) -> Boards:
    """Every enrolled board with what it had reported. Nobody could call while the server was away, so all of them are
    waited for, for the liveness time."""
    boards = Boards(liveness_s)
    for device in store.devices():
        boards.add(device).seen_s = now
    boards.restore(store.reports())
    for known, (accepted, refused) in store.counts("device").items():
        boards[str(known)].accepted, boards[str(known)].refused = accepted, refused
    return boards


def _refold(collection: Collection, answers: tuple[Answer, ...], blobs: Blobs, now: float) -> Collection:
    for answer in answers:
        if not answer.accepted:
            collection = collection.refused(answer)
            continue
        collection = collection.accepting(answer, _again(blobs, answer, collection), now)
    return collection


def _again(blobs: Blobs, answer: Answer, into: Collection) -> Contribution:
    """The contribution of an answer that was accepted before the restart: it was screened then, and counts now."""
    try:
        return contribution_of(blobs.get(answer.digest), into.round == PROFILING)
    except WireError as error:
        raise StateError(
            f"The update of {answer.device} for round {into.round} cannot be read: {error}",
            "Restore the folder from a backup.",
        ) from error
