"""Reasons why the hub does not give a base. Each program turns them into an error of its own, with its exit status."""

from __future__ import annotations


class HubError(Exception):
    """A base that the hub does not give, or that is none.

    Args:
        message: what is wrong, in one line.
        hint: what to do next.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class HubUnreachableError(HubError):
    """No answer from the hub: offline mode, no network, or a hub that is out of order. What is cached may serve.

    Args:
        message, hint: as of every HubError.
        reason: why there was no answer, in few words.
    """

    def __init__(self, message: str, hint: str, reason: str) -> None:
        super().__init__(message, hint)
        self.reason = reason


class HubDiskError(HubError):
    """The cache folder is full, or cannot be written."""
