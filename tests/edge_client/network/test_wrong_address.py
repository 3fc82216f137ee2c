"""An address that is nearly right: each mistake is named, and what is told to do about it works."""

from __future__ import annotations

import datetime
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_client.agent.settings import normalise_server, read_config
from edge_client.errors import ConfigError
from edge_client.network.errors import ClockError, ProxyLimitError, Unavailable, UntrustedError
from edge_client.network.retry import Backoff
from edge_client.network.transfer import upload
from edge_client.network.transport import Transport
from wire.run import RunInfo

DAY = datetime.timedelta(days=1)


def certificate(folder: Path, name: str, *, starts: int = -1, ends: int = 1) -> tuple[ssl.SSLContext, Path]:
    """A server's context for a host name, and the file of its certificate; days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + starts * DAY)
        .not_valid_after(now + ends * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    public, private = folder / "public.pem", folder / "both.pem"
    public.write_bytes(made.public_bytes(pem))
    plain = serialization.NoEncryption()
    private.write_bytes(public.read_bytes() + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private)
    return context, public


def pin_of(public: Path) -> str:
    """The fingerprint of a certificate's file."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(public.read_text())).hexdigest()


async def ask(url: str, **options: Any) -> RunInfo:
    async with Transport(url, credential="credential-1", **options) as transport:
        return await transport.call("GET", "/v1/run", RunInfo)


async def fault(url: str, kind: type[Unavailable] = Unavailable) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        await ask(url)
    assert type(caught.value) is kind
    return caught.value


@asynccontextmanager
async def listening(
    app: web.Application, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """An application on a port of its own."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
def app(server: Any) -> web.Application:
    """The fake server's application, which knows the credential of these tests."""
    server.devices["x"] = "credential-1"
    made: web.Application = server.app()
    return made


def always(answer: Callable[[], web.Response]) -> web.Application:
    """An application that answers everything alike."""

    async def handle(_: web.Request) -> web.Response:
        return answer()

    made = web.Application()
    made.router.add_route("*", "/{rest:.*}", handle)
    return made


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "days", "message", "hint"),
    [
        ("other.example", (-1, 1), "is for another name than localhost", "the name that the certificate was made for"),
        ("localhost", (-2, -1), "has expired", "check `date`"),
        ("localhost", (1, 2), "clock is wrong", "timedatectl"),
        ("localhost", (-1, 1), "", ""),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_named(
    app: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    days: tuple[int, int],
    message: str,
    hint: str,
) -> None:
    """Its name, its end, its beginning; all have --fingerprint as a way out. The last one is right: its authority is
    trusted by SSL_CERT_FILE, as the hint for an unknown one says."""
    context, public = certificate(tmp_path, name, starts=days[0], ends=days[1])
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    async with listening(app, context) as port:
        url = f"https://localhost:{port}"
        if not message:
            assert (await ask(url)).run_id == "run-1"
            return
        error = await fault(url, ClockError if days[0] > 0 else UntrustedError)
        assert message in error.message and hint in error.hint and "--fingerprint" in error.hint
        assert (await ask(url, fingerprint=pin_of(public))).run_id == "run-1"


async def test_plain_http_at_a_port_of_tls_is_named(app: Any, tmp_path: Path) -> None:
    """The line to write stands in the hint."""
    async with listening(app, certificate(tmp_path, "localhost")[0]) as port:
        error = await fault(f"http://127.0.0.1:{port}", UntrustedError)

    assert error.message.endswith("speaks TLS") and f"write https://127.0.0.1:{port}" in error.hint


async def test_a_400_of_others_is_not_taken_for_tls() -> None:
    """nginx and Go's servers say so in plain text at a port of TLS; here is no TLS, whatever the text says."""
    text = "The plain HTTP request was sent to HTTPS port"
    async with listening(always(lambda: web.Response(status=400, text=text))) as port:
        assert "not as a Braid aggregator (400" in (await fault(f"http://127.0.0.1:{port}")).message


async def test_tls_at_a_plain_port_is_named(server: Any) -> None:
    """Pinned or not."""
    error = await fault(server.url.replace("http", "https"), UntrustedError)

    assert "does not speak TLS" in error.message and "http:// instead of https://" in error.hint


async def test_a_server_that_only_went_away_is_not_taken_for_tls(server: Any) -> None:
    """An answer that breaks off is an outage."""

    async def drop(request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()

    server.faults["GET /v1/run"] = [drop] * 9  # aiohttp asks again by itself
    server.devices["x"] = "credential-1"

    assert "broke" in (await fault(server.url)).message


# --- places that are no aggregator ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (404, "not as a Braid aggregator (404 Not Found)", "prefix"),
        (401, "not as a Braid aggregator (401", "docs/guide/proxy.md"),
        (301, "redirects to https://elsewhere/", "final address"),
        (502, "gets no answer of the aggregator behind it (502 Bad Gateway)", "aggregator serve"),
        (503, "gets no answer of the aggregator behind it (503", "aggregator serve"),
        (504, "waited too long for the aggregator behind it (504", "60 s"),
        (500, "answered 500", ""),
    ],
)
async def test_answers_of_others_are_told_in_plain_words(status: int, message: str, hint: str) -> None:
    """HTML of a proxy or of another web server is an outage with its cause, and Retry-After is heard."""

    headers = {"Location": "https://elsewhere/", "Retry-After": "7"}
    page = always(lambda: web.Response(status=status, text="<html>", content_type="text/html", headers=headers))
    async with listening(page) as port:
        error = await fault(f"http://127.0.0.1:{port}/braid")

    assert message in error.message and hint in error.hint
    assert error.retry_after_s == (7.0 if status >= 500 else 0.0)


async def test_a_proxys_limit_on_bodies_is_named_and_not_tried_again(server: Any, tmp_path: Path) -> None:
    """413 in HTML is no word of the server's: one request, and the size, the setting and its value are told."""
    body = tmp_path / "update"
    body.write_bytes(bytes(300_000))
    requests: list[str] = []

    async def too_large(request: web.Request) -> web.Response:
        requests.append(request.method)
        await request.read()
        return web.Response(status=413, text="<html>", content_type="text/html")

    server.faults["PATCH /v1/uploads/"] = [too_large] * 3
    server.devices["x"] = "credential-1"

    async with Transport(server.url, credential="credential-1") as transport:
        with pytest.raises(ProxyLimitError) as caught:
            await upload(transport, "/v1/uploads/1", body, backoff=Backoff())

    assert requests == ["PATCH"] and "293 KiB" in caught.value.message
    assert "client_max_body_size" in caught.value.hint and "512m" in caught.value.hint


async def test_a_limit_on_bodies_ends_the_board(board: Any, server: Any) -> None:
    """It does not train the same round again and again for an upload that cannot pass."""

    async def too_large(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=413, text="<html>", content_type="text/html")

    server.faults["PATCH /v1/uploads/"] = [too_large] * 3

    with pytest.raises(ProxyLimitError):
        await board.join()

    assert len([line for line in server.fired if line.startswith("PATCH")]) == 1


# --- IPv6 zones ----------------------------------------------------------------------------------------------------


def link_local() -> tuple[str, str]:
    """An address of one link of this machine, and its interface; skips where there is none."""
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else []:
        digits, _, _, _, _, interface = line.split()
        if digits.startswith("fe80"):
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), interface
    pytest.skip("this machine has no IPv6 address of one link")


@pytest.mark.parametrize("percent", ["%", "%25"])
async def test_a_zone_may_be_written_in_either_spelling(app: Any, server: Any, tmp_path: Path, percent: str) -> None:
    """As people type it and as RFC 6874 has it; it names an interface of this board, so the server never sees it."""
    address, interface = link_local()
    context, public = certificate(tmp_path, "localhost")
    hosts: list[str] = []

    async def look(request: web.Request) -> None:
        hosts.append(request.headers["Host"])

    server.faults["GET /v1/run"] = [look] * 2
    for scheme, tls, options in (("http", None, {}), ("https", context, {"fingerprint": pin_of(public)})):
        async with listening(server.app(), tls, f"{address}%{interface}") as port:
            url = normalise_server(f"{scheme}://[{address}{percent}{interface}]:{port}/")
            assert (await ask(url, **options)).run_id == "run-1"
        assert hosts.pop() == f"[{address}]:{port}"


async def test_a_zone_that_is_missing_or_unknown_is_named() -> None:
    """The interface is the board's own: `ip -br link` lists them."""
    address, _ = link_local()

    unknown = await fault(f"http://[{address}%nope0]:8470")
    missing = await fault(f"http://[{address}]:8470")

    assert "no network interface nope0" in unknown.message and "ip -br link" in unknown.hint
    assert "needs the board's interface" in missing.message and f"[{address}%INTERFACE]" in missing.hint


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("HTTPS://Host.Example:8470/", "https://host.example:8470"),
        ("http://[FE80::1%25eth0]:8470/braid/", "http://[fe80::1%eth0]:8470/braid"),
        ("http://[fe80::1%Eth0]:1", "http://[fe80::1%Eth0]:1"),
        ("https://host/Braid/", "https://host/Braid"),
    ],
)
def test_an_address_has_one_spelling(written: str, read: str) -> None:
    """So that the same server is not taken for another; a path and an interface are told apart by case."""
    assert normalise_server(written) == read


def test_a_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Editors on other systems write one."""
    path = tmp_path / "edge-client.toml"
    path.write_bytes(b"\xef\xbb\xbf" + b'server = "http://host:1"\n')

    assert read_config(path) == {"server": "http://host:1"}
    path.write_bytes('server = "http://host:1"\n'.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"edge-client\.toml is not"):
        read_config(path)
