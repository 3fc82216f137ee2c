"""Certificates that change under a running server: its own in time, an authority's as soon as its files are there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from aggregator.errors import TlsError
from aggregator.http.certificates import Certificates
from aggregator.http.server import Listening, _serve
from aggregator.http.tls import RENEW_BEFORE_DAYS, VALID_DAYS, Tls, fingerprint, is_ending, prepare
from aggregator.remote import address_of, fetch_status
from aggregator.run.setup import open_run
from aggregator.store.folder import Folder
from edge_client.network.transport import Transport
from tests.aggregator.test_cli import given_certificate
from tests.fakes.clock import FakeClock

YEAR_S = 365 * 86400.0


@pytest.fixture
def clock() -> FakeClock:
    """Seconds since 1970."""
    made = FakeClock()
    made.now = 1.8e9
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def own(folder: Folder, clock: FakeClock) -> Certificates:
    """A server's own certificate."""
    return Certificates(
        prepare("self-signed", "127.0.0.1", folder, clock()),
        lambda: prepare("self-signed", "127.0.0.1", folder, clock()),
        clock,
    )


@asynccontextmanager
async def listening(certificates: Certificates) -> AsyncIterator[TestServer]:
    """A server that shows them."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    running = TestServer(app, scheme="https")
    await running.start_server(ssl=certificates.tls.context)
    try:
        yield running
    finally:
        await running.close()


async def shown(server: TestServer) -> str:
    """The fingerprint of the certificate that a new connection sees."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    seen = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return hashlib.sha256(seen).hexdigest()


@given(left_s=st.floats(-1e10, 1e10))
def test_an_own_certificate_is_made_anew_in_its_last_days(left_s: float) -> None:
    """By the server's clock; one that lags, as at boot, renews nothing."""
    ends_at = 1.8e9
    now = ends_at - left_s

    assert is_ending(ends_at, now) == (now >= ends_at - RENEW_BEFORE_DAYS * 86400)
    assert not is_ending(ends_at, 0.0)


async def test_the_own_certificate_is_renewed_while_the_server_runs(folder: Folder, clock: FakeClock) -> None:
    """New connections see the new one, an open one goes on, and it is that of the next start as well."""
    certificates = own(folder, clock)
    first = certificates.fingerprint
    async with listening(certificates) as server, Transport(str(server.make_url("")), fingerprint=first) as board:
        async with board.open("GET", "/"):
            pass
        clock.advance((VALID_DAYS - RENEW_BEFORE_DAYS) * 86400 - 3600)
        assert not certificates.look() and await shown(server) == first

        clock.advance(3600)
        assert certificates.look() and not certificates.look()

        second = certificates.fingerprint
        assert await shown(server) == second != first == first.lower()
        async with board.open("GET", "/"):  # on its connection of before
            pass
    assert fingerprint(folder.certificate) == second
    assert own(folder, clock).fingerprint == second and folder.key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("missing", ["certificate", "key", "neither"])
def test_a_renewal_that_was_cut_short_is_made_again(folder: Folder, clock: FakeClock, missing: str) -> None:
    """Killed between the two files: the new key beside the old certificate, or one of them alone. It starts."""
    first = own(folder, clock).fingerprint
    other = Folder(folder.root / "other")
    other.root.mkdir()
    own(other, clock)
    shutil.copy(other.key, folder.key)
    if missing != "neither":
        getattr(folder, missing).unlink()

    again = own(folder, clock)

    assert again.fingerprint not in ("", first) and own(folder, clock).fingerprint == again.fingerprint


def test_files_that_may_not_be_read_are_not_replaced(
    folder: Folder, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong user started the server: that is the error, and the certificate stays."""
    first = own(folder, clock).fingerprint

    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_cert_chain", refused)
        with pytest.raises(TlsError, match="Permission denied"):
            own(folder, clock)

    assert fingerprint(folder.certificate) == first


async def test_an_authoritys_certificate_is_read_again_when_its_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a pair changes nothing and is told once; the whole pair is shown, without a restart."""
    files, fresh = tmp_path / "live", tmp_path / "fresh"
    files.mkdir(), fresh.mkdir()
    certificate, key = given_certificate(files, "shed.example")
    choice = f"{certificate},{key}"
    certificates = Certificates(
        prepare(choice, "0.0.0.0", Folder(tmp_path)), lambda: prepare(choice, "", Folder(tmp_path))
    )
    first, (new_certificate, new_key) = certificates.fingerprint, given_certificate(fresh, "shed.example")
    changes: list[str] = []
    monkeypatch.setattr("aggregator.http.certificates.LOOK_EVERY_S", 0.001)
    async with listening(certificates) as server:
        watching = asyncio.create_task(certificates.watch(lambda: changes.append(certificates.fingerprint)))
        shutil.copy(new_certificate, certificate)
        for _ in range(3):
            assert not certificates.look()
        assert await shown(server) == first == certificates.fingerprint

        shutil.copy(new_key, key)
        while not changes:  # noqa: ASYNC110 - what is watched is a file
            await asyncio.sleep(0.001)
        watching.cancel()

        assert changes == [fingerprint(certificate)] == [await shown(server)] and changes != [first]


def test_what_cannot_be_used_is_told_once(folder: Folder, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A minute later it is the same: one line."""
    certificate, key = given_certificate(folder.root, "a.example")
    choice = f"{certificate},{key}"
    certificates = Certificates(prepare(choice, "", folder), lambda: prepare(choice, "", folder), clock)
    for _ in range(3):
        certificate.write_text(f"no certificate {clock()}")
        clock.advance(60)
        assert not certificates.look()

    assert len(caplog.records) == 1 and "stays as it is" in caplog.text


async def test_a_server_that_runs_tells_of_its_new_certificate(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log has the new fingerprint, and the commands beside it find it under that one."""
    monkeypatch.setattr("aggregator.http.certificates.LOOK_EVERY_S", 0.001)
    folder, lines, listens, renewed = make_folder(), list[str](), asyncio.Event(), asyncio.Event()

    def say(line: str) -> None:
        lines.append(line)
        (renewed if "another now" in line else listens).set()

    def again() -> Tls:
        return prepare("self-signed", "127.0.0.1", folder)

    certificates = Certificates(again(), again)
    first, opened = certificates.fingerprint, open_run(folder, time.monotonic)
    serving = asyncio.create_task(_serve(opened, Listening("127.0.0.1", 0, certificates.tls), certificates, say))
    try:
        await listens.wait()
        folder.certificate.unlink()  # as after its key was seen by others
        await renewed.wait()

        assert certificates.fingerprint in lines[-1] and certificates.fingerprint != first
        address = address_of(str(folder.root), "", "")
        assert address.fingerprint == certificates.fingerprint
        facts = await asyncio.to_thread(fetch_status, address)
        assert facts["run"]["state"] == "profiling"
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        opened.store.close()
