"""The state tables: nothing illegal happens, and nothing is stuck."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, get_args, get_type_hints

import pytest

from wire.errors import IllegalTransition
from wire.rounds import (
    BOARD,
    ROUND,
    RUN,
    TERMINAL,
    BoardEvent,
    BoardState,
    RoundEvent,
    RoundState,
    RunEvent,
    RunState,
    advance,
)
from wire.run import RunInfo

TABLES = [(RUN, RunState, RunEvent), (ROUND, RoundState, RoundEvent), (BOARD, BoardState, BoardEvent)]
EVENTS = [*RunEvent, *RoundEvent, *BoardEvent]
tables = pytest.mark.parametrize(("table", "states", "events"), TABLES, ids=["run", "round", "board"])


def reachable(table: Mapping[Any, Any], start: Enum) -> set[Enum]:
    """Every state that some row of events leads to from `start`, itself included."""
    found, todo = {start}, [start]
    while todo:
        here = todo.pop()
        new = {following for (state, _), (following, _) in table.items() if state is here} - found
        found |= new
        todo += new
    return found


@tables
def test_every_pair_is_legal_or_raises(table: Mapping[Any, Any], states: Any, events: type[Enum]) -> None:
    """advance follows the table, and any other event, other machines' included, raises and names state and event."""
    for state in states:
        for event in EVENTS:
            if (state, event) in table:
                assert advance(state, event) is table[state, event][0]
            else:
                with pytest.raises(IllegalTransition, match=f"'{state.value}'.*'{event.value}' cannot happen"):
                    advance(state, event)


@tables
def test_no_state_is_a_trap(table: Mapping[Any, Any], states: type[Enum], events: type[Enum]) -> None:
    """From every state a terminal one can be reached; out of a terminal one nothing leads."""
    for state in states:
        assert reachable(table, state) & TERMINAL
        assert (state in TERMINAL) == (reachable(table, state) == {state})


@tables
def test_nothing_is_idle_talk(table: Mapping[Any, Any], states: type[Enum], events: type[Enum]) -> None:
    """Every state can be reached from the first one, every event happens somewhere, every line says what it means."""
    assert reachable(table, next(iter(states))) == set(states)
    assert {event for _, event in table} == set(events)
    assert all(why for _, why in table.values())


def test_tables_cannot_be_changed() -> None:
    """The tables are data for two programs and the docs; nobody edits them while running."""
    for table, _, _ in TABLES:
        with pytest.raises(TypeError):
            table[RunState.FINISHED, RunEvent.BASIS_MADE] = (RunState.PROFILING, "again")  # type: ignore[index]


def test_a_round_may_be_extended_and_still_merge() -> None:
    """open → extended → extended → closed → merged, with updates accepted on the way; then it is over."""
    state = RoundState.OPEN
    for event in (
        RoundEvent.UPDATE_ACCEPTED,
        RoundEvent.DEADLINE_WITH_TOO_FEW,
        RoundEvent.DEADLINE_WITH_TOO_FEW,
        RoundEvent.UPDATE_ACCEPTED,
        RoundEvent.QUORUM_REACHED,
        RoundEvent.VERSION_PUBLISHED,
    ):
        state = advance(state, event)

    assert state is RoundState.MERGED
    with pytest.raises(IllegalTransition, match="it is over"):
        advance(state, RoundEvent.UPDATE_ACCEPTED)


def test_an_update_after_closing_is_illegal() -> None:
    """A closed round takes no update, so none can be counted after the sum was made."""
    closed = advance(RoundState.OPEN, RoundEvent.DEADLINE_WITH_ENOUGH)

    with pytest.raises(IllegalTransition, match="only merge failed, version published"):
        advance(closed, RoundEvent.UPDATE_ACCEPTED)


def test_a_board_can_be_interrupted_anywhere() -> None:
    """Whatever a board works at, a crash leads back to asking for work, and a revocation out."""
    for state in set(BoardState) - TERMINAL - {BoardState.IDLE}:
        assert advance(state, BoardEvent.INTERRUPTED) is BoardState.IDLE
        assert advance(state, BoardEvent.DEVICE_REVOKED) is BoardState.REVOKED


def test_run_states_are_those_of_the_message() -> None:
    """RunInfo.state carries exactly these words."""
    assert set(get_args(get_type_hints(RunInfo)["state"])) == {state.value for state in RunState}


def test_machines_are_not_mixed_up() -> None:
    """Equal words of two machines are different states."""
    assert len({RunState.PROFILING, BoardState.PROFILING}) == 2
