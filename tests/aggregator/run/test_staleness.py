"""Fleets of very unequal boards, simulated through schedule and sums: every update counts once, or is too late."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.run.open_round import OpenRound
from aggregator.run.schedule import BeginRound, CloseRound, Finish, View, decide
from aggregator.run.staleness import LateRounds, staleness_weight
from aggregator.settings.config import RoundsSection
from aggregator.store.records import Answer
from tests.fakes.rounds import rounds_section
from wire.messages import RoundSpec

N_BOARDS = 50
ROUNDS = 30


@dataclass
class Fleet:
    """A server without HTTP, disk and arithmetic, and boards that take `durations` seconds for a round."""

    durations: np.ndarray[Any, Any]
    rules: RoundsSection
    limit: int
    now: float = 0.0
    version: int = 1
    last: int = 0
    work: OpenRound | None = None
    late: LateRounds = field(default_factory=lambda: LateRounds(0))
    buffers: list[tuple[Answer, ...]] = field(default_factory=list)
    sent: list[tuple[int, str]] = field(default_factory=list)
    too_late: list[tuple[int, str]] = field(default_factory=list)

    def run(self) -> None:
        """Until all rounds are closed. Boards that count in the open round wait for the next."""
        self.late = LateRounds(self.limit)
        training: list[tuple[float, int, RoundSpec]] = []
        idle = set(range(N_BOARDS))
        while self._obeyed():
            assert self.work is not None
            for board in sorted(board for board in idle if str(board) not in self.work.answers):
                heapq.heappush(training, (self.now + self.durations[board], board, self.work.spec))
                idle.remove(board)
            self.now, board, asked = heapq.heappop(training)
            idle.add(board)
            self._answer(str(board), asked)

    def _obeyed(self) -> bool:
        """Do what is due. False once the run is over."""
        while True:
            work = self.work
            view = View("between", self.last, frozenset(), frozenset(), 0, None)
            if work is not None:
                live = frozenset(map(str, range(N_BOARDS)))
                view = View("round", work.round, live, work.answered, work.accepted, work.since_s, work.quorum_s)
            match decide(view, self.rules, self.now).action:
                case BeginRound(round=number):
                    asked = RoundSpec(round=number, version=self.version)
                    self.work = OpenRound(asked, quorum=self.rules.quorum, since_s=self.now)
                case CloseRound():
                    assert work is not None
                    self.buffers.append(tuple(work.answers.values()))
                    self.version, self.last, self.work = self.version + 1, work.round, None
                    self.late = self.late.with_closed(work.spec, self.version)
                case Finish():
                    return False
                case _:
                    return True

    def _answer(self, device: str, asked: RoundSpec) -> None:
        assert self.work is not None
        self.sent.append((asked.round, device))
        if asked.round != self.work.round and asked.round not in self.late.rounds:
            self.too_late.append((asked.round, device))
            return
        staleness = self.work.version - asked.version
        answer = Answer(asked.round, self.work.round, device, "", 1, 1, True, staleness=staleness)
        self.work = self.work.with_answer(answer, {}, self.now)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 20))
def test_no_update_counts_twice_and_none_is_lost(seed: int, quorum: int, limit: int) -> None:
    """50 boards, the slowest some thousand times slower than the quickest: what was sent is what was merged plus what
    the limit refused, each buffer holds as many boards as the quorum, and none is further behind than the limit."""
    durations = np.exp(np.random.default_rng(seed).uniform(-4, 4, N_BOARDS))
    rules = rounds_section(ROUNDS, N_BOARDS, quorum, deadline_s=1e9, grace_s=0, is_asynchronous=True)
    fleet = Fleet(durations, rules, limit)

    fleet.run()

    merged = [(answer.round, answer.device) for buffer in fleet.buffers for answer in buffer]
    assert len(set(merged)) == len(merged)
    assert sorted(merged + fleet.too_late) == sorted(fleet.sent)
    assert [len(buffer) for buffer in fleet.buffers] == [quorum] * ROUNDS
    for number, buffer in enumerate(fleet.buffers, 1):
        assert len({answer.device for answer in buffer}) == quorum
        assert all(answer.counted_in == number == answer.round + answer.staleness for answer in buffer)
        assert max(answer.staleness for answer in buffer) <= limit
    assert all(fleet.version - round_id > limit for round_id, _ in fleet.too_late)


def test_slow_boards_hold_nobody_and_count_all_the_same() -> None:
    """45 boards take a second and five a hundred: rounds close at the quick ones' pace, and where the limit allows it
    every slow board that was done in time for a round to come counts."""
    durations = np.concatenate([np.full(45, 1.0), np.full(5, 20.0)])
    rules = rounds_section(ROUNDS, N_BOARDS, 45, deadline_s=1e9, grace_s=0, is_asynchronous=True)
    fleet = Fleet(durations, rules, limit=25)

    fleet.run()

    slow = {answer.device for buffer in fleet.buffers for answer in buffer if int(answer.device) >= 45}
    assert slow == {str(board) for board in range(45, 50)} and not fleet.too_late
    assert fleet.now <= ROUNDS + 1


@given(st.integers(0, 100), st.floats(0, 10))
def test_the_staleness_weight_is_fedbuffs(staleness: int, power: float) -> None:
    """1 for what is new, never above it, and less the older an update is; at power 1/2 it is 1/√(1 + s)."""
    weight = staleness_weight(staleness, power)

    assert 0 < weight <= 1 and staleness_weight(0, power) == 1
    assert staleness_weight(staleness + 1, power) <= weight
    assert math.isclose(staleness_weight(staleness, 0.5), 1 / math.sqrt(1 + staleness))


@given(st.integers(0, 5), st.lists(st.booleans(), max_size=20))
def test_closed_rounds_count_as_far_back_as_the_limit(limit: int, published: list[bool]) -> None:
    """Whatever rounds were merged or abandoned: those whose version is at most `limit` behind, and no others."""
    closed, version = LateRounds(limit), 1
    asked = []
    for number, is_merged in enumerate(published, 1):
        asked.append(RoundSpec(round=number, version=version, seed=number))
        version += is_merged
        closed = closed.with_closed(asked[-1], version)

    assert list(closed.rounds.values()) == [each for each in asked if limit and version - each.version <= limit]
