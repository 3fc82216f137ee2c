"""Enrolment: a board becomes a device of a server, once, with a token.

The id that it enrols under is on disk before the first request leaves, so that a repeated enrolment is the same device.
A device follows its server to another address, without a token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import msgspec

from edge_client.agent.outage import Outage
from edge_client.agent.settings import JoinSettings
from edge_client.errors import ClientError, ConfigError
from edge_client.network.api import Api
from edge_client.network.errors import (
    ClockError,
    MisconfiguredError,
    OtherCertificateError,
    RequestError,
    ThrottledError,
    Unavailable,
    UntrustedError,
)
from edge_client.network.retry import retry
from edge_client.network.transport import Transport, parse_pin
from edge_client.state.folder import Identity, StateFolder, new_install_id
from wire.fields import Name
from wire.limits import MAX_NAME_CHARS, PROTOCOL_VERSION
from wire.messages import Enrol, Prove
from wire.proof import is_certificate_proof, is_proof, new_nonce
from wire.run import RunInfo

T = TypeVar("T")


class StrangerError(ConfigError):
    """The server at an address does not know this device, so it is none that the board has enrolled at."""


FIRST_ATTEMPTS = 3
"""Tries of a first enrolment without --wait: a lost packet is no reason to send a person away."""


def prepare_identity(folder: StateFolder, settings: JoinSettings) -> Identity:
    """The identity on disk, made now where there is none. No request is sent.

    A device's stays as it is, whatever the settings say: `follow` changes it once a server has shown who it is.
    Raises ConfigError where a first enrolment lacks server or token, or has one that no server would take.
    """
    identity = folder.read_identity()
    if settings.token:
        _require_sendable("--token", settings.token)
        _require_sendable("--name", settings.name)
    if identity is not None and identity.credential:
        return identity
    server = settings.server or (identity.server if identity is not None else "")
    if not server:
        raise ConfigError("no server is given", "pass --server URL as `aggregator serve` printed it")
    if not settings.token:
        raise ConfigError(
            "a first enrolment needs a token", "pass --token (or BRAID_TOKEN) as `aggregator token create` printed it"
        )
    install_id = identity.install_id if identity is not None else folder.former_install_id() or new_install_id()
    fingerprint = settings.fingerprint or (identity.fingerprint if identity is not None else "")
    identity = Identity(server=server, install_id=install_id, fingerprint=fingerprint, given_fingerprint=fingerprint)
    folder.write_identity(identity)
    return identity


def destination(identity: Identity, settings: JoinSettings) -> Identity:
    """The identity with the address and fingerprint that the settings name, where they name another one.

    A fingerprint that people gave once stays in edge-client.toml while the server's certificate is renewed: it does not
    name another one.
    """
    new = msgspec.structs.replace(identity, server=settings.server or identity.server)
    known = {parse_pin(pin) for pin in (identity.fingerprint, identity.given_fingerprint) if pin}
    if not settings.fingerprint or parse_pin(settings.fingerprint) in known:
        return new
    return msgspec.structs.replace(new, fingerprint=settings.fingerprint, given_fingerprint=settings.fingerprint)


async def follow(api: Api, folder: StateFolder, identity: Identity, settings: JoinSettings, outage: Outage) -> Identity:
    """Go with a device to the address or certificate that the settings name, if its server is there, and keep that.

    The server shows first that it knows this device (`wire/proof.py`); only then is the credential sent. A pinned
    certificate must be there besides, unless it is the kept one, and the server proves another to be its own or a known
    authority vouches for it. Raises StrangerError where somebody else is there, and as `enrol` where nobody is.
    """
    new = destination(identity, settings)
    where = f"{folder.path} belongs to a device of {identity.server}, and {new.server}"
    try:
        try:
            is_ours = await _prove(api, new, settings, outage)
        except OtherCertificateError as error:
            if new.fingerprint != identity.fingerprint:
                raise
            is_ours = await proves_certificate(new, error.fingerprint)
            if is_ours:
                new = msgspec.structs.replace(new, fingerprint=error.fingerprint)
                api.transport.trust(error.fingerprint)
            elif settings.fingerprint:
                raise
            else:
                new = msgspec.structs.replace(new, fingerprint="")
                api.transport.trust("")
                is_ours = await _prove_or(error, api, new, settings, outage)
    except Unavailable as error:
        raise type(error)(f"{where} has not shown that it is the same server: {error.message}", error.hint) from error
    if not is_ours:
        raise StrangerError(
            f"{where} is not that server: it does not know this device",
            "check --server; for another run use another --state folder, or `edge-client leave` first; of a server "
            "that was set up anew give both --fingerprint and a new --token",
        )
    outage.end()
    folder.write_identity(new)
    api.transport.credential = new.credential
    return new


async def _prove_or(
    mismatch: OtherCertificateError, api: Api, new: Identity, settings: JoinSettings, outage: Outage
) -> bool:
    """Whether the server knows this device; without a known authority's word for its certificate, the `mismatch`."""
    try:
        return await _prove(api, new, settings, outage)
    except UntrustedError:
        raise mismatch from None


async def proves_certificate(identity: Identity, fingerprint: str) -> bool:
    """Whether the server at the identity's address, which shows the certificate of this fingerprint, is the board's own
    and proves that the certificate is its own as well. The credential is not sent.

    Who merely relays the question has another certificate than the one that is proven, and fails (`wire/proof.py`).
    """
    question = Prove(protocol=PROTOCOL_VERSION, device=identity.device, nonce=new_nonce())
    try:
        async with Transport(identity.server, fingerprint=fingerprint) as transport:
            proof = (await Api(transport).prove(question)).certificate
    except ClientError:
        return False
    known = (question.device, question.nonce, fingerprint.lower())
    return proof is not None and any(is_certificate_proof(proof, each, *known) for each in identity.credentials)


async def _prove(api: Api, new: Identity, settings: JoinSettings, outage: Outage) -> bool:
    """Whether the server that `api` reaches knows this device."""
    question = Prove(protocol=PROTOCOL_VERSION, device=new.device, nonce=new_nonce())
    try:
        proof = await _first_answer(lambda: api.prove(question), api, settings, outage)
    except RequestError:  # an aggregator that takes no such question is none that has ever met this device
        return False
    return any(is_proof(proof.proof, known, new.device, question.nonce) for known in new.credentials)


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

    Raises RefusedError (token, version) and MisconfiguredError at once, and Unavailable after FIRST_ATTEMPTS; with
    --wait, it waits for the server instead, and for the network to set the board's clock.
    """
    message = Enrol(
        protocol=PROTOCOL_VERSION,
        token=settings.token,
        install_id=identity.install_id,
        name=settings.name,
        client_version=client_version(),
    )

    enrolled = await _first_answer(lambda: api.enrol(message), api, settings, outage)
    outage.end()
    fresh = {"credential": enrolled.credential, "next_credential": "", "former_credential": ""}
    identity = msgspec.structs.replace(identity, device=enrolled.device, **fresh)
    folder.write_identity(identity)
    return identity, enrolled.run


async def _first_answer(call: Callable[[], Awaitable[T]], api: Api, settings: JoinSettings, outage: Outage) -> T:
    """The answer of a server that has never answered at this address: after FIRST_ATTEMPTS a person is told, unless
    --wait was given. One that asks for patience is there."""
    backoff = api.new_backoff(attempts=None if settings.wait else FIRST_ATTEMPTS)

    def on_failure(error: Unavailable) -> None:
        if isinstance(error, MisconfiguredError) and not (settings.wait and isinstance(error, ClockError)):
            raise error
        if isinstance(error, ThrottledError):
            backoff.progressed()
        if settings.wait or isinstance(error, ThrottledError):
            outage.begin(error)

    return await retry(call, backoff, on_failure=on_failure)


def client_version() -> str:
    """The installed distribution's version; "unknown" where the sources run uninstalled."""
    try:
        return version("braid-fl")
    except PackageNotFoundError:
        return "unknown"
