"""The running server: listens, says how to join, logs, and ends in an orderly way."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from aiohttp import web

from aggregator.errors import AddressError, DiskError, disk_errors_named
from aggregator.http.addresses import authority, listening_sockets, own_host, reachable_hosts
from aggregator.http.app import make_app
from aggregator.http.app_keys import GUARD, WORKER
from aggregator.http.certificates import Certificates
from aggregator.http.guard.connection import Connection
from aggregator.http.guard.limits import Limits, few_connections_warning, raise_descriptor_limit
from aggregator.http.guard.listener import Listener
from aggregator.http.repeats import Repeats
from aggregator.http.tls import Tls, prepare
from aggregator.run.setup import Opened, open_run
from aggregator.settings.sizes import memory_warning
from aggregator.store.folder import Folder
from aggregator.store.join_tokens import token_state
from aggregator.store.secrets import secret_hash
from braid_common.atomic_file import write_atomically
from braid_common.loopback import is_loopback, is_plain_to_others
from braid_common.units import show_seconds

SHUTDOWN_S = 20.0
"""How long open requests may take to finish after SIGTERM; systemd kills after 90 s."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The place where a server listens, and how it is reached from elsewhere.

    Attributes:
        host, port: as bound.
        tls: how it speaks there.
        public_url: the address that boards use, where it is another one, such as a proxy's; "" where it is not.
    """

    host: str
    port: int
    tls: Tls
    public_url: str = ""

    @property
    def urls(self) -> list[str]:
        """Addresses for boards, the likeliest first: by a name of the certificate where they check one."""
        if self.public_url:
            return [self.public_url]
        hosts = reachable_hosts(self.host)
        by_name = [name for name in self.tls.names if not name.startswith("*")]
        if by_name and not self.tls.is_pinned:
            hosts = [*(host for host in hosts if host in by_name), *(name for name in by_name if name not in hosts)]
        return [f"{self.tls.scheme}://{authority(host, self.port)}" for host in hosts]

    @property
    def is_plain_for_boards(self) -> bool:
        """Whether boards were told to call over plain HTTP, and not from this machine."""
        return is_plain_to_others(self.public_url)

    @property
    def own_url(self) -> str:
        """The address for commands on the same machine."""
        return f"{self.tls.scheme}://{authority(own_host(self.host), self.port)}"

    @property
    def pin(self) -> str:
        """The fingerprint that boards need, "" where an authority, or a proxy's certificate, takes its place."""
        return self.tls.certificate if self.tls.is_pinned and not self.public_url else ""


def serve(
    folder: Folder, host: str, port: int, *, tls_choice: str | None, public_url: str, say: Callable[[str], None]
) -> None:
    """Serve the folder's run until SIGTERM or SIGINT. Raises a ServerError that says what is in the way."""
    folder.need()
    with folder.locked(), disk_errors_named():
        certificates = Certificates(prepare(tls_choice, host, folder), lambda: prepare(tls_choice, host, folder))
        listening = Listening(host, port, certificates.tls, public_url.rstrip("/"))
        opened = open_run(folder, time.monotonic)
        try:
            asyncio.run(_serve(opened, listening, certificates, say))
        finally:
            opened.store.close()
            with suppress(OSError):  # what ended the server is to be told, not this
                folder.address.unlink(missing_ok=True)


def join_command(url: str, token: str, pin: str) -> str:
    """The command that makes a board join, as it is typed there."""
    pinned = f" --fingerprint {pin}" if pin else ""
    return f"edge-client join --server {url} --token {token}{pinned}"


async def _serve(opened: Opened, wanted: Listening, certificates: Certificates, say: Callable[[str], None]) -> None:
    folder = opened.folder
    limits = Limits().within(raise_descriptor_limit())
    app = make_app(opened, secret_hash(folder.secret(folder.operator_token)), certificates, limits)
    gc.freeze()  # a full collection takes a tenth of a second, nearly all of it for what was imported and never goes
    async with serving(app, _sockets(wanted), wanted.tls.context) as port:
        listening = replace(wanted, port=port)
        try:
            _publish(folder, listening)
        except OSError as error:  # a full disk is no reason not to serve what is there
            say(
                f"WARNING: {folder.address} cannot be written ({error}): `aggregator status URL` alone finds the server"
            )
        _greet(opened, listening, say)

        def renewed() -> None:
            now = replace(listening, tls=certificates.tls)
            with suppress(DiskError):  # a full disk: `status` beside the server asks for the old certificate
                _publish(folder, now)
            _tell_renewed(now, say)

        watching = asyncio.create_task(certificates.watch(renewed))
        if warning := few_connections_warning(limits):
            say(warning)
        await _until_told(app[WORKER])
        watching.cancel()
        say("stopping: open requests finish first")


@asynccontextmanager
async def serving(
    app: web.Application,
    sockets: Sequence[socket.socket],
    context: ssl.SSLContext | None = None,
    connection: type[Connection] = Connection,
) -> AsyncIterator[int]:
    """The application at these sockets, until the block ends; gives the port of the first of them.

    `connection`: what each connection is handled by; one that is watched, where the server is under test.
    """
    guard = app[GUARD]
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    assert runner.server is not None
    make = partial(connection, runner.server, on_end=guard.guests.leave, on_nonsense=guard.hear_nonsense)
    listener = Listener(sockets, make, guard, context)
    try:
        listener.start()
        yield listener.port
    finally:
        listener.close()
        await runner.cleanup()


def _sockets(wanted: Listening) -> list[socket.socket]:
    """Bound sockets. Raises AddressError."""
    try:
        return listening_sockets(wanted.host, wanted.port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AddressError(
            f"{authority(wanted.host, wanted.port)} cannot be listened on: {reason}", "Give another --host or --port."
        ) from error


async def _until_told(worker: asyncio.Task[None]) -> None:
    """Return at SIGTERM or SIGINT. Raises what the orchestrator raises: a server that decides nothing must not stay."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    waiting = asyncio.ensure_future(told.wait())
    await asyncio.wait({waiting, worker}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if worker.done():
        worker.result()


def _publish(folder: Folder, listening: Listening) -> None:
    """Leave the address for the commands beside the server. They take this certificate and no other, whoever signed.
    Raises DiskError."""
    facts = {"url": listening.own_url, "fingerprint": listening.tls.certificate, "pid": os.getpid()}
    try:
        write_atomically(folder.address, json.dumps(facts).encode())
    except OSError as error:
        raise DiskError(f"{folder.address} cannot be written: {error}", "Check free space and permissions.") from error


def _greet(opened: Opened, listening: Listening, say: Callable[[str], None]) -> None:
    folder, run, tls = opened.folder, opened.run, listening.tls
    url, *others = listening.urls
    is_hidden = is_loopback(listening.host)
    say(f"run {run.terms.run_id}: {run.run_state.value}, version {run.state.version}, {run.config.rounds.total} rounds")
    say(f"listening on {url}  (status page: any user name, password in {folder.operator_token})")
    if others:
        say(f"also at {', '.join(others)}")
    if (tls.context is None and not is_hidden) or listening.is_plain_for_boards:
        say("WARNING: without TLS everybody on the network can read tokens and updates")
    if tls.certificate and not tls.is_pinned and not listening.public_url:
        say(f"boards that know no authority of its certificate add --fingerprint {tls.certificate}")
    if warning := memory_warning(run.config, run.terms.weights, _installed_bytes()):
        say(warning)
    if is_hidden and not listening.public_url:
        say("only this machine reaches it: --host 0.0.0.0 lets boards in, or --url names the proxy that does")
    _greet_boards(opened, url, listening.pin, say)


def _greet_boards(opened: Opened, url: str, pin: str, say: Callable[[str], None]) -> None:
    """Say how boards join: with the run's first token while it lets any in, then with one to be made."""
    folder, store = opened.folder, opened.store
    secret, now = folder.secret(folder.join_token), store.wall_clock()
    first = store.token_of(secret_hash(secret))
    more = f"aggregator token create {folder.root} --uses N"
    if first is None or token_state(first, now) != "valid":
        say(f"on each board, with a token from {more}:")
        say(f"  {join_command(url, '…', pin)}")
        return
    say("on each board:")
    say(f"  {join_command(url, secret, pin)}")
    left = "1 board" if first.uses_left == 1 else f"{first.uses_left} boards"
    say(f"for {left} within {show_seconds(round(first.expires_at - now))}; for more: {more}")


def _tell_renewed(listening: Listening, say: Callable[[str], None]) -> None:
    if listening.pin:
        say(f"the certificate is another now, its fingerprint {listening.pin}; boards that have joined follow it")
    else:
        say("the certificate is another now")


def _installed_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def log_to(say: Callable[[str], None]) -> None:
    """Send the server's log to `say`, one line an event, with the time of day."""

    class Lines(logging.Handler):
        """A handler that passes each record on as a line."""

        def emit(self, record: logging.LogRecord) -> None:
            say(f"{time.strftime('%H:%M:%S')}  {self.format(record)}")

    lines, root = Lines(), logging.getLogger()
    lines.addFilter(Repeats(time.monotonic))
    root.handlers[:] = [lines]
    root.setLevel(logging.WARNING)
    logging.getLogger("aggregator").setLevel(logging.INFO)
