"""`edge-client join`: its flags, and the file that may stand in for them."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import click

from braid_common.terminal import typed
from edge_client.agent.settings import PERSONAL, REWARD, JoinSettings, normalise_server
from edge_client.cli.options import (
    cache_option,
    config_option,
    data_options,
    debug_option,
    manners_options,
    round_time_option,
    round_traffic_option,
    state_option,
)

if TYPE_CHECKING:
    from edge_client.agent.preflight import Probes


@click.command()
@click.option("--server", envvar="BRAID_SERVER", default="", help="Address that `aggregator serve` printed.")
@click.option("--token", envvar="BRAID_TOKEN", default="", help="Join token; needed once.")
@click.option("--fingerprint", envvar="BRAID_FINGERPRINT", default="", help="SHA-256 of a self-signed certificate.")
@click.option(
    "--data",
    envvar="BRAID_DATA",
    default="builtin:docstrings",
    show_default=True,
    help="JSON lines, JSON, CSV, Parquet, a folder of these or of text, or builtin:docstrings/LIBRARY.",
)
@data_options
@click.option(
    "--model", envvar="BRAID_MODEL", default="", help="Base: hub id, folder or builtin.  [default: the run's]"
)
@click.option(
    "--memory", envvar="BRAID_MEMORY", default="", help="Memory to use, such as 800MiB.  [default: what is free]"
)
@cache_option
@round_time_option
@round_traffic_option
@manners_options
@state_option
@click.option(
    "--name", envvar="BRAID_NAME", default=socket.gethostname, help="Name on the server's page.  [default: host]"
)
@click.option("--wait", is_flag=True, envvar="BRAID_WAIT", help="Wait for a server that is not there yet.")
@click.option(
    "--threads",
    type=click.IntRange(0, 1024),
    envvar="BRAID_THREADS",
    default=0,
    help="Processors; 0 is all that are free when a round begins.",
)
@click.option(
    "--eval-examples",
    type=click.IntRange(1, 100_000),
    envvar="BRAID_EVAL_EXAMPLES",
    default=200,
    show_default=True,
    help="Held-out examples that each evaluation looks at, at most.",
)
@click.option("--json", "as_json", is_flag=True, envvar="BRAID_JSON", help="One JSON object per event and line.")
@config_option
@debug_option
@click.pass_context
def join(context: click.Context, /, as_json: bool, debug: bool, **flags: Any) -> None:
    """Train for a server until its run is over.

    Enrols once with a token; from then on the state folder is enough. Ctrl-C and SIGTERM keep what was done.
    """
    del debug  # the option's callback has acted on it
    flags["server"] = normalise_server(flags["server"]) if flags["server"] else ""
    flags["state"] = flags["state"].expanduser()
    flags["name"] = typed(flags["name"])
    settings = JoinSettings(**flags, personal=context.meta.get(PERSONAL), rewards=context.meta.get(REWARD, ()))
    probes: Probes | None = context.obj
    from edge_client.agent.console import Console  # aiohttp and what comes with it are loaded only here
    from edge_client.agent.join import join as run
    from edge_client.agent.preflight import PROBES
    from edge_client.cli.restart_pause import paused_restarts

    console = Console(as_json=as_json)
    with paused_restarts(os.environ, console.notice):
        run(settings, console, probes=probes or PROBES)
