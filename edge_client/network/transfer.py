"""Transfers of files over a line that breaks: downloads that resume by Range, uploads that resume by offset.

A download is kept under a name that holds the digest of the whole (its ETag), so that a later process knows what the
part is a part of; the final name appears only once the digest has been checked.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from aiohttp import hdrs

from braid_common.atomic_file import open_private, sync_folder
from braid_common.base.files import file_digest
from edge_client.errors import disk_errors
from edge_client.network.answers import parse_count
from edge_client.network.errors import ConflictError, RequestError, Unavailable
from edge_client.network.retry import Backoff
from edge_client.network.transport import READ_TIMEOUT_S, Traffic, Transport
from wire.limits import MAX_LONG_POLL_S, MAX_MESSAGE_BYTES
from wire.messages import Receipt
from wire.routes import UPLOAD_COMPLETE, UPLOAD_DIGEST, UPLOAD_LENGTH, UPLOAD_OFFSET

BLOCK_BYTES = 64 * 1024
"""Bytes read from disk and handed to the socket at once."""

SOONEST_S = 1.0
"""Least time between two questions for a judgement: a server that stops answers each at once."""

_ETAG = re.compile(r'"([0-9a-f]{64})"')


# --- downloads -----------------------------------------------------------------------------------------------------


class _Part:
    """The unfinished download of one file: `NAME.DIGEST.part` beside where NAME will be."""

    def __init__(self, target: Path) -> None:
        self.target = target
        found = sorted(target.parent.glob(f"{target.name}.*.part"))
        self.path: Path | None = found[0] if found else None

    @property
    def digest(self) -> str:
        return self.path.name.split(".")[-2] if self.path else ""

    @property
    def size_bytes(self) -> int:
        """The size of the part, 0 before its first bytes have come."""
        if self.path is None or not self.path.exists():
            return 0
        with disk_errors(self.path):
            return self.path.stat().st_size

    def restart(self, digest: str) -> None:
        """Forget what was there; `digest` is what the server has now."""
        self.drop()
        self.path = self.target.with_name(f"{self.target.name}.{digest}.part")

    def drop(self) -> None:
        if self.path:
            with disk_errors(self.path):
                self.path.unlink(missing_ok=True)
        self.path = None

    def append(self, chunk: bytes) -> None:
        assert self.path is not None
        with disk_errors(self.path), open(self.path, "ab", opener=open_private) as file:
            file.write(chunk)

    def finish(self) -> bool:
        """Move into place if the digest is right; else throw the damaged bytes away and return False."""
        if self.path is None or not self.path.is_file():
            return False
        with disk_errors(self.path):
            is_whole = file_digest(self.path) == self.digest
        if not is_whole:
            self.drop()
            return False
        with disk_errors(self.path):
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            self.path.replace(self.target)
            sync_folder(self.target.parent)
        return True


async def download(
    transport: Transport,
    path: str,
    target: Path,
    *,
    backoff: Backoff,
    params: Mapping[str, str] | None = None,
    max_bytes: int = MAX_MESSAGE_BYTES,
    on_failure: Callable[[Unavailable], None] = lambda _: None,
) -> None:
    """Fetch `path` into the file `target`, resuming what an earlier try or process has left.

    Raises Unavailable where `backoff` is spent, DiskError, and what `Transport.open` raises.
    """
    part = _Part(target)
    while True:
        before_bytes = part.size_bytes
        try:
            await _download_rest(transport, path, part, params, max_bytes)
            if part.finish():
                return
            raise Unavailable(f"{path} arrived damaged (its digest is not the one promised)", "it is fetched again")
        except Unavailable as error:
            if part.size_bytes > before_bytes:
                backoff.progressed()
            on_failure(error)
            await backoff.pause(error)


async def _download_rest(
    transport: Transport, path: str, part: _Part, params: Mapping[str, str] | None, max_bytes: int
) -> None:
    have_bytes = part.size_bytes
    headers: dict[str, str] = {}
    if have_bytes:
        headers = {hdrs.RANGE: f"bytes={have_bytes}-", hdrs.IF_RANGE: f'"{part.digest}"'}
    try:
        async with transport.open("GET", path, headers=headers, params=params) as response:
            etag = _ETAG.fullmatch(response.headers.get(hdrs.ETAG, ""))
            if etag is None:
                raise Unavailable(f"{path} came without a SHA-256 ETag", "is there a proxy that changes answers?")
            if response.status != 206 or etag[1] != part.digest:
                if response.status == 206:
                    raise Unavailable(f"{path} changed while it was fetched")
                part.restart(etag[1])
                have_bytes = 0
            async for chunk in response.content.iter_any():
                have_bytes += len(chunk)
                if have_bytes > max_bytes:
                    part.drop()
                    raise RequestError(f"{path} has more than the {max_bytes} bytes that are allowed")
                transport.traffic.down_bytes += len(chunk)
                part.append(chunk)
    except RequestError as error:
        if not have_bytes or error.status != 416:
            raise
        # Every byte was here already, or too many: the digest decides.


# --- uploads -------------------------------------------------------------------------------------------------------


async def upload(
    transport: Transport,
    path: str,
    source: Path,
    *,
    backoff: Backoff,
    on_failure: Callable[[Unavailable], None] = lambda _: None,
) -> Receipt:
    """Send the file `source` whole; after a break, from where the server is; then wait for what it says of it. Safe to
    repeat after any failure.

    Raises GoneError where the round has closed, ConflictError where the server holds another update of this board for
    it, RequestError where it takes the upload for none, Unavailable where `backoff` is spent.
    """
    with disk_errors(source):
        digest = file_digest(source)
    sender = _Sender(transport, path, source, digest)
    while True:
        before_bytes = sender.reached_bytes
        try:
            return await sender.until_judged()
        except ConflictError as error:
            if error.offset is None:
                raise
            failure = Unavailable(error.message)
        except Unavailable as error:
            failure = error
        if sender.reached_bytes > before_bytes:
            backoff.progressed()
        on_failure(failure)
        await backoff.pause(failure)


class _Sender:
    """One upload, as far as it has come. `reached_bytes`: what the server is known to have."""

    def __init__(self, transport: Transport, path: str, source: Path, digest: str) -> None:
        self._transport, self._path, self._source = transport, path, source
        self._headers = {UPLOAD_DIGEST: digest}
        self.reached_bytes = 0
        self._is_sure = True  # whether the server has just that; without a break it need not be asked
        self._is_whole = False

    async def until_judged(self) -> Receipt:
        """Send what is missing, and wait for the judgement. Raises ConflictError with an offset, or Unavailable, after
        which it may be called again."""
        if not self._is_sure:
            await self._ask()
        self._is_sure = False
        if not self._is_whole and (receipt := await self._send()):
            return receipt
        while True:
            try:
                if receipt := await self._receipt():
                    return receipt
                await asyncio.sleep(SOONEST_S)
            except RequestError as error:
                if error.status != 404:
                    raise
                raise Unavailable("the server has lost the upload", "it is sent again") from error

    async def _ask(self) -> None:
        """Ask how much the server has."""
        async with self._transport.open("HEAD", self._path, headers=self._headers) as response:
            self.reached_bytes = parse_count(response.headers.get(UPLOAD_OFFSET, "")) or 0
            self._is_whole = response.headers.get(UPLOAD_COMPLETE) == "1"

    async def _send(self) -> Receipt | None:
        """One PATCH with everything that is missing; the receipt, where the server repeats it at once."""
        size_bytes = self._source.stat().st_size
        if self.reached_bytes > size_bytes:
            raise Unavailable(f"the server claims {self.reached_bytes} bytes of an upload of {size_bytes}")
        headers: dict[str, str] = {
            **self._headers,
            UPLOAD_LENGTH: str(size_bytes),
            UPLOAD_OFFSET: str(self.reached_bytes),
            hdrs.CONTENT_LENGTH: str(size_bytes - self.reached_bytes),
        }
        body = file_blocks(self._transport.traffic, self._source, self.reached_bytes)
        return await self._transport.call_unless_202("PATCH", self._path, Receipt, body=body, headers=headers)

    async def _receipt(self) -> Receipt | None:
        """The judgement, None where there is none yet: uploads of many boards are judged one after the other."""
        return await self._transport.call_unless_202(
            "GET",
            self._path,
            Receipt,
            headers=self._headers,
            params={"wait": f"{MAX_LONG_POLL_S:g}"},
            read_timeout_s=MAX_LONG_POLL_S + READ_TIMEOUT_S,
        )


async def file_blocks(traffic: Traffic, source: Path, offset_bytes: int = 0) -> AsyncIterator[bytes]:
    """The file's bytes from an offset on, as a request's body; counted once the socket has taken them."""
    with disk_errors(source), source.open("rb") as file:
        file.seek(offset_bytes)
        while block := file.read(BLOCK_BYTES):
            yield block
            traffic.up_bytes += len(block)
