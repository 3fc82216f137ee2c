"""A restarted server's memory: the newest version, and the open round with every accepted update folded again."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.blobs import Blobs
from aggregator.collection import PROFILING, Collection
from aggregator.config import RunConfig
from aggregator.errors import StateError
from aggregator.intake import Terms, contribution_of
from aggregator.merge.braid import Contribution
from aggregator.merge.state import AdapterState, decode_state, initial_state
from aggregator.records import Answer
from aggregator.store import OPEN_STATES, Store
from wire.errors import WireError
from wire.rounds import RoundState
from wire.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Memory:
    """`collecting` is None between rounds and after the last; `closed` is the last round that is over."""

    state: AdapterState
    collecting: Collection | None
    closed: int


def begin_profiling(config: RunConfig) -> Collection:
    """The collection of profiles, whose deadline does not run yet."""
    seed = derive_seed(config.seed, "profile")
    return Collection(round=PROFILING, version=0, seed=seed, sketch=True, since_s=None)


def begin_round(config: RunConfig, round_id: int, version: int, now: float) -> Collection:
    """A new round. It asks for sketches every `sketch_every` rounds, and never in the last, which needs no basis."""
    return Collection(
        round=round_id,
        version=version,
        seed=derive_seed(config.seed, "round", round_id),
        sketch=round_id % config.sketch_every == 0 and round_id < config.rounds,
        since_s=now,
    )


def rebuild(config: RunConfig, terms: Terms, store: Store, blobs: Blobs, now: float) -> Memory:
    """Read everything back. Raises StateError where the folder is damaged.

    The open round gets its whole deadline again: while the server was away no board could answer. Updates are folded
    in the order in which they were stored, so the sums are those from before, bit for bit.
    """
    versions = store.versions()
    if not versions:
        profiling = begin_profiling(config)
        state = initial_state(terms.weights)
        return Memory(state, _refold(profiling, store.profiles(), config, blobs, now), 0)
    state = read_version(blobs, versions, max(versions))
    rounds = store.rounds()
    closed = max((row.round for row in rounds if row.state not in OPEN_STATES), default=0)
    row = next((row for row in rounds if row.state in OPEN_STATES), None)
    if row is None:
        return Memory(state, None, closed)
    fresh = begin_round(config, row.round, row.version, now)
    if row.state == RoundState.EXTENDED.value:
        fresh = fresh.extended(now + config.deadline_s)
    return Memory(state, _refold(fresh, store.updates(row.round), config, blobs, now), closed)


def read_version(blobs: Blobs, versions: dict[int, str], version: int) -> AdapterState:
    """A stored version. Raises StateError where it is missing or damaged, KeyError where it was never stored."""
    try:
        return decode_state(blobs.get(versions[version]))
    except WireError as error:
        raise StateError(f"Version {version} cannot be read: {error}", "Restore the folder from a backup.") from error


def _refold(
    collection: Collection, answers: tuple[Answer, ...], config: RunConfig, blobs: Blobs, now: float
) -> Collection:
    quorum = config.min_devices if collection.round == PROFILING else config.quorum
    for answer in answers:
        if not answer.accepted:
            collection = collection.refused(answer)
            continue
        contribution = _again(blobs, answer, collection)
        collection = collection.accepting(answer, contribution, quorum=quorum, now=now)
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
