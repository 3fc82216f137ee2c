"""The run of a server that this board has joined, asked for by commands that only look."""

from __future__ import annotations

import asyncio

from edge_client.agent.settings import normalise_server
from edge_client.errors import ConfigError
from edge_client.state.folder import Identity, StateFolder
from wire import routes
from wire.run import RunInfo


def joined_run(server: str, folder: StateFolder, instead: str) -> RunInfo:
    """The run of the server at this address.

    Raises ConfigError where the board has not joined it; `instead` says, in the hint, what works without.
    """
    identity = folder.read_identity()
    if identity is None or not identity.credential or identity.server != normalise_server(server):
        raise ConfigError(f"this board has not joined {server}", f"join it first, give its --state, or {instead}")
    return asyncio.run(_ask(identity))


def base_name(run: RunInfo, folder: StateFolder) -> str:
    """The base of a run as `--model` takes it: the folder that `join` fetched it into, else its name."""
    fetched = folder.path / "base" / run.base.digest
    if fetched.is_dir():
        return str(fetched)
    return f"{run.base.model}@{run.base.revision}" if run.base.revision else run.base.model


async def _ask(identity: Identity) -> RunInfo:
    from edge_client.network.transport import Transport

    async with Transport(
        identity.server, credential=identity.credential, fingerprint=identity.fingerprint
    ) as transport:
        return await transport.call("GET", routes.RUN.path, RunInfo)
