"""The plans of one board for one base, made from memory that was measured before anything was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge_client.board import Board
from edge_client.cache_room import NO_ROOM, CacheRoom
from edge_client.jobs import Plan
from edge_client.plan import CLIENT_BYTES, choose, explain, runners_up
from wire.messages import RunInfo

SHRINK_SHARE = 0.85
"""What is left of the board's memory in our eyes each time the kernel kills the worker: the prediction was too low, or
another program has grown."""


class Planner:
    """`config` is the base's config.json, `room` the disk for the encoder's output."""

    def __init__(self, board: Board, config: Mapping[str, Any], room: CacheRoom = NO_ROOM) -> None:
        self._board, self._config, self._room = board, config, room

    def choose(self, run: RunInfo) -> Plan:
        """The best plan that fits. Raises NoPlanError, which says how much the smallest needs."""
        return choose(self._board, run, self._config, room=self._room).plan

    def why(self, run: RunInfo) -> list[str]:
        """Lines for people: the plan, its memory, and why the others lost."""
        choice = choose(self._board, run, self._config, room=self._room)
        return explain(choice, self._board, runners_up(choice, self._board, run, self._config, self._room))

    def fits(self, plan: Plan) -> bool:
        """Whether a plan made earlier still fits the board: its memory, its device, and the disk that it was given."""
        fits_disk = plan.cache == "none" or self._room.limit_bytes > 0
        fits_memory = plan.predicted_peak_bytes <= self._board.memory_bytes - CLIENT_BYTES
        return fits_memory and fits_disk and plan.device == self._board.device

    def shrink(self) -> None:
        """Plan with less memory from now on: the worker was killed at the present plan."""
        board = self._board
        self._board = replace(
            board,
            memory_bytes=int(board.memory_bytes * SHRINK_SHARE),
            memory_source=f"{board.memory_source}, lowered because the worker was killed",
        )
