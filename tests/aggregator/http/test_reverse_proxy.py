"""nginx and Caddy with the settings of docs/guide/proxy.md: rounds go through them, and their faults are named."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aggregator.remote import Address, fetch_status
from edge_client.network.api import Api
from edge_client.network.errors import ProxyLimitError, Unavailable, UnknownCredentialError, UntrustedError
from edge_client.network.retry import Backoff
from edge_client.network.transport import Transport
from tests.aggregator.test_cli import given_certificate
from wire import routes
from wire.messages import Prove, Task
from wire.proof import is_proof, new_nonce

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "proxy.md"

Change = tuple[str, str]
"""A part of the page's settings, and what stands there in a test."""


def settings(kind: str, *changes: Change) -> str:
    """The page's block of that kind, with each change made once."""
    found = re.search(rf"^```{kind}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    text = found[1]
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Proxy:
    """A proxy that is running; `fingerprint` "" for plain HTTP."""

    kind: str
    port: int
    fingerprint: str = ""

    @property
    def url(self) -> str:
        return f"{'https' if self.fingerprint else 'http'}://127.0.0.1:{self.port}/braid"

    def transport(self, credential: str = "", url: str = "") -> Transport:
        return Transport(url or self.url, credential=credential, fingerprint=self.fingerprint)


@asynccontextmanager
async def nginx(folder: Path, upstream: int, *changes: Change) -> AsyncIterator[Proxy]:
    """nginx with the page's settings, on a port of the loopback address and with a certificate of the test's."""
    certificate, key = given_certificate(folder, "aggregator.example")
    port = free_port()
    server = settings(
        "nginx",
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("    listen [::]:443 ssl;\n", ""),
        ("/etc/ssl/certs/aggregator.example.pem", str(certificate)),
        ("/etc/ssl/private/aggregator.example.key", str(key)),
        ("127.0.0.1:8470", f"127.0.0.1:{upstream}"),
        *changes,
    )
    places = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    head = f"daemon off; {user} pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}\n"
    (folder / "nginx.conf").write_text(f"{head}http {{ access_log off; {places}\n{server}}}\n")
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text().partition("\n")[2])).hexdigest()
    async with _running(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], port):
        yield Proxy("nginx", port, pin)


@asynccontextmanager
async def caddy(folder: Path, upstream: int, *changes: Change) -> AsyncIterator[Proxy]:
    """Caddy with the page's settings, in plain HTTP: there is nobody here from whom it could fetch a certificate."""
    port = free_port()
    changed = (("aggregator.example {", f"http://127.0.0.1:{port} {{"), ("127.0.0.1:8470", f"127.0.0.1:{upstream}"))
    head = "{\n\tadmin off\n\tauto_https off\n}\n"
    (folder / "Caddyfile").write_text(head + settings("caddy", *changed, *changes))
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    async with _running(command, port, HOME=str(folder), XDG_DATA_HOME=str(folder), XDG_CONFIG_HOME=str(folder)):
        yield Proxy("caddy", port)


@asynccontextmanager
async def _running(command: list[str], port: int, **variables: str) -> AsyncIterator[None]:
    """A process that listens on the port by the time the block begins."""
    environment, quiet = {**os.environ, **variables}, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=quiet, stderr=quiet)
    try:
        for _ in range(500):
            assert process.returncode is None, f"{command[0]} does not take the settings of {PAGE.name}"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                break
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


PROXIES = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(params=PROXIES)
def before(request: Any) -> Callable[..., Any]:
    """Starts a proxy; skips where it is not installed."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return PROXIES[request.param]


@pytest.fixture
async def server(make_folder: Any, start: Any) -> Any:
    return await start(make_folder())


def once(transport: Transport) -> Api:
    return Api(transport, lambda **_: Backoff(attempts=1))


async def test_rounds_go_through_a_proxy_under_a_prefix(before: Any, server: Any, tmp_path: Path) -> None:
    """A board's own network code against the real server: proof, profile, long poll, adapter in parts, update by
    offset; and the operator's status. Two boards, to the end of the run."""
    boards = [await server.board(name) for name in ("ada", "bo")]
    async with before(tmp_path, server.client.port) as proxy:
        for board in boards:
            async with proxy.transport() as transport:
                nonce = new_nonce()
                proof = await once(transport).prove(Prove(protocol=1, device=board.device, nonce=nonce))
                assert is_proof(proof.proof, board.credential, board.device, nonce)
                transport.credential = board.credential
                api, body = once(transport), tmp_path / "profile"
                body.write_bytes(board.profile())
                assert (await api.upload(0, body)).accepted
        for _ in range(2):
            tasks = [await _train(proxy, board, tmp_path) for board in boards]
        assert {task.spec.round for task in tasks} == {2}
        async with proxy.transport(boards[0].credential) as transport:
            assert (await once(transport).work(after=2, wait_s=5.0)).kind == "evaluate"
        url = Address(proxy.url, server.operator, proxy.fingerprint)
        facts = await asyncio.to_thread(fetch_status, url)
        assert [row["accepted"] for row in facts["rounds"]] == [2, 2]


async def _train(proxy: Proxy, board: Any, folder: Path) -> Task:
    """One round of a board: its task, the adapter, whose download is broken off once, and its update in two pieces."""
    async with proxy.transport(board.credential) as transport:
        api = once(transport)
        task = await api.work(after=-1, wait_s=5.0)
        assert task.kind == "train"
        run, target = await api.run(), folder / f"adapter-{board.device}-{task.spec.round}"
        ranks = [1] * len(run.weights)
        await api.adapter(run, task.spec.version, ranks, target)
        whole = target.read_bytes()
        digest = hashlib.sha256(whole).hexdigest()
        target.rename(part := target.with_name(f"{target.name}.{digest}.part"))
        os.truncate(part, len(whole) // 2)
        await api.adapter(run, task.spec.version, ranks, target)
        assert target.read_bytes() == whole
        data = board.update(task)
        headers = {
            "Upload-Digest": hashlib.sha256(data).hexdigest(),
            "Upload-Length": str(len(data)),
            "Upload-Offset": "0",
        }
        with pytest.raises(Exception, match="bytes are missing"):
            async with transport.open("PATCH", routes.UPLOAD.at(task.spec.round), body=data[:1000], headers=headers):
                pass
        body = folder / "update"
        body.write_bytes(data)
        sends_rest = Api(transport, lambda **_: Backoff(attempts=3))
        assert (await sends_rest.upload(task.spec.round, body)).accepted
        return task


async def test_a_limit_on_bodies_is_named(before: Any, server: Any, tmp_path: Path) -> None:
    """The proxy answers while the body is still on its way, and its 413 is heard. Caddy 2.6 answers 502. The server
    would take the body: one that is too large for it as well it refuses by itself, and at once."""
    ada = await server.board("ada")
    limit = {
        nginx: ("512m;  ", "10k;  "),
        caddy: ("reverse_proxy", "request_body {\n max_size 10KiB\n }\n reverse_proxy"),
    }[before]
    body = tmp_path / "update"
    body.write_bytes(bytes(80_000))
    assert body.stat().st_size < server.run.terms.largest_upload_bytes
    async with before(tmp_path, server.client.port, limit) as proxy, proxy.transport(ada.credential) as transport:
        with pytest.raises((ProxyLimitError, Unavailable), match=r"\((413|502)") as caught:
            await Api(transport, lambda **_: Backoff(attempts=1)).upload(0, body)
    assert "512m" in caught.value.hint
    if before is nginx:
        assert isinstance(caught.value, ProxyLimitError) and "no body of 78.1 KiB" in caught.value.message


async def test_what_a_proxy_says_in_the_servers_place_is_named(
    before: Any, server: Any, stop: Any, tmp_path: Path
) -> None:
    """A wrong prefix, plain HTTP at its port of TLS, and a server that is away behind it."""
    ada = await server.board("ada")
    async with before(tmp_path, server.client.port) as proxy:
        async with proxy.transport(ada.credential, proxy.url.replace("/braid", "/other")) as transport:
            with pytest.raises(Unavailable, match="not as a Braid aggregator") as caught:
                await once(transport).run()
            assert "path in --server" in caught.value.hint
        async with proxy.transport(ada.credential, f"{proxy.url}/braid") as transport:
            with pytest.raises(Exception, match="there is no such call") as refused:
                await once(transport).run()
            assert "prefix" in refused.value.hint  # type: ignore[attr-defined]
        if proxy.fingerprint:
            async with Transport(proxy.url.replace("https", "http")) as transport:
                with pytest.raises(UntrustedError, match="speaks TLS"):
                    await once(transport).run()
        await stop(server)
        async with proxy.transport(ada.credential) as transport:
            with pytest.raises(Unavailable, match=r"no answer of the aggregator behind it \(502"):
                await once(transport).run()


async def test_a_proxy_that_keeps_the_credential_back_is_named(before: Any, server: Any, tmp_path: Path) -> None:
    """The server hears a board without its header, and says which proxy's fault that is."""
    ada = await server.board("ada")
    drop = {
        nginx: (
            'proxy_set_header Connection "";',
            'proxy_set_header Connection ""; proxy_set_header Authorization "";',
        ),
        caddy: ("flush_interval -1", "header_up -Authorization"),
    }[before]
    async with before(tmp_path, server.client.port, drop) as proxy, proxy.transport(ada.credential) as transport:
        with pytest.raises(UnknownCredentialError, match="without its credential") as caught:
            await once(transport).run()
    assert "Authorization" in caught.value.hint
