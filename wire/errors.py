"""The one error that reading from the wire may raise, and its two special cases."""

from __future__ import annotations


class WireError(Exception):
    """Bytes, or values about to be sent, that the protocol does not allow. The text says what was wrong."""


class ProtocolVersionError(WireError):
    """The peer speaks another version of the protocol. The text says which, and which side to upgrade."""


class IllegalTransition(WireError):
    """An event that may not happen in the present state (wire.rounds). Nothing was changed."""
