"""Enrolment: a board becomes a device of a server, once, with a token.

The id that it enrols under is on disk before the first request leaves, so that a repeated enrolment is the same device.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import msgspec

from edge_client.agent.outage import Outage
from edge_client.agent.settings import JoinSettings
from edge_client.errors import ConfigError
from edge_client.network.api import Api
from edge_client.network.errors import Unavailable, UntrustedError
from edge_client.network.retry import retry
from edge_client.state.folder import Identity, StateFolder, new_install_id
from wire.fields import Name
from wire.limits import MAX_NAME_CHARS, PROTOCOL_VERSION
from wire.messages import Enrol
from wire.run import RunInfo

FIRST_ATTEMPTS = 3
"""Tries of a first enrolment without --wait: a lost packet is no reason to send a person away."""


def prepare_identity(folder: StateFolder, settings: JoinSettings) -> Identity:
    """The identity on disk, made now where there is none. No request is sent.

    Raises ConfigError where the folder belongs to another server, or where a first enrolment lacks server or token,
    or has one that no server would take.
    """
    identity = folder.read_identity()
    if identity is not None and settings.server and identity.server != settings.server:
        if identity.credential:
            raise ConfigError(
                f"{folder.path} belongs to a device of {identity.server}",
                "use another --state folder, or `edge-client leave` first",
            )
        identity = msgspec.structs.replace(identity, server=settings.server)  # it never got through to the other one
    if identity is None:
        if not settings.server:
            raise ConfigError("no server is given", "pass --server URL as `aggregator serve` printed it")
        identity = Identity(server=settings.server, install_id=new_install_id())
    if not identity.credential and not settings.token:
        raise ConfigError(
            "a first enrolment needs a token", "pass --token (or BRAID_TOKEN) as `aggregator token create` printed it"
        )
    if not identity.credential:
        _require_sendable("--token", settings.token)
        _require_sendable("--name", settings.name)
    if settings.fingerprint:
        identity = msgspec.structs.replace(identity, fingerprint=settings.fingerprint)
    folder.write_identity(identity)
    return identity


def _require_sendable(flag: str, text: str) -> None:
    try:
        msgspec.convert(text, Name)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{flag} cannot be sent: 1 to {MAX_NAME_CHARS} characters are allowed, and no control characters",
            "check that it was copied whole, and nothing else with it",
        ) from error


async def enrol(
    api: Api, folder: StateFolder, identity: Identity, settings: JoinSettings, outage: Outage
) -> tuple[Identity, RunInfo]:
    """Enrol, and keep the credential before anything is done with it. Safe to repeat: the same id is the same device.

    Raises RefusedError (token, version), UntrustedError at once, and Unavailable after FIRST_ATTEMPTS; with --wait, it
    waits for the server instead.
    """
    message = Enrol(
        protocol=PROTOCOL_VERSION,
        token=settings.token,
        install_id=identity.install_id,
        name=settings.name,
        client_version=client_version(),
    )

    def on_failure(error: Unavailable) -> None:
        if isinstance(error, UntrustedError):
            raise error
        if settings.wait:
            outage.begin(error)

    backoff = api.new_backoff(attempts=None if settings.wait else FIRST_ATTEMPTS)
    enrolled = await retry(lambda: api.enrol(message), backoff, on_failure=on_failure)
    outage.end()
    identity = msgspec.structs.replace(identity, device=enrolled.device, credential=enrolled.credential)
    folder.write_identity(identity)
    return identity, enrolled.run


def client_version() -> str:
    """The installed distribution's version; "unknown" where the sources run uninstalled."""
    try:
        return version("braid-fl")
    except PackageNotFoundError:
        return "unknown"
