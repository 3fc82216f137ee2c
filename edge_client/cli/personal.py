"""`edge-client personal`: the strands of this board alone, written as a PEFT folder or removed."""

from __future__ import annotations

import json
from pathlib import Path

import click

from braid_common.units import show_size
from edge_client.cli.options import debug_option, state_option
from edge_client.cli.own_strands import own_strands
from edge_client.errors import ConfigError
from edge_client.host.packages import require_packages
from edge_client.host.torch_trial import loading_torch
from edge_client.state.folder import StateFolder


@click.group()
def personal() -> None:
    """Export or forget the local strands that this board has trained for itself."""


@personal.command()
@state_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@debug_option
def export(state: Path, out: Path, as_json: bool, debug: bool) -> None:
    """Write them as a PEFT LoRA folder, which adds to the base beside the one that `aggregator export` writes."""
    del debug
    own = own_strands(state.expanduser())
    if own is None:
        raise ConfigError(
            f"{state.expanduser()} holds no local strands", "they are there once a round with [personal] is done"
        )
    require_packages()
    with loading_torch():
        from edge_client.engines.lean.personal.peft_export import export_strands

    done = export_strands(own.file, own.facts, out.expanduser(), own.held_adapter)
    if as_json:
        facts = {"folder": str(out), "run": own.facts.run_id, "n_weights": done.n_weights}
        click.echo(json.dumps(facts | {"size_bytes": done.size_bytes, "whole": done.is_whole}))
        return
    size = show_size(done.size_bytes)
    click.echo(f"local strands of {done.n_weights} weights, run {own.facts.run_id}, {size}, in {out}")
    if done.is_whole:
        click.echo("It is this board's whole model: load it in the place of the global adapter, not beside it.")
    click.echo("They are trained on this board's text alone: whoever has this folder may learn of it.")


@personal.command()
@state_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@debug_option
def forget(state: Path, yes: bool, debug: bool) -> None:
    """Remove them, of all runs. A board that goes on training begins anew."""
    del debug
    folder = StateFolder(state.expanduser())
    if not folder.personal.is_there:
        raise ConfigError(
            f"{folder.path} holds no local strands", "there is nothing to forget; or give another --state"
        )
    folder.lock()
    try:
        if not yes:
            click.confirm(f"Remove the local strands in {folder.path}? They cannot be made again", abort=True)
        n_files = folder.personal.forget()
    finally:
        folder.unlock()
    click.echo(f"forgotten: the local strands of {n_files} {'run' if n_files == 1 else 'runs'}")
