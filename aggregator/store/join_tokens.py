"""Join tokens by their rules: how many boards one lets in, until when, and the sentence where it does not. Pure.

Whoever has a token may make devices, so each is for few and for a short time (docs/decisions/0060-who-is-let-in.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from braid_common.units import show_seconds

DEFAULT_USES = 1
"""Boards that a token lets in unless somebody says otherwise: a token that leaks has mostly been used by then."""

DEFAULT_LIFE_S = 24 * 3600.0
"""How long a token lasts unless somebody says otherwise: a day is enough to walk to the boards."""

HINT = "Ask whoever runs the server for a new one: `aggregator token create DIR`."

TokenState = Literal["valid", "used up", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class Token:
    """A join token, of which the store has only a hash.

    Attributes:
        uses: devices that it may make.
        created_at, expires_at: seconds since 1970, by the server's clock.
        devices: the ids of those it has made, those among them that were removed since.
    """

    id: int
    hash: str
    label: str
    uses: int
    created_at: float
    expires_at: float
    revoked: bool
    devices: tuple[str, ...] = ()

    @property
    def uses_left(self) -> int:
        return max(0, self.uses - len(self.devices))


class TokenRefusedError(Exception):
    """A join token that lets nobody in, with the sentence that says why and the one that says what to do."""

    def __init__(self, message: str, hint: str = HINT) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def token_state(token: Token, now: float) -> TokenState:
    """Whether a token lets another board in. `now`: seconds since 1970."""
    if token.revoked:
        return "revoked"
    if now >= token.expires_at:
        return "expired"
    return "valid" if token.uses_left else "used up"


def require_valid(tokens: Sequence[Token], device: str, now: float) -> Token:
    """The token that a board may enrol by.

    Args:
        tokens: those that have the hash of what the board sent: one or none.
        device: the id of the board, "" where it is none yet. A token serves those that it has made again, while it
            lasts: their first answer may have been lost.
        now: seconds since 1970.

    Raises:
        TokenRefusedError: it is not known, or lets nobody in any more.
    """
    if not tokens:
        raise TokenRefusedError("this join token is not valid")
    token = tokens[0]
    match token_state(token, now):
        case "revoked":
            raise TokenRefusedError("this join token was revoked")
        case "expired":
            ago = show_seconds(max(0, round(now - token.expires_at)))
            more = "; with `--expires 7d` it lasts longer."
            raise TokenRefusedError(f"this join token expired {ago} ago", HINT.removesuffix(".") + more)
        case "used up" if device not in token.devices:
            boards = "1 board" if token.uses == 1 else f"{token.uses} boards"
            more = "; with `--uses N` it lets in N boards."
            raise TokenRefusedError(f"this join token was for {boards} and is used up", HINT.removesuffix(".") + more)
    return token
