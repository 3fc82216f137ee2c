"""`edge-client status` and `edge-client leave`: the state folder, and a word to the server when a board goes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click
import msgspec

from braid_common.units import show_seconds, show_size
from edge_client.cli.options import debug_option, state_option
from edge_client.errors import ClientError, ConfigError, UnreachableError
from edge_client.host.condition.condition import condition_words, read_condition
from edge_client.state.folder import Identity, StateFolder
from edge_client.state.status import Status, read_status

SHOWN = ("heat", "slowed")
"""What `status` shows of the board's condition, in text: how hot it is, and what holds it back. `doctor` shows all."""

TELL_TIMEOUT_S = 10.0
"""A person waits for the command, and leaving works without the server."""


@click.command()
@state_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--check", is_flag=True, help="End with 8 where its server is away, with 3 where no client runs.")
@debug_option
def status(state: Path, as_json: bool, check: bool, debug: bool) -> None:
    """Show what the client on this board is doing."""
    del debug
    folder = StateFolder(state.expanduser())
    kept = read_status(folder.path)
    if kept is None:
        raise ConfigError(f"no client has run with {folder.path}", "start one with `edge-client join`, or give --state")
    is_running, condition = folder.is_locked(), read_condition()
    if as_json:
        facts = {"running": is_running, **msgspec.to_builtins(kept), "condition": condition}
        click.echo(msgspec.json.encode(facts).decode())
    else:
        words = condition_words(condition)
        shown = [f"{part:<10}{words[part]}" for part in SHOWN if part in words]
        click.echo("\n".join([*_lines(kept, is_running, time.time()), *shown]))
    if check and not is_running:
        raise ConfigError(f"no client runs with {folder.path}", "start one with `edge-client join`, or give --state")
    if check and not kept.online:
        raise UnreachableError(
            f"the server of this board is away: {kept.server}", "the client goes on by itself when it is back"
        )


def _lines(kept: Status, is_running: bool, now_unix_s: float) -> list[str]:
    age_s = max(0.0, now_unix_s - kept.updated_unix_s)
    link = "online" if kept.online else "server away"
    lines = [
        f"client    {f'running (process {kept.pid}), {link}' if is_running else 'not running'}",
        f"device    {kept.device or 'not enrolled yet'} at {kept.server}",
        f"phase     {kept.phase}" + (f" {kept.step}/{kept.steps}" if kept.steps else ""),
        f"updated   {show_seconds(round(age_s))} ago",
    ]
    if kept.run_id:
        accepted = f"{kept.rounds_done} updates accepted since the client was started"
        lines.insert(2, f"run       {kept.run_id}, round {kept.round} of {kept.rounds}, {accepted}")
    if kept.waits and is_running:
        lines.append(f"pauses    {kept.waits}")
    if kept.format:
        peak = show_size(kept.predicted_peak_bytes)
        strands = f"{kept.ranks_total} strands (at most {kept.max_rank} per weight)"
        lines.append(f"plan      {kept.format} base, {strands}, {peak} predicted peak")
    if kept.loss:
        measured = f"{kept.tokens_per_s:.0f} tokens/s, peak memory {show_size(kept.peak_bytes)}"
        lines.append(f"training  loss {kept.loss:.3f}, {measured}")
    lines.append(f"traffic   {show_size(kept.bytes_up)} up, {show_size(kept.bytes_down)} down")
    return lines


@click.command()
@state_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--new-device", is_flag=True, help="Join as another device next time: for a card that will be copied.")
@debug_option
def leave(state: Path, yes: bool, new_device: bool, debug: bool) -> None:
    """Leave the server: tell it, and remove this board's identity, unfinished work and encoded text.

    With a token the board can join again, and is the same device there. A server that cannot be reached is left all the
    same.
    """
    del debug
    folder = StateFolder(state.expanduser())
    if not (folder.path / "identity.json").exists():
        raise ConfigError(f"{folder.path} holds no identity", "there is nothing to leave; or give another --state")
    folder.lock()
    try:
        if not yes:
            click.confirm(f"Remove the identity in {folder.path}? Joining again needs a token", abort=True)
        identity = _readable_identity(folder)
        told = _tell_server(folder, identity) if identity is not None and identity.credential else ""
        folder.forget_identity("" if new_device or identity is None else identity.install_id)
    finally:
        folder.unlock()
    click.echo(f"left; {folder.path} holds no identity any more{told}")


def _readable_identity(folder: StateFolder) -> Identity | None:
    """The identity, None where it is damaged: such a board may leave as well."""
    try:
        return folder.read_identity()
    except ConfigError:
        return None


def _tell_server(folder: StateFolder, identity: Identity) -> str:
    """Tell the server that this board goes; what came of it, for a person."""
    from edge_client.agent.renewal import Renewal  # aiohttp is loaded only here
    from edge_client.network.api import Api
    from edge_client.network.retry import Backoff, retry
    from edge_client.network.transport import Transport

    async def tell() -> None:
        async with Transport(
            identity.server, credential=identity.credential, fingerprint=identity.fingerprint
        ) as transport:
            api = Api(transport)
            transport.keeper = Renewal(api, folder)
            attempts = 1 + len(identity.credentials)  # a certificate may be new as well
            await asyncio.wait_for(retry(api.leave, Backoff(attempts=attempts)), TELL_TIMEOUT_S)

    try:
        asyncio.run(tell())
    except (ClientError, asyncio.TimeoutError) as error:
        reason = error.message if isinstance(error, ClientError) else f"{identity.server} did not answer in time"
        return (
            f".\nThe server could not be told ({reason}): it shows {identity.device} as silent. Where this board is "
            f"given away, revoke it there: aggregator device revoke DIR {identity.device}"
        )
    return f", and {identity.server} shows {identity.device} as left"
