"""The base of errors that end a command: one line for people that says what is wrong, one that says what to do next."""

from __future__ import annotations

from enum import IntEnum


class CommandError(Exception):
    """An expected error of a command. Each program has a base of its own and an exit code per subclass.

    Args:
        message: what is wrong, in one line.
        hint: what to do next; empty where nothing can be said.
    """

    exit_code: IntEnum

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
