"""The environment's proxy: used where it should be, and named where it is at fault, each time with what helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from yarl import URL

from edge_client.errors import ConfigError, ExitCode
from edge_client.network.errors import MisconfiguredError, Unavailable, UntrustedError
from edge_client.network.proxy import environment_proxy, shown
from edge_client.network.transport import Transport
from tests.edge_client.network.test_transport import self_signed
from tests.fakes.proxy import FakeProxy, http_answer, running
from wire.run import RunInfo

FAR = "http://aggregator.example:8470"
"""No proxy is asked for the loopback address, so that the server has a name here which only the proxy knows."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies, to be changed."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


async def ask(url: str, **options: Any) -> RunInfo:
    async with Transport(url, credential="credential-1", **options) as transport:
        return await transport.call("GET", "/v1/run", RunInfo)


async def fault(url: str, kind: type[Unavailable] = Unavailable, **options: Any) -> Unavailable:
    """The error of a call to `url`, which must be of this very kind."""
    with pytest.raises(Unavailable) as caught:
        await ask(url, **options)
    assert type(caught.value) is kind
    return caught.value


# --- which proxy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("*", "https://a.example", True),
        ("a.example", "https://a.example", True),
        ("a.example", "https://b.a.example", True),
        (".a.example, *.c.example", "https://x.c.example", True),
        ("a.example", "https://ba.example", False),
        ("a.example:8470", "https://a.example:8470", True),
        ("a.example:8470", "https://a.example", False),
        ("192.0.2.7", "https://192.0.2.7:8470", True),
        ("192.0.2.0/24", "https://192.0.2.7:8470", True),
        ("192.0.2.9/24", "https://192.0.2.7", True),
        ("10.0.0.0/8", "https://192.0.2.7", False),
        ("10.0.0.0/8", "https://ten.example", False),
        ("fd00::/8", "https://[fd00::7]:8470", True),
        ("fe80::/10 other", "https://[fe80::7%25eth0]:8470", True),
        ("[fd00::7]", "https://[fd00::7]:8470", True),
        ("192.0.2.7:8470", "https://192.0.2.7:8470", True),
        ("192.0.2.7/99, ,:", "https://192.0.2.7", False),
        ("", "https://127.0.0.1:8470", True),
        ("", "https://localhost:8470", True),
        ("", "https://[::1]:8470", True),
        ("", "https://192.0.2.7", False),
    ],
)
def test_no_proxy_names_hosts_and_networks(environment: Any, no_proxy: str, url: str, is_direct: bool) -> None:
    """As curl and Go read it: networks too, and the loopback address without being told."""
    environment.setenv("HTTPS_PROXY", "proxy.example:3128")
    environment.setenv("NO_PROXY", no_proxy)

    assert environment_proxy(url) == (None if is_direct else URL("http://proxy.example:3128"))


@pytest.mark.parametrize("address", ["http://", "http://proxy:port", "http://proxy:99999", "ftp://proxy", "://", "a b"])
def test_what_is_no_proxy_is_named_before_any_request(environment: Any, address: str) -> None:
    """The variable's name, and two ways out."""
    environment.setenv("http_proxy", address)

    with pytest.raises(ConfigError, match="http_proxy is not the address of a proxy") as caught:
        Transport(FAR)

    assert "http://HOST:PORT" in caught.value.hint and "NO_PROXY=aggregator.example" in caught.value.hint


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4"])
def test_a_socks_proxy_is_named(environment: Any, scheme: str) -> None:
    """With its address, without its password."""
    environment.setenv("HTTP_PROXY", f"{scheme}://me:secret@proxy:1080")

    with pytest.raises(ConfigError, match=rf"HTTP_PROXY names a SOCKS proxy \({scheme}://proxy:1080\)") as caught:
        Transport(FAR)

    assert "secret" not in str(caught.value) + caught.value.hint


def test_a_proxy_is_shown_without_its_password() -> None:
    """In every message."""
    assert shown(URL("http://me:secret@proxy:3128")) == "http://proxy:3128"


# --- a proxy that works, and others --------------------------------------------------------------------------------


async def test_a_proxy_is_used(environment: Any, server: Any, tmp_path: Path) -> None:
    """Plain HTTP in the proxy's own form, TLS through a tunnel, where the pin holds end to end."""
    server.devices["x"] = "credential-1"
    context, fingerprint = self_signed(tmp_path)
    tls = TestServer(server.app(), scheme="https")
    await tls.start_server(ssl=context)
    plain_port = URL(server.url).port or 0
    try:
        async with running(FakeProxy(plain_port)) as plain, running(FakeProxy(tls.port or 0)) as tunnel:
            environment.setenv("http_proxy", plain.url)
            environment.setenv("https_proxy", tunnel.url)

            assert (await ask(FAR)).run_id == "run-1"
            assert (await ask("https://aggregator.example:8470", fingerprint=fingerprint)).run_id == "run-1"
            await fault("https://aggregator.example:8470", UntrustedError)
    finally:
        await tls.close()

    assert plain.heads[0].startswith("GET http://aggregator.example:8470/v1/run ")
    assert tunnel.heads[0].startswith("CONNECT aggregator.example:8470 ")


async def test_the_loopback_address_is_reached_beside_the_proxy(environment: Any, server: Any) -> None:
    """A proxy would take it for its own."""
    server.devices["x"] = "credential-1"
    async with running(FakeProxy(answer=http_answer("403 Forbidden"))) as proxy:
        environment.setenv("http_proxy", proxy.url)

        assert (await ask(server.url)).run_id == "run-1"

    assert proxy.heads == []


@pytest.mark.parametrize("url", [FAR, FAR.replace("http", "https")])
async def test_a_dead_proxy_is_named(environment: Any, url: str) -> None:
    """Not the server, which nobody asked."""
    for name in ("http_proxy", "https_proxy"):
        environment.setenv(name, "http://127.0.0.1:9")

    error = await fault(url)

    assert error.message.startswith("the proxy http://127.0.0.1:9 (http")
    assert error.message.endswith("cannot be reached: connection refused")
    assert "NO_PROXY=aggregator.example" in error.hint


async def test_a_proxy_without_an_address_is_named(environment: Any) -> None:
    """The name that is not known is the proxy's."""
    environment.setenv("HTTP_PROXY", "proxy.invalid:3128")

    assert "no address is known for the proxy http://proxy.invalid:3128 (HTTP_PROXY)" in (await fault(FAR)).message


@pytest.mark.parametrize("url", [FAR, FAR.replace("http", "https")])
@pytest.mark.parametrize("login", ["", "me:secret@"])
async def test_a_proxy_that_wants_a_password_is_named(environment: Any, url: str, login: str) -> None:
    """407, plain or in a tunnel: a new board stops at once, and hears which of the two is missing."""
    headers = 'Proxy-Authenticate: Basic realm="x"\r\n'
    async with running(FakeProxy(answer=http_answer("407 Proxy Authentication Required", headers))) as proxy:
        for name in ("http_proxy", "https_proxy"):
            environment.setenv(name, proxy.url.replace("//", f"//{login}"))
        error = await fault(url, MisconfiguredError)

    assert ("refuses the user and password" if login else "wants a user and a password") in error.message
    assert "USER:PASSWORD@" in error.hint and "secret" not in error.message + error.hint
    assert error.exit_code == ExitCode.CONFIG
    assert ("Proxy-Authorization" in proxy.heads[0]) == bool(login)


@pytest.mark.parametrize("url", ["http://192.168.7.7:8470", "https://192.168.7.7:8470"])
@pytest.mark.parametrize("status", ["403 Forbidden", "502 Bad Gateway", "504 Gateway Timeout"])
async def test_a_private_address_through_a_proxy_is_named(environment: Any, url: str, status: str) -> None:
    """The usual fault in a company: the proxy answers in the server's place. What helps is told."""
    async with running(FakeProxy(answer=http_answer(status))) as proxy:
        for name in ("http_proxy", "https_proxy"):
            environment.setenv(name, proxy.url)
        error = await fault(url)

    assert f"the proxy {proxy.url}" in error.message and status[:3] in error.message
    assert "NO_PROXY=192.168.7.7" in error.hint


async def test_a_socks_proxy_under_http_is_guessed(environment: Any) -> None:
    """It answers the request in its own tongue."""
    async with running(FakeProxy(answer=b"\x05\xff")) as proxy:
        environment.setenv("https_proxy", proxy.url)
        error = await fault(FAR.replace("http", "https"))

    assert "does not answer in HTTP" in error.message and "SOCKS" in error.hint


@pytest.mark.parametrize("url", [FAR, FAR.replace("http", "https")])
async def test_https_to_a_plain_proxy_is_named(environment: Any, url: str) -> None:
    """https_proxy is the proxy for https, not a proxy that speaks it."""
    async with running(FakeProxy(answer=http_answer("400 Bad Request"))) as proxy:
        for name in ("http_proxy", "https_proxy"):
            environment.setenv(name, proxy.url.replace("http", "https"))
        error = await fault(url, MisconfiguredError)

    assert "does not speak TLS" in error.message and "write http://" in error.hint


async def test_all_proxy_alone_is_mentioned(environment: Any) -> None:
    """It is not used, so who set it is told which one is."""
    environment.setenv("ALL_PROXY", "http://proxy:3128")

    assert "ALL_PROXY is not looked at, HTTP_PROXY is" in (await fault("http://127.0.0.1:9")).hint
