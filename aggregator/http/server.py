"""The running server: listens, says how to join, logs, and ends in an orderly way."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable

from aiohttp import web

from aggregator.errors import AddressError
from aggregator.http.app import make_app
from aggregator.http.app_keys import WORKER
from aggregator.http.tls import Tls, is_loopback, prepare
from aggregator.run.setup import Opened, open_run
from aggregator.settings.sizes import memory_warning
from aggregator.store.folder import Folder
from aggregator.store.secrets import secret_hash
from braid_common.atomic_file import write_atomically

SHUTDOWN_S = 20.0
"""How long open requests may take to finish after SIGTERM; systemd kills after 90 s."""

KEEPALIVE_S = 75.0
"""Idle connections; longer than the longest long poll."""


EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound


def serve(folder: Folder, host: str, port: int, tls_choice: str | None, say: Callable[[str], None]) -> None:
    """Serve the folder's run until SIGTERM or SIGINT. Raises a ServerError that says what is in the way."""
    folder.need()
    with folder.locked():
        tls = prepare(tls_choice, host, folder)
        opened = open_run(folder, time.monotonic)
        try:
            asyncio.run(_serve(opened, host, port, tls, say))
        finally:
            opened.store.close()
            folder.address.unlink(missing_ok=True)


def join_command(url: str, token: str, tls: Tls) -> str:
    """The command that makes a board join, as it is typed there."""
    pinned = f" --fingerprint {tls.fingerprint}" if tls.fingerprint else ""
    return f"edge-client join --server {url} --token {token}{pinned}"


async def _serve(opened: Opened, host: str, port: int, tls: Tls, say: Callable[[str], None]) -> None:
    folder = opened.folder
    app = make_app(opened, secret_hash(folder.secret(folder.operator_token)))
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
        auto_decompress=False,  # no message is compressed, and a bomb must not burst before it is counted
    )
    await runner.setup()
    gc.freeze()  # a full collection takes a tenth of a second, nearly all of it for what was imported and never goes
    try:
        real_port = await _listen(runner, host, port, tls)
        url = f"{tls.scheme}://{_reachable(host)}:{real_port}"
        _publish(folder, f"{tls.scheme}://{'127.0.0.1' if host in EVERYWHERE else _reachable(host)}:{real_port}", tls)
        _greet(opened, url, host, tls, say)
        await _until_told(app[WORKER])
        say("stopping: open requests finish first")
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int, tls: Tls) -> int:
    """Listen; return the port. Raises AddressError."""
    site = web.TCPSite(runner, host, port, ssl_context=tls.context)
    try:
        await site.start()
    except OSError as error:
        reason = error.strerror or str(error)
        raise AddressError(
            f"{host}:{port} cannot be listened on: {reason}", "Give another --host or --port."
        ) from error
    return int(runner.addresses[0][1])


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


def _publish(folder: Folder, url: str, tls: Tls) -> None:
    """Leave the address for the commands beside the server."""
    facts = {"url": url, "fingerprint": tls.fingerprint, "pid": os.getpid()}
    write_atomically(folder.address, json.dumps(facts).encode())


def _greet(opened: Opened, url: str, host: str, tls: Tls, say: Callable[[str], None]) -> None:
    folder, run = opened.folder, opened.run
    say(f"run {run.terms.run_id}: {run.run_state.value}, version {run.state.version}, {run.config.rounds.total} rounds")
    say(f"listening on {url}  (status page: any user name, password in {folder.operator_token})")
    if tls.context is None and not is_loopback(host):
        say("WARNING: without TLS everybody on the network can read tokens and updates")
    if warning := memory_warning(run.config, run.terms.weights, _installed_bytes()):
        say(warning)
    say("on each board:")
    say(f"  {join_command(url, folder.secret(folder.join_token), tls)}")


def _installed_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _reachable(host: str) -> str:
    """A name under which boards can reach a server that listens on `host`."""
    name = socket.gethostname() if host in EVERYWHERE else host
    return f"[{name}]" if ":" in name else name


def log_to(say: Callable[[str], None]) -> None:
    """Send the server's log to `say`, one line an event, with the time of day."""

    class Lines(logging.Handler):
        """A handler that passes each record on as a line."""

        def emit(self, record: logging.LogRecord) -> None:
            say(f"{time.strftime('%H:%M:%S')}  {self.format(record)}")

    root = logging.getLogger()
    root.handlers[:] = [Lines()]
    root.setLevel(logging.WARNING)
    logging.getLogger("aggregator").setLevel(logging.INFO)
