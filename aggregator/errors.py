"""The server's errors: exit codes for its commands, statuses and codes for its answers.

Every error a person sees is one line, `message`, and one that says what to do next, `hint`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum

from braid_common.errors import CommandError
from wire.messages import RefusalCode


class ExitCode(IntEnum):
    """Exit statuses of `aggregator`. Numbers are never reused; deploy/RUNBOOK.md says what to do about each."""

    OK = 0
    INTERNAL = 1  # a bug of ours; the message asks for a report
    USAGE = 2  # click's own
    CONFIG = 3  # run.toml or a flag that cannot be right
    BASE = 4  # base model missing, or not a FLAN-T5's
    STATE = 5  # the server's folder is missing, damaged, or belongs to another run or a newer version
    LOCKED = 6  # another server uses the same folder
    ADDRESS = 7  # host or port cannot be listened on
    TLS = 8  # certificate or key cannot be used
    UNREACHABLE = 9  # no server answered `status` or `rounds`
    REFUSED = 10  # the server refused the operator's token
    DISK = 11  # the folder cannot be written, or the disk not read
    EXPORT = 12  # there is nothing to export or to report, or the target cannot be used


class ServerError(CommandError):
    """Base of the errors that end a command of the server; not raised itself."""

    exit_code = ExitCode.INTERNAL


class ConfigError(ServerError):
    """run.toml or a flag cannot be right."""

    exit_code = ExitCode.CONFIG


class BaseModelError(ServerError):
    """The base model is missing, or not a FLAN-T5's."""

    exit_code = ExitCode.BASE


class StateError(ServerError):
    """The server's folder is missing, damaged, or belongs to another run or a newer version."""

    exit_code = ExitCode.STATE


class LockedError(ServerError):
    """Another server uses the same folder."""

    exit_code = ExitCode.LOCKED


class AddressError(ServerError):
    """The host or port cannot be listened on."""

    exit_code = ExitCode.ADDRESS


class TlsError(ServerError):
    """The certificate or key cannot be used."""

    exit_code = ExitCode.TLS


class UnreachableError(ServerError):
    """No server answered a command."""

    exit_code = ExitCode.UNREACHABLE


class OperatorRefusedError(ServerError):
    """The server refused the operator's token."""

    exit_code = ExitCode.REFUSED


class DiskError(ServerError):
    """The folder cannot be written, or the disk cannot be read."""

    exit_code = ExitCode.DISK


class NothingToExportError(ServerError):
    """There is nothing to export or to report, or the target cannot be used."""

    exit_code = ExitCode.EXPORT


STATUS: Mapping[RefusalCode, int] = {
    "bad_request": 400,
    "unauthorised": 401,
    "revoked": 403,
    "not_found": 404,
    "conflict": 409,
    "copied": 409,
    "gone": 410,
    "too_large": 413,
    "protocol_version": 426,
    "internal": 500,
    "busy": 503,
    "full": 507,
}
"""The one table from an error's code to the HTTP status of its answer."""


class CallError(Exception):
    """A call that is answered with a `Refusal`.

    `headers` go with the answer; `status` differs from the table's only where HTTP has a more exact word (415, 405).
    """

    def __init__(
        self,
        code: RefusalCode,
        message: str,
        hint: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.headers = dict(headers or {})
        self.status = STATUS[code] if status is None else status


@contextmanager
def disk_errors_named() -> Iterator[None]:
    """Whatever a failing disk was taken for, such as a missing base or a wrong setting, raise DiskError instead: a
    service that ends with it is started again, one whose settings are wrong is not."""
    try:
        yield
    except DiskError:
        raise
    except ServerError as error:
        if not is_of_disk(error):
            raise
        raise DiskError(error.message, "The disk reports an error: look at `dmesg`, and think of a backup.") from error


def is_of_disk(error: BaseException) -> bool:
    """Whether an error was raised because the disk could not be read."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.EIO:
            return True
        cause = cause.__cause__
    return False
