"""Transfers of files over a line that breaks: downloads that resume by Range, uploads that resume by offset.

A download is kept under a name that holds the digest of the whole (its ETag), so that a later process knows what the
part is a part of; the final name appears only once the digest has been checked.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from aiohttp import hdrs

from braid_common.atomic_file import open_private, sync_folder
from braid_common.base_files import file_digest
from edge_client.errors import disk_errors
from edge_client.network.answers import parse_count
from edge_client.network.errors import ConflictError, RequestError, Unavailable
from edge_client.network.retry import Backoff
from edge_client.network.transport import Traffic, Transport
from wire.limits import MAX_MESSAGE_BYTES
from wire.messages import Receipt
from wire.routes import UPLOAD_DIGEST, UPLOAD_LENGTH, UPLOAD_OFFSET

BLOCK_BYTES = 64 * 1024
"""Bytes read from disk and handed to the socket at once."""

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
        return self.path.stat().st_size if self.path else 0

    def restart(self, digest: str) -> None:
        """Forget what was there; `digest` is what the server has now."""
        self.drop()
        self.path = self.target.with_name(f"{self.target.name}.{digest}.part")

    def drop(self) -> None:
        if self.path:
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
    """Send the file `source` whole; after a break, from where the server is. Safe to repeat after any failure.

    Raises GoneError where the round has closed, ConflictError where the server holds another update of this board for
    it, Unavailable where `backoff` is spent.
    """
    with disk_errors(source):
        digest = file_digest(source)
    offset_bytes, broken = 0, False
    while True:
        try:
            if broken:  # in the normal case one request is enough, without asking where the server is
                reached_bytes = await _reached(transport, path, digest)
                if reached_bytes > offset_bytes:
                    backoff.progressed()
                offset_bytes = reached_bytes
            broken = True
            return await _send(transport, path, source, digest, offset_bytes)
        except ConflictError as error:
            if error.offset is None:
                raise
            failure = Unavailable(error.message)
        except Unavailable as error:
            failure = error
        on_failure(failure)
        await backoff.pause(failure)


async def _reached(transport: Transport, path: str, digest: str) -> int:
    """How many bytes of the upload the server has."""
    async with transport.open("HEAD", path, headers={UPLOAD_DIGEST: digest}) as response:
        return parse_count(response.headers.get(UPLOAD_OFFSET, "")) or 0


async def _send(transport: Transport, path: str, source: Path, digest: str, offset_bytes: int) -> Receipt:
    """One PATCH with everything from `offset_bytes` on; nothing, where the server only has to repeat its receipt."""
    size_bytes = source.stat().st_size  # noqa: ASYNC240 - a local file that was just read
    if offset_bytes > size_bytes:
        raise Unavailable(f"the server claims {offset_bytes} bytes of an upload of {size_bytes}")
    headers: dict[str, str] = {
        UPLOAD_DIGEST: digest,
        UPLOAD_LENGTH: str(size_bytes),
        UPLOAD_OFFSET: str(offset_bytes),
        hdrs.CONTENT_LENGTH: str(size_bytes - offset_bytes),
    }
    body = file_blocks(transport.traffic, source, offset_bytes)
    return await transport.call("PATCH", path, Receipt, body=body, headers=headers)


async def file_blocks(traffic: Traffic, source: Path, offset_bytes: int = 0) -> AsyncIterator[bytes]:
    """The file's bytes from an offset on, as a request's body; counted once the socket has taken them."""
    with disk_errors(source), source.open("rb") as file:
        file.seek(offset_bytes)
        while block := file.read(BLOCK_BYTES):
            yield block
            traffic.up_bytes += len(block)
