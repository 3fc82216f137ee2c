"""Copies of a board's identity: a card or a state folder that was copied, or stolen. Both clients are told, and people.

Nothing here shuts a board out: which of the two is the true one is for people to say, who may revoke both.
"""

from __future__ import annotations

import logging

from aggregator.errors import CallError
from aggregator.run.fleet import Board
from aggregator.run.identity.sessions import Copies, Sessions
from aggregator.run.memory import RunMemory

RETRY_AFTER_S = 60
"""When the client that is not served may ask again: soon enough to go on once the other one has stopped."""

RENEWED_JUST_NOW_S = 60.0
"""A call under the credential of before may be on its way still when the next one is first used."""

HINT = (
    "Two boards must never share a state folder: stop one of them, remove its folder (--state), and join with a token. "
    "If a card was stolen, whoever runs the server revokes the device: `aggregator device revoke DIR DEVICE`."
)


def require_served(run: RunMemory, board: Board, session: str, address: str) -> None:
    """Note a call of a board's client, and raise CallError "copied" where a newer client of the same identity is at
    work."""
    now = run.clock()
    _take(run, board, board.sessions.heard(session, address, now))
    if not board.sessions.serves(session):
        raise CallError(
            "copied",
            f"another client is at work as {board.device}, with a copy of this board's identity",
            HINT,
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )


def former_credential(run: RunMemory, board: Board, address: str) -> CallError:
    """The answer to a credential that was renewed: whoever sends it has a state folder of before, if not a copy."""
    now = run.clock()
    if now - board.renewed_s >= RENEWED_JUST_NOW_S:
        _take(run, board, board.sessions.with_copy(address, now))
    return CallError("unauthorised", f"this credential of {board.device} was renewed, and its new one is in use", HINT)


def notice_of(board: Board, now: float) -> str:
    """The sentence for the client that is served, while it has a copy; "" for none. The same as long as the addresses
    are. `now`: monotonic seconds."""
    copies = board.sessions.recent_copies(now)
    if copies is None:
        return ""
    where = f"from {copies.other}" if copies.other != copies.served else "from the same address"
    return f"another client uses a copy of this board's identity, {where}. {HINT}"


def copies_text(copies: Copies) -> str:
    """A copy in words for the page."""
    return f"two clients use its identity, from {copies.served} and {copies.other}: was its card copied?"


def _take(run: RunMemory, board: Board, after: Sessions) -> None:
    """Remember a board's sessions, and tell people of a copy that they do not know of."""
    before, board.sessions = board.sessions.copies, after
    copies = after.copies
    if copies is not None and (before is None or before.told_s != copies.told_s):
        run.note(f"{run.boards.label(board)}: {copies_text(copies)}", level=logging.WARNING)
