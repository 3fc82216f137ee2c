"""The farewell of a board that ends before its run does: the server is told why, so that its page can show it.

What is sent is a sentence made here and the exit status. Errors' own words are sent for two kinds alone, about the
base model (its folder, files and digests) and about memory, time and traffic (numbers): neither can hold a text that
the board trains on, or say where its texts lie. Of all others the server learns the kind; the board's own log has the
rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from braid_common.units import printable
from edge_client.agent.renewal import Renewal
from edge_client.errors import ClientError, ExitCode
from edge_client.network.api import Api
from edge_client.network.retry import retry
from edge_client.network.transport import Transport
from edge_client.state.folder import StateFolder
from edge_client.worker.process import WorkerLost
from wire.limits import MAX_TEXT_CHARS
from wire.messages import Report

FAREWELL_S = 5.0
"""How long a board that ends waits for its server: a person may be waiting for the board."""

ATTEMPTS = 3
"""Tries of a farewell: a lost packet is no reason to leave a page without the reason."""

STOPPED = "it was asked to stop; it goes on when it is started again"

_OWN_WORDS = frozenset((ExitCode.BASE, ExitCode.MEMORY))

_SENTENCES: Mapping[ExitCode, str] = MappingProxyType(
    {
        ExitCode.CONFIG: "a setting, an installed package or what the training came to cannot be used",
        ExitCode.DATA: "its text cannot be used",
        ExitCode.REFUSED: "the server refused something that it needs, or the run is not for this version",
        ExitCode.DISK: "its state folder cannot be read or written",
        ExitCode.TORCH: "torch does not run on its processor, or cannot be loaded",
    }
)

_ITS_LOG = "; the last lines of its own log say more"


def farewell(error: BaseException) -> Report | None:
    """The report of a client that ends with `error`; None where the server knows, or is no server of this board."""
    if isinstance(error, asyncio.CancelledError):
        return _report(ExitCode.OK, STOPPED)
    if isinstance(error, WorkerLost) and error.exit_code is ExitCode.INTERNAL:
        return _report(ExitCode.INTERNAL, "its training process ended again and again" + _ITS_LOG)
    if not isinstance(error, ClientError):
        return _report(ExitCode.INTERNAL, f"a bug of the client ({type(error).__name__})" + _ITS_LOG)
    status = ExitCode(error.exit_code)
    if status in _OWN_WORDS:
        return _report(status, error.message)
    if status is ExitCode.INTERNAL:
        return _report(status, "a bug of the client" + _ITS_LOG)
    return _report(status, _SENTENCES[status] + _ITS_LOG) if status in _SENTENCES else None


async def say_farewell(api: Api, error: BaseException) -> None:
    """Tell the server why this client ends, if it is enrolled. Takes FAREWELL_S at most and raises nothing: the error
    itself is what the board ends with."""
    report = farewell(error)
    if report is None or not api.transport.credential:
        return
    with contextlib.suppress(ClientError, asyncio.TimeoutError, TimeoutError):
        sending = retry(lambda: api.report(report, patient=False), api.new_backoff(attempts=ATTEMPTS))
        await asyncio.wait_for(sending, FAREWELL_S)


async def say_farewell_from(state: Path, error: ClientError) -> None:
    """The same of a board that ended before it talked to its server: as whom its state folder says, if anybody.

    Says nothing where another client runs on that folder: the board has not ended.
    """
    folder = StateFolder(state)
    if folder.is_locked():
        return
    with contextlib.suppress(ClientError):
        identity = folder.read_identity()
        if identity is None or not identity.credential:
            return
        async with Transport(
            identity.server, credential=identity.credential, fingerprint=identity.fingerprint
        ) as transport:
            api = Api(transport)
            transport.keeper = Renewal(api, folder)
            await say_farewell(api, error)


def _report(status: ExitCode, text: str) -> Report:
    return Report(kind="ended", text=printable(text)[:MAX_TEXT_CHARS], values={"exit_status": float(status)})
