"""The operator's request for a running server's status, from the same machine or another. Needs no HTTP library."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aggregator.errors import ConfigError, OperatorRefusedError, StateError, UnreachableError
from aggregator.store.folder import Folder
from braid_common.fingerprint import parse_fingerprint
from braid_common.loopback import is_plain_to_others
from wire import routes

TIMEOUT_S = 10.0

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A status has about 1 kB per board."""


@dataclass(frozen=True, slots=True)
class Address:
    """The URL of a running server, with what is needed to be let in."""

    url: str
    token: str
    fingerprint: str = ""


def address_of(target: str, token: str, fingerprint: str) -> Address:
    """The server that TARGET names: a URL with the given token, or a folder whose server runs on this machine."""
    if target.startswith(("http://", "https://")):
        if not token:
            raise ConfigError(
                "A server's status needs the operator's token.", "Pass --token or set BRAID_OPERATOR_TOKEN."
            )
        return Address(target, token, fingerprint)
    folder = Folder(Path(target))
    folder.need()
    try:
        facts = json.loads(folder.address.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnreachableError(f"No server runs on {target}.", f"Start it with `aggregator serve {target}`.") from error
    except (OSError, ValueError) as error:
        raise StateError(f"{folder.address} cannot be read: {error}", "Start the server again.") from error
    return Address(facts["url"], token or folder.secret(folder.operator_token), facts["fingerprint"])


def plain_warning(address: Address) -> str:
    """A sentence where everybody on the way can read the operator's token; "" elsewhere."""
    if not is_plain_to_others(address.url):
        return ""
    return f"{address.url} is plain HTTP: everybody on the way can read the operator's token. Use https://."


def fetch_status(address: Address) -> dict[str, Any]:
    """`GET /v1/status`. Raises ConfigError, UnreachableError, OperatorRefusedError."""
    connection, prefix = _connection(address)
    try:
        connection.connect()
        _check_fingerprint(connection, address.fingerprint)
        connection.request("GET", prefix + routes.STATUS.path, headers={"Authorization": f"Bearer {address.token}"})
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES)
        if response.status == 401:
            raise OperatorRefusedError(
                f"{address.url} refuses this token.", "The operator's token is in the server's folder, operator.token."
            )
        facts = json.loads(body) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f"{address.url} does not answer as an aggregator: {error}", _advice(error)) from error
    finally:
        connection.close()
    if not isinstance(facts, dict):
        raise UnreachableError(
            f"{address.url} answered {response.status}.",
            "Is it an aggregator? Behind a proxy, give its prefix as well.",
        )
    return facts


def _connection(address: Address) -> tuple[http.client.HTTPConnection, str]:
    """A connection that is not open yet, and the path below which the server is. Raises ConfigError."""
    try:
        parts = urlsplit(address.url)
        host, port = (parts.hostname or "").replace("%25", "%"), parts.port  # RFC 6874 writes an interface so
        pin = parse_fingerprint(address.fingerprint) if address.fingerprint else b""
    except ValueError as error:
        raise ConfigError(f"The server cannot be asked: {error}.", "Check the address and --fingerprint.") from error
    prefix = parts.path.rstrip("/")
    if parts.scheme == "http":
        if pin:
            raise ConfigError(f"{address.url} has no certificate to compare.", "Write https://, or no --fingerprint.")
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S), prefix
    context = ssl.create_default_context()
    if pin:  # pinned instead of signed: checked before anything is sent
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context), prefix


def _check_fingerprint(connection: http.client.HTTPConnection, fingerprint: str) -> None:
    """Raise ssl.SSLError unless the server's certificate is the pinned one."""
    if not fingerprint or not isinstance(connection.sock, ssl.SSLSocket):
        return
    digest = hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").digest()
    if not hmac.compare_digest(digest, parse_fingerprint(fingerprint)):
        raise ssl.SSLError(f"its certificate has the fingerprint {digest.hex()}, not the one given")


def _advice(error: Exception) -> str:
    """The hint for a failed request."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "Give --fingerprint as `aggregator serve` printed it, or the name that the certificate was made for."
    if isinstance(error, ssl.SSLError):
        return "Check address and fingerprint; a server without TLS has an address with http://."
    if isinstance(error, http.client.RemoteDisconnected):
        return "A server with TLS has an address with https://."
    return "Is it running? Check address and fingerprint."
