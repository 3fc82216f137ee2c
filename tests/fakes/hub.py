"""A model hub on loopback: the calls that huggingface_hub makes, answered as the real hub answers them.

Small files are served by the hub itself, behind a relative redirect; large ones (Git LFS) by a second server under
another address, behind an absolute redirect with `X-Linked-Etag` and `X-Linked-Size`, as the hub's storage is. Tokens
must not reach that one. `HF_ENDPOINT` points here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".h5", ".msgpack", ".model")
"""Endings of the files that the hub keeps in Git LFS."""

HUB_ADDRESS, STORAGE_ADDRESS = "127.0.0.1", "127.0.0.2"
CHUNK_BYTES = 1 << 16


@dataclass
class Repo:
    """A model: its files as bytes or as paths of large ones, and the branches and tags that name its commit.

    Attributes:
        token: without this token nobody may read it; "" is everybody.
        gated: its owners want agreement first; the token stands for somebody who has agreed.
    """

    files: Mapping[str, bytes | Path]
    names: tuple[str, ...] = ("main",)
    token: str = ""
    gated: bool = False
    _digests: dict[str, str] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """The commit hash; other files have another."""
        lines = [f"{name} {self.etag(name)}\n" for name in sorted(self.files)]
        return hashlib.sha1("".join(lines).encode()).hexdigest()

    def size_bytes(self, name: str) -> int:
        content = self.files[name]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def is_large(self, name: str) -> bool:
        return name.endswith(LARGE)

    def etag(self, name: str) -> str:
        """SHA-256 of a large file's content, git's SHA-1 of a small one."""
        if name not in self._digests:
            digest = hashlib.sha256() if self.is_large(name) else hashlib.sha1(b"blob %d\0" % self.size_bytes(name))
            for chunk in self.chunks(name, 0):
                digest.update(chunk)
            self._digests[name] = digest.hexdigest()
        return self._digests[name]

    def chunks(self, name: str, first: int) -> Iterator[bytes]:
        """The file's bytes from `first` on."""
        content = self.files[name]
        if isinstance(content, bytes):
            for start in range(first, len(content), CHUNK_BYTES):
                yield content[start : start + CHUNK_BYTES]
            return
        with content.open("rb") as file:
            file.seek(first)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


@dataclass(frozen=True)
class Asked:
    """A request that came. `to_storage`: it went to the second server."""

    method: str
    path: str
    range: str
    token: str
    to_storage: bool


@dataclass
class Break:
    """A connection to the storage that ends after so many bytes: closed, or reset."""

    after_bytes: int
    is_reset: bool = False


@dataclass
class FakeHub:
    """The hub's models, what it was asked, and what goes wrong.

    Attributes:
        breaks: one for each of the next downloads from the storage.
        statuses: answers of the API in place of the right one, in turn; 0 lets the right one through.
        body: what the API says whatever it is asked, as the page of a network that wants a login.
        ignores_ranges: the storage always sends the whole file.
        spoils: the storage changes a byte.
        hangs: the storage sends nothing, until the hub is closed.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    body: bytes = b""
    ignores_ranges: bool = False
    spoils: bool = False
    hangs: bool = False
    closed: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    storage_url: str = ""

    def downloads(self, suffix: str = "") -> list[Asked]:
        """The requests for files' bytes whose path ends so."""
        return [
            ask
            for ask in self.asked
            if ask.method == "GET"
            and ask.path.endswith(suffix)
            and (ask.to_storage or ask.path.startswith("/api/resolve-cache/"))
        ]

    def fetched(self) -> set[str]:
        """Names of the files whose bytes were asked for."""
        return {ask.path.rsplit("/", 1)[-1] for ask in self.downloads()}


@contextlib.contextmanager
def loopback_hub(repos: Mapping[str, Repo] | None = None) -> Iterator[FakeHub]:
    """A running hub."""
    hub = FakeHub(dict(repos or {}))
    servers = [_server(hub, address, to_storage) for address, to_storage in
               ((HUB_ADDRESS, False), (STORAGE_ADDRESS, True))]  # fmt: skip
    hub.url, hub.storage_url = (f"http://{server.server_address[0]}:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.closed.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def _server(hub: FakeHub, address: str, to_storage: bool) -> ThreadingHTTPServer:
    class Handler(_Handler):
        pass

    Handler.hub, Handler.to_storage = hub, to_storage
    server = ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub
    to_storage: bool

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # connections end in the middle, here on purpose
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: what was closed cannot be flushed
            super().finish()

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """No lines on standard error."""

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path, token = unquote(address.path), self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.asked.append(Asked(self.command, path, self.headers.get("Range", ""), token, self.to_storage))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.to_storage:
                repo_id, _, name = path.strip("/").rpartition("/")
                self._send_file(self.hub.repos[repo_id], name)
            else:
                self._answer_hub(path, token, parse_qs(address.query))

    def _answer_hub(self, path: str, token: str, query: Mapping[str, list[str]]) -> None:
        if self.hub.body:
            return self._send(200, self.hub.body, {"Content-Type": "text/html"})
        if self.hub.statuses and (status := self.hub.statuses.pop(0)):
            return self._send(status)
        for pattern, answer in (
            (r"/api/models/(?P<repo>.+?)(/revision/(?P<revision>.+))?", self._info),
            (r"/api/resolve-cache/models/(?P<repo>.+)/(?P<revision>[0-9a-f]{40})/(?P<name>.+)", self._small),
            (r"/(?P<repo>.+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)", self._resolve),
        ):
            tree = re.fullmatch(r"/api/models/(?P<repo>.+)/tree/(?P<revision>[^/]+)", path)
            if match := tree or re.fullmatch(pattern, path):
                repo = self._allowed(match["repo"], match["revision"], token)
                if repo is None:
                    return None
                return self._tree(repo) if tree else answer(repo, match, query)
        return self._send(404)

    def _allowed(self, repo_id: str, revision: str | None, token: str) -> Repo | None:
        """The repository; None once a refusal was sent, in the hub's own words."""
        repo = self.hub.repos.get(repo_id)
        if token and token not in {known.token for known in self.hub.repos.values()}:
            message = "Invalid credentials in Authorization header"
            self._send(401, headers={"X-Error-Message": message})
        elif repo is None or (repo.token and not repo.gated and token != repo.token):
            self._send(404 if token else 401, headers={"X-Error-Code": "RepoNotFound"})
        elif repo.gated and token != repo.token:
            self._send(403 if token else 401, headers={"X-Error-Code": "GatedRepo"})
        elif revision not in (None, repo.commit, *repo.names):
            self._send(404, headers={"X-Error-Code": "RevisionNotFound"})
        else:
            return repo
        return None

    def _info(self, repo: Repo, match: re.Match[str], query: Mapping[str, list[str]]) -> None:
        siblings: list[dict[str, Any]] = []
        for name in repo.files:
            row: dict[str, Any] = {"rfilename": name}
            if "blobs" in query:
                row |= {"size": repo.size_bytes(name), "blobId": hashlib.sha1(name.encode()).hexdigest()}
                if repo.is_large(name):
                    row["lfs"] = {"sha256": repo.etag(name), "size": repo.size_bytes(name), "pointerSize": 134}
            siblings.append(row)
        facts = {"_id": "0", "id": match["repo"], "modelId": match["repo"], "sha": repo.commit, "private": False}
        facts |= {"tags": ["transformers"], "downloads": 1, "likes": 1, "gated": "manual" if repo.gated else False}
        self._send(200, json.dumps(facts | {"siblings": siblings}).encode(), {"Content-Type": "application/json"})

    def _tree(self, repo: Repo) -> None:
        rows: list[dict[str, Any]] = []
        for name in repo.files:
            size_bytes = repo.size_bytes(name)
            row: dict[str, Any] = {"type": "file", "oid": "0" * 40, "size": size_bytes, "path": name}
            if repo.is_large(name):
                row["lfs"] = {"oid": repo.etag(name), "size": size_bytes, "pointerSize": 134}
            rows.append(row)
        self._send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo: Repo, match: re.Match[str], _: Mapping[str, list[str]]) -> None:
        name, headers = match["name"], {"X-Repo-Commit": repo.commit}
        if name not in repo.files:
            return self._send(404, headers={**headers, "X-Error-Code": "EntryNotFound"})
        if not repo.is_large(name):
            location = f"/api/resolve-cache/models/{match['repo']}/{repo.commit}/{name}"
            return self._send(307, headers={**headers, "Location": location})
        linked = {"X-Linked-Etag": f'"{repo.etag(name)}"', "X-Linked-Size": str(repo.size_bytes(name))}
        location = f"{self.hub.storage_url}/{match['repo']}/{name}"
        return self._send(302, headers={**headers, **linked, "Location": location})

    def _small(self, repo: Repo, match: re.Match[str], _: Mapping[str, list[str]]) -> None:
        self._send_file(repo, match["name"])

    def _send_file(self, repo: Repo, name: str) -> None:
        size_bytes, wanted, first = repo.size_bytes(name), self.headers.get("Range", ""), 0
        if wanted and not self.hub.ignores_ranges:
            first = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{size_bytes - 1}/{size_bytes}")
        self.send_header("Content-Length", str(size_bytes - first))
        self.send_header("ETag", f'"{repo.etag(name)}"')
        self.send_header("X-Repo-Commit", repo.commit)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.to_storage and self.hub.hangs:
            self.hub.closed.wait()
        broken = self.hub.breaks.pop(0) if self.to_storage and self.hub.breaks else None
        left = size_bytes if broken is None else broken.after_bytes
        for chunk in repo.chunks(name, first):
            sent = bytes([chunk[0] ^ 1]) + chunk[1:] if self.hub.spoils and self.to_storage else chunk
            self.wfile.write(sent[:left])
            left -= len(chunk)
            if broken and left <= 0:
                self._break(broken)
                return

    def _break(self, broken: Break) -> None:
        self.close_connection = True
        if broken.is_reset:  # no orderly end: what is still in the buffers is lost
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
