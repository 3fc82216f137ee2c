"""What the server has promised: each upload that it acknowledged, as the line between heard it, heard by the board or
not."""

from __future__ import annotations

import asyncio
import hashlib
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
        repeats: acknowledgements of what was acknowledged before.
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
        round_id = request.uploads_to
        if answer.status == 200 and (round_id is not None or request.path.startswith("/v1/uploads/")):
            receipt = _receipt(answer)
            if receipt is not None and not receipt.accepted:
                self.refused[receipt.reason] += 1
                return
        if round_id is None or answer.status not in (200, 202):
            return
        digest = request.header("upload-digest") or hashlib.sha256(request.body).hexdigest()
        entry = Acknowledged(board, round_id, digest)
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


def _receipt(answer: Answer) -> Receipt | None:
    try:
        return decode(answer.body, Receipt)
    except WireError:
        return None
