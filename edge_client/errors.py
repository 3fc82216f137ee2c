"""The errors of a board as types: whose fault each is, what to do next, and which exit code it ends with.

Every error a person sees is one line, `message`, and one that says what to do next, `hint`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from braid_common.base.files import BaseFilesError
from braid_common.errors import CommandError
from wire.errors import WireError


class ExitCode(IntEnum):
    """Exit statuses of `edge-client`. Numbers are never reused; deploy/RUNBOOK.md says what to do about each."""

    OK = 0
    INTERNAL = 1  # a bug of ours; the message asks for a report
    USAGE = 2  # click's own
    CONFIG = 3  # a flag, file or setting that cannot be right
    DATA = 4  # no usable example
    BASE = 5  # base model missing, damaged, or not the run's
    MEMORY = 6  # no plan fits the board
    REFUSED = 7  # the server refused: token, protocol version
    UNREACHABLE = 8  # no server answered a first enrolment, or `status --check`
    REVOKED = 9  # the device was revoked; the only end of an enrolled client that is not success
    DISK = 10  # the state folder cannot be written
    LOCKED = 11  # another client uses the same state folder
    TORCH = 12  # torch dies or cannot be loaded on this board's processor


class ClientError(CommandError):
    """Base of all expected errors; not raised itself."""

    exit_code = ExitCode.INTERNAL


class ConfigError(ClientError):
    """A flag, a settings file or an installation that cannot be used."""

    exit_code = ExitCode.CONFIG


class DataError(ClientError):
    """The board's own text cannot be used."""

    exit_code = ExitCode.DATA


class BaseModelError(ClientError):
    """The base model is missing, damaged or not the run's."""

    exit_code = ExitCode.BASE


class NoPlanError(ClientError):
    """No plan fits the board. `needed_bytes`: memory that the board must have for one, 0 where something else is
    short."""

    exit_code = ExitCode.MEMORY

    def __init__(self, message: str, hint: str = "", *, needed_bytes: int = 0) -> None:
        super().__init__(message, hint)
        self.needed_bytes = needed_bytes


class RefusedError(ClientError):
    """The server refuses this client for good: token, protocol version or an unusable run."""

    exit_code = ExitCode.REFUSED


class UnreachableError(ClientError):
    """The server cannot be reached, and waiting was not asked for."""

    exit_code = ExitCode.UNREACHABLE


class RevokedError(ClientError):
    """This board was shut out of the run."""

    exit_code = ExitCode.REVOKED


class DiskError(ClientError):
    """A file of the client cannot be read or written."""

    exit_code = ExitCode.DISK


class TorchError(ClientError):
    """torch cannot be loaded, or dies, on this board."""

    exit_code = ExitCode.TORCH


class LockedError(ClientError):
    """Another client uses the same state folder."""

    exit_code = ExitCode.LOCKED


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's file errors into a DiskError that names `path` and what to do."""
    try:
        yield
    except OSError as error:
        raise DiskError(*_words(error, path)) from error


def _words(error: OSError, path: Path) -> tuple[str, str]:
    """Message and hint for an operating system's error about `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no space left for {path}", "free some space or choose another --state folder"
    reason = error.strerror or str(error)
    if error.errno == errno.EROFS:
        return (
            f"{path} cannot be used: its file system is read-only",
            "see `dmesg`: a card or disk that fails is made read-only. Mount it for writing, or replace it",
        )
    if error.errno == errno.EIO:
        return f"{path} cannot be used: its disk fails ({reason})", "see `dmesg`; replace the card or disk"
    return f"{path} cannot be used: {reason}", "check its owner and rights, or choose --state"


@contextmanager
def base_errors(hint: str = "fetch the base model again, or check its folder") -> Iterator[None]:
    """Raise what speaks against a base as BaseModelError: files that cannot be used, or weights beyond the protocol."""
    try:
        yield
    except (BaseFilesError, WireError) as error:
        raise BaseModelError(str(error), hint) from error
