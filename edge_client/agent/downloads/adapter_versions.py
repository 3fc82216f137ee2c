"""Versions of the run's global adapter, fetched from the server by a board that has joined it.

A version comes whole from the server: the copy that a board keeps from round to round is cut to its own ranks.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_client.agent.console import Console
from edge_client.agent.downloads.base import find_base
from edge_client.agent.enrolment import FIRST_ATTEMPTS
from edge_client.agent.renewal import Renewal
from edge_client.errors import ConfigError, disk_errors
from edge_client.network.api import Api
from edge_client.network.errors import RequestError, Unavailable
from edge_client.network.retry import Backoff
from edge_client.network.transport import Transport
from edge_client.state.folder import Identity, StateFolder
from wire.run import RunInfo


@dataclass(frozen=True, slots=True)
class FetchedVersions:
    """Adapter files by version, with the run that they belong to and the folder of its base."""

    run: RunInfo
    base_folder: Path
    paths: Mapping[int, Path]


@contextmanager
def fetched_versions(
    state: StateFolder, versions: Sequence[int], model: str, console: Console
) -> Iterator[FetchedVersions]:
    """Whole adapters, fetched with the credential of the board that `state` is the folder of, and removed afterwards.

    `model` names the base, "" leaves the choice to us. Raises ConfigError where no board is enrolled there or the
    server does not keep a version, BaseModelError where the base is not the run's, UnreachableError where the server
    does not answer, RefusedError and RevokedError where it wants nothing of this board.
    """
    identity = state.read_identity()
    if identity is None or not identity.credential:
        raise ConfigError(
            f"version {versions[0]} is known to a server, and {state.path} belongs to no board that has joined one",
            "give the --state of a board that has, or the folder of an adapter that `aggregator export` wrote",
        )
    with disk_errors(state.path):  # on the board's own disk: /tmp is memory on many
        place = tempfile.TemporaryDirectory(prefix="versions-", dir=state.path)
    with place as folder:
        yield asyncio.run(_fetch(identity, state, model, versions, Path(folder), console))


async def _fetch(
    identity: Identity, state: StateFolder, model: str, versions: Sequence[int], folder: Path, console: Console
) -> FetchedVersions:
    def tell(error: Unavailable) -> None:
        console.notice(f"{error.message}; trying again", error.hint)

    async with Transport(
        identity.server, credential=identity.credential, fingerprint=identity.fingerprint
    ) as transport:
        api = Api(transport, partial(Backoff, attempts=FIRST_ATTEMPTS), on_failure=tell)
        transport.keeper = Renewal(api, state)
        run = await api.run()
        paths = {version: folder / f"{version}" for version in dict.fromkeys(versions)}
        for version, path in paths.items():
            try:
                await api.adapter(run, version, [0] * len(run.weights), path)
            except RequestError as error:
                raise ConfigError(
                    f"{identity.server} cannot give version {version}: {error.message}", error.hint
                ) from error
        return FetchedVersions(run, await find_base(model, run, api, state.path / "base", console), paths)
