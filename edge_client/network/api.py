"""The calls of the protocol as an enrolled board makes them: each one repeated until the server has answered.

An enrolled board never gives up because the server is away; only enrolment leaves patience to the caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from edge_client.errors import RefusedError
from edge_client.network.errors import Unavailable
from edge_client.network.retry import Backoff, retry
from edge_client.network.transfer import download, upload
from edge_client.network.transport import READ_TIMEOUT_S, Transport
from wire import routes
from wire.checks import check_run
from wire.codec import encode
from wire.errors import WireError
from wire.limits import MAX_LONG_POLL_S, MAX_MESSAGE_BYTES
from wire.messages import (
    BaseFile,
    BaseFiles,
    Enrol,
    Enrolled,
    History,
    Proof,
    Prove,
    Receipt,
    Renew,
    Report,
    Task,
)
from wire.routes import AdapterQuery, Held, WorkQuery
from wire.run import RunInfo

T = TypeVar("T")

PART_HEADER_BYTES = 1024
"""More than a weight's name, shapes and keys take in an adapter."""


class Api:
    """The calls of one board.

    Args:
        transport: where they go.
        new_backoff: makes the pauses of one call; takes the keyword arguments of Backoff.
        on_failure: hears of every try that failed and will be repeated.
        on_success: hears of every call that was answered.

    Attributes:
        check_run: awaited with every answer of `run`; raises where it cannot be the run that this board takes part in.
    """

    def __init__(
        self,
        transport: Transport,
        new_backoff: Callable[..., Backoff] = Backoff,
        *,
        on_failure: Callable[[Unavailable], None] = lambda error: None,
        on_success: Callable[[], None] = lambda: None,
    ) -> None:
        self.transport, self.new_backoff = transport, new_backoff
        self._on_failure, self._on_success = on_failure, on_success
        self.check_run: Callable[[RunInfo], Awaitable[None]] = _take

    async def enrol(self, message: Enrol) -> Enrolled:
        """One try. Raises Unavailable, or RefusedError where the token or the version is refused."""
        enrolled = await self.transport.call("POST", routes.ENROL.path, Enrolled, body=encode(message))
        _require_sound(enrolled.run)
        return enrolled

    async def prove(self, message: Prove) -> Proof:
        """One try. What an address answers that was asked whether it is this board's server."""
        return await self.transport.call("POST", routes.PROOF.path, Proof, body=encode(message))

    async def renew(self, credential_hash: str) -> None:
        """Tell the server the hash of this board's next credential. Raises ConflictError where none is due."""
        body = encode(Renew(credential=credential_hash))

        async def put() -> None:
            async with self.transport.open(routes.RENEW.method, routes.RENEW.path, body=body):
                pass

        await self._patiently(put)

    async def leave(self) -> None:
        """One try. Tell the server that this board goes."""
        async with self.transport.open("DELETE", routes.LEAVE.path):
            pass

    async def run(self) -> RunInfo:
        """The run as it stands. Raises RefusedError where it cannot be used."""
        run = await self._patiently(lambda: self.transport.call("GET", routes.RUN.path, RunInfo))
        _require_sound(run)
        await self.check_run(run)
        return run

    async def history(self, after: int) -> History:
        """The versions after that one, as the server says; the first of them, where there are many."""
        params = {"after": str(after)}
        return await self._patiently(lambda: self.transport.call("GET", routes.HISTORY.path, History, params=params))

    async def work(self, *, after: int, epoch: str = "", wait_s: float = MAX_LONG_POLL_S) -> Task:
        """The task to do now; without one the server answers after `wait_s`. `after`: the last round answered, `epoch`
        that of its task."""
        params = WorkQuery(wait_s, after, epoch).encode()
        timeout_s = wait_s + READ_TIMEOUT_S
        return await self._patiently(
            lambda: self.transport.call("GET", routes.WORK.path, Task, params=params, read_timeout_s=timeout_s)
        )

    async def adapter(
        self, run: RunInfo, version: int, ranks: Sequence[int], target: Path, held: Held | None = None
    ) -> None:
        """Fetch the adapter of `version`, cut to `ranks` (manifest order), into `target`; or the patch that leads to it
        from what is `held`, where the server has one that is smaller (`wire.adapter_patch` tells which it is)."""
        await download(
            self.transport,
            routes.ADAPTER.at(version),
            target,
            backoff=self.new_backoff(),
            params=AdapterQuery(tuple(ranks), held).encode(),
            max_bytes=largest_adapter_bytes(run, ranks),
            on_failure=self._on_failure,
        )
        self._on_success()

    async def upload(self, round_id: int, source: Path) -> Receipt:
        """Send the update that the worker wrote, or for round 0 the profile, and wait for the judgement on it. Raises
        GoneError, ConflictError or RequestError: drop it."""
        path = routes.UPLOAD.at(round_id)
        receipt = await upload(self.transport, path, source, backoff=self.new_backoff(), on_failure=self._on_failure)
        self._on_success()
        return receipt

    async def report(self, report: Report, *, patient: bool = True) -> None:
        """Numbers for people. `patient` False tries once: the next progress report replaces a lost one."""
        body = encode(report)

        async def post() -> None:
            async with self.transport.open("POST", routes.REPORT.path, body=body):
                pass

        await (self._patiently(post) if patient else post())

    async def base_files(self) -> BaseFiles:
        """The files of the base model that the server can give."""
        return await self._patiently(lambda: self.transport.call("GET", routes.BASE.path, BaseFiles))

    async def base_file(self, file: BaseFile, target: Path) -> None:
        """Fetch one file of the base model, for boards that reach no hub; no more bytes than were announced."""
        await download(
            self.transport,
            routes.BASE_FILE.at(file.name),
            target,
            backoff=self.new_backoff(),
            max_bytes=file.size_bytes,
            on_failure=self._on_failure,
        )
        self._on_success()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        result = await retry(call, self.new_backoff(), on_failure=self._on_failure)
        self._on_success()
        return result


def largest_adapter_bytes(run: RunInfo, ranks: Sequence[int]) -> int:
    """More than any adapter of this run cut to `ranks` can have: the plan has no memory for a larger one."""
    values = sum(
        run.server_rank * (weight.rows + weight.columns) + rank * weight.columns
        for weight, rank in zip(run.weights, ranks, strict=True)
    )
    return min(4 * values + PART_HEADER_BYTES * (1 + len(run.weights)), MAX_MESSAGE_BYTES)


async def _take(run: RunInfo) -> None:
    """Check nothing."""


def _require_sound(run: RunInfo) -> None:
    try:
        check_run(run)
    except WireError as error:
        raise RefusedError(
            f"the server's run cannot be used: {error}", "update the older of client and server"
        ) from error
