"""The states of a run, of a round on the server, and of a board, and the only ways from one to the next.

Every legal transition is a line of the tables below; both programs and docs/concepts/protocol.md read them from here.
The tables know no clock, socket or store: who sees something happen names the event, `advance` says where that leads.
Two rules:

- A state that both sides must remember is changed through `advance` before anything is done about it, and an event
  that the table does not have is a bug of the caller or a peer that cannot be trusted. It raises, and nothing changes.
- A peer's silence is an event as well (`DEADLINE_…`, `INTERRUPTED`), so that no state is held by a board that vanished:
  from every state a terminal one can be reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeVar

from wire.errors import IllegalTransition

# Plain enums, not str ones: RunState.PROFILING and BoardState.PROFILING must not be equal. Store `.value`.


class RunState(Enum):
    """States of a run, on the server; `RunInfo.state` tells boards."""

    PROFILING = "profiling"
    TRAINING = "training"
    FINISHED = "finished"


class RunEvent(Enum):
    """Events of a run, on the server."""

    BASIS_MADE = "basis made"
    ROUNDS_DONE = "rounds done"


class RoundState(Enum):
    """States of one round, on the server."""

    OPEN = "open"
    EXTENDED = "extended"
    CLOSED = "closed"
    MERGED = "merged"
    ABANDONED = "abandoned"


class RoundEvent(Enum):
    """Events of one round, on the server."""

    UPDATE_ACCEPTED = "update accepted"
    QUORUM_REACHED = "quorum reached"
    DEADLINE_WITH_ENOUGH = "deadline with enough updates"
    DEADLINE_WITH_TOO_FEW = "deadline with too few updates"
    DEADLINE_WITH_REFUSED = "deadline with refused updates"
    VERSION_PUBLISHED = "version published"
    MERGE_FAILED = "merge failed"


class BoardState(Enum):
    """States of a board between enrolment and the end."""

    IDLE = "idle"
    PROFILING = "profiling"
    FETCHING = "fetching"
    TRAINING = "training"
    EVALUATING = "evaluating"
    UPLOADING = "uploading"
    DONE = "done"
    REVOKED = "revoked"


class BoardEvent(Enum):
    """Events that a board meets, from its server and from its own worker."""

    TOLD_TO_WAIT = "told to wait"
    TOLD_TO_PROFILE = "told to profile"
    TOLD_TO_TRAIN = "told to train"
    TOLD_TO_EVALUATE = "told to evaluate"
    RUN_FINISHED = "run finished"
    TRAINING_BEGUN = "training begun"
    EVALUATION_BEGUN = "evaluation begun"
    RESULT_WRITTEN = "result written"
    REPORTED = "reported"
    ANSWERED = "answered"
    ROUND_GONE = "round gone"
    INTERRUPTED = "interrupted"
    DEVICE_REVOKED = "device revoked"


S = TypeVar("S", RunState, RoundState, BoardState)
Table = Mapping[tuple[S, Enum], tuple[S, str]]  # (state, event) → (next state, what it means)

_WORKING = (
    BoardState.PROFILING,
    BoardState.FETCHING,
    BoardState.TRAINING,
    BoardState.EVALUATING,
    BoardState.UPLOADING,
)

RUN: Table[RunState] = MappingProxyType(
    {
        (RunState.PROFILING, RunEvent.BASIS_MADE): (
            RunState.TRAINING,
            "enough profiles, or the deadline: the first basis is published as version 1",
        ),
        (RunState.TRAINING, RunEvent.ROUNDS_DONE): (
            RunState.FINISHED,
            "the last round is merged or abandoned; boards evaluate the last version once more",
        ),
    }
)

ROUND: Table[RoundState] = MappingProxyType(
    {
        **{
            (state, event): (following, why)
            for state in (RoundState.OPEN, RoundState.EXTENDED)
            for event, following, why in (
                (RoundEvent.UPDATE_ACCEPTED, state, "screened, stored, then answered; the round goes on"),
                (RoundEvent.QUORUM_REACHED, RoundState.CLOSED, "enough boards have sent an update"),
                (
                    RoundEvent.DEADLINE_WITH_ENOUGH,
                    RoundState.CLOSED,
                    "time is up; the missing boards are not waited for",
                ),
                (
                    RoundEvent.DEADLINE_WITH_TOO_FEW,
                    RoundState.EXTENDED,
                    "time is up with too few updates: a new deadline",
                ),
                (
                    RoundEvent.DEADLINE_WITH_REFUSED,
                    RoundState.ABANDONED,
                    "time is up, every live board has answered, and those refused would make the quorum: the version "
                    "stays, and the next round asks them again",
                ),
            )
        },
        (RoundState.CLOSED, RoundEvent.VERSION_PUBLISHED): (
            RoundState.MERGED,
            "the accepted updates are in the next version, which is on disk",
        ),
        (RoundState.CLOSED, RoundEvent.MERGE_FAILED): (
            RoundState.ABANDONED,
            "the sum is not finite or cannot be factored; the version stays",
        ),
    }
)

BOARD: Table[BoardState] = MappingProxyType(
    {
        (BoardState.IDLE, BoardEvent.TOLD_TO_WAIT): (BoardState.IDLE, "nothing to do: ask again"),
        (BoardState.IDLE, BoardEvent.TOLD_TO_PROFILE): (BoardState.PROFILING, "sketch the gradients of the bare base"),
        (BoardState.IDLE, BoardEvent.TOLD_TO_TRAIN): (BoardState.FETCHING, "plan, then fetch the version to train on"),
        (BoardState.IDLE, BoardEvent.TOLD_TO_EVALUATE): (BoardState.FETCHING, "fetch the version to evaluate"),
        (BoardState.IDLE, BoardEvent.RUN_FINISHED): (BoardState.DONE, "the run is over, and so is the client"),
        (BoardState.PROFILING, BoardEvent.RESULT_WRITTEN): (BoardState.UPLOADING, "the profile is on disk: send it"),
        (BoardState.FETCHING, BoardEvent.TRAINING_BEGUN): (BoardState.TRAINING, "the adapter is on disk and checked"),
        (BoardState.FETCHING, BoardEvent.EVALUATION_BEGUN): (
            BoardState.EVALUATING,
            "the adapter is on disk and checked",
        ),
        (BoardState.TRAINING, BoardEvent.RESULT_WRITTEN): (BoardState.UPLOADING, "the update is on disk: send it"),
        (BoardState.EVALUATING, BoardEvent.REPORTED): (BoardState.IDLE, "scores sent, there is no update to send"),
        (BoardState.UPLOADING, BoardEvent.ANSWERED): (
            BoardState.IDLE,
            "receipt, or a refusal that repeating cannot mend",
        ),
        **{
            (state, BoardEvent.ROUND_GONE): (BoardState.IDLE, "the round closed without this board: drop the work")
            for state in (BoardState.IDLE, *_WORKING)
        },
        **{
            (state, BoardEvent.INTERRUPTED): (
                BoardState.IDLE,
                "worker failed or client restarted: ask again, resume from disk if the task is the same",
            )
            for state in (BoardState.IDLE, *_WORKING)  # idle: a report after the answer was lost, nothing to drop
        },
        **{
            (state, BoardEvent.DEVICE_REVOKED): (BoardState.REVOKED, "the server has shut this device out: leave")
            for state in (BoardState.IDLE, *_WORKING)
        },
    }
)

TERMINAL: frozenset[Enum] = frozenset(
    {RunState.FINISHED, RoundState.MERGED, RoundState.ABANDONED, BoardState.DONE, BoardState.REVOKED}
)
"""States that nothing leads out of."""

_TABLES: dict[type[Enum], Mapping[Any, Any]] = {RunState: RUN, RoundState: ROUND, BoardState: BOARD}


def advance(state: S, event: Enum) -> S:
    """The state that `event` leads to. Raises IllegalTransition, which names both, if the table has no such line."""
    line = _TABLES[type(state)].get((state, event))
    if line is None:
        legal = sorted(known.value for from_state, known in _TABLES[type(state)] if from_state is state)
        raise IllegalTransition(
            f"{type(state).__name__} is {state.value!r}: {event.value!r} cannot happen now"
            + (f", only {', '.join(legal)}" if legal else "; it is over")
        )
    following: S = line[0]
    return following
