"""Promises of the server: each upload that it acknowledged, as the line between heard it, heard by the board or not."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from chaos.network.http import Answer, Request
from wire.codec import decode
from wire.errors import WireError
from wire.messages import Receipt


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An upload that the server has taken in. Round 0 is the profile."""

    board: str
    round: int
    digest: str


@dataclass(slots=True)
class Ledger:
    """All that a server has acknowledged, and what it has refused.

    Attributes:
        acknowledged: in the order in which it happened first.
        repeats: acknowledgements of what was acknowledged before, receipts among them.
        refused: reasons of receipts that say no: nothing honest is ever refused.
        statuses: how often each status was answered.
    """

    acknowledged: dict[Acknowledged, None] = field(default_factory=dict)
    repeats: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, board: str, request: Request, answer: Answer) -> None:
        """Take in an answer of the server, once it has left it whole."""
        self.statuses[answer.status] += 1
        round_id = request.round
        if round_id is None:
            return
        receipt = _receipt(answer) if request.method != "HEAD" and answer.status == 200 else None
        if receipt is not None and not receipt.accepted:
            self.refused[receipt.reason] += 1
        elif receipt is not None or _has_taken_in(request, answer):
            entry = Acknowledged(board, round_id, request.header("upload-digest"))
            self.repeats += entry in self.acknowledged
            self.acknowledged[entry] = None
            self.changed.set()

    def boards_of(self, round_id: int) -> frozenset[str]:
        """The boards whose update of a round was acknowledged."""
        return frozenset(entry.board for entry in self.acknowledged if entry.round == round_id)

    async def until_heard(self, round_id: int, board: str) -> None:
        """Return once that board's update of that round has been acknowledged."""
        while board not in self.boards_of(round_id):
            self.changed.clear()
            await self.changed.wait()


def _has_taken_in(request: Request, answer: Answer) -> bool:
    """Whether an answer says that the whole upload is on the server's disk."""
    if request.method == "HEAD":
        return answer.header("upload-complete") == "1"
    return request.method == "PATCH" and answer.status == 202


def _receipt(answer: Answer) -> Receipt | None:
    try:
        return decode(answer.body, Receipt)
    except WireError:
        return None
