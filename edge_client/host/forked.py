"""Run a memory-hungry check in a child process, so that what it needed is gone when the client begins to wait.

Reading a board's data or a base's headers can take more memory than the whole idle client. A forked child takes it
along when it ends, which freeing never does completely.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import TypeVar

import msgspec

from braid_common.units import printable
from edge_client.errors import ClientError, ExitCode
from edge_client.host.deaths import explain_death

T = TypeVar("T")


class _Outcome(msgspec.Struct, frozen=True):
    """Message of the child: the encoded result, or an error's parts."""

    result: bytes = b""
    exit_code: int = 0
    message: str = ""
    hint: str = ""


class ForkedError(ClientError):
    """A ClientError that happened in the child, with its exit code."""

    def __init__(self, exit_code: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.exit_code = ExitCode(exit_code)


WHILE_READING = (
    "reading the data took more memory than this board has",
    "split the data into smaller files and give one of them",
)
"""Message and hint for a child that the kernel killed while it read a board's data."""


def run_forked(
    call: Callable[[], T],
    kind: type[T],
    *,
    who: str = "the check that reads the data",
    if_killed: tuple[str, str] = WHILE_READING,
    uses_torch: bool = False,
) -> T:
    """`call()` in a forked child; its result must be a `kind` that msgspec can encode.

    Call it while this process has one thread and no event loop. Raises ForkedError for the call's ClientError, with the
    message and hint `if_killed` where the kernel ended the child because memory ran out, and with words about the
    likely cause for any other signal: `who` is the child in a sentence, `uses_torch` whether torch is loaded in it.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _child(call, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if not data:
        raise _died(os.waitstatus_to_exitcode(status), who, if_killed, uses_torch)
    outcome = msgspec.msgpack.decode(data, type=_Outcome)
    if outcome.exit_code:
        raise ForkedError(outcome.exit_code, outcome.message, outcome.hint)
    return msgspec.msgpack.decode(outcome.result, type=kind)


def _child(call: Callable[[], T], write_end: int) -> None:
    """Never returns: no handler, buffer or exit hook of the parent may run twice."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    status = 1
    try:
        try:
            outcome = _Outcome(msgspec.msgpack.encode(call()))
        except ClientError as error:
            outcome = _Outcome(
                exit_code=int(error.exit_code), message=printable(error.message), hint=printable(error.hint)
            )
            _show_traceback()
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(msgspec.msgpack.encode(outcome))
        status = 0
    except BaseException:
        _show_traceback()  # all that the parent learns is that there was an error
        raise
    finally:
        os._exit(status)


def _show_traceback() -> None:
    if os.environ.get("BRAID_DEBUG"):
        traceback.print_exc()


def _died(status: int, who: str, if_killed: tuple[str, str], uses_torch: bool) -> ForkedError:
    if status == -signal.SIGKILL:
        return ForkedError(ExitCode.MEMORY, *if_killed)
    death = explain_death(who, status, uses_torch=uses_torch)
    return ForkedError(death.exit_code, death.message, death.hint)
