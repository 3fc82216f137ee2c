"""`edge-client status` and `edge-client leave`: the state folder, without the network."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from braid_common.units import show_seconds, show_size
from edge_client.cli.options import debug_option, state_option
from edge_client.errors import ConfigError
from edge_client.state.folder import StateFolder
from edge_client.state.status import Status, read_status


@click.command()
@state_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@debug_option
def status(state: Path, as_json: bool, debug: bool) -> None:
    """Show what the client on this board is doing."""
    del debug
    folder = StateFolder(state.expanduser())
    kept = read_status(folder.path)
    if kept is None:
        raise ConfigError(f"no client has run with {folder.path}", "start one with `edge-client join`, or give --state")
    is_running = folder.is_locked()
    if as_json:
        click.echo(msgspec.json.encode({"running": is_running, **msgspec.to_builtins(kept)}).decode())
    else:
        click.echo("\n".join(_lines(kept, is_running, time.time())))


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
@debug_option
def leave(state: Path, yes: bool, debug: bool) -> None:
    """Forget the server: remove this board's identity, unfinished work and encoded text. Tells nobody."""
    del debug
    folder = StateFolder(state.expanduser())
    if not (folder.path / "identity.json").exists():
        raise ConfigError(f"{folder.path} holds no identity", "there is nothing to leave; or give another --state")
    folder.lock()
    try:
        if not yes:
            click.confirm(f"Remove the identity in {folder.path}? Joining again needs a token", abort=True)
        folder.forget_identity()
    finally:
        folder.unlock()
    click.echo(f"left; {folder.path} holds no identity any more. Revoke the device on the server as well.")
