"""Errors of talking to the server, as types: try again, drop this piece of work, or stop.

aiohttp's, ssl's and the operating system's exceptions are translated here and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import ssl

import aiohttp

from edge_client.errors import ClientError, ExitCode, RefusedError, UnreachableError

_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL's x509_vfy.h
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED


class Unavailable(UnreachableError):
    """No usable answer; trying again later may help. `retry_after_s`: the pause that the server asked for."""

    def __init__(self, message: str, hint: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message, hint)
        self.retry_after_s = retry_after_s


class UntrustedError(Unavailable):
    """Somebody answers, but cannot show that it is our server. An enrolled board keeps trying, a new one stops."""

    exit_code = ExitCode.CONFIG


class GoneError(ClientError):
    """The round has closed, or what we asked for is no longer there: drop the work, go on."""


class ConflictError(ClientError):
    """409. `offset`: where the server wants an upload to go on; None where it holds another update of this round."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class RequestError(RefusedError):
    """400, 404, 413, 416: the server took the request apart and will not have it. Repeating it cannot help."""

    def __init__(self, message: str, hint: str = "", status: int = 400) -> None:
        super().__init__(message, hint)
        self.status = status


def translate(error: BaseException, url: str) -> Unavailable:
    """The Unavailable that stands for a failed connection or a broken answer."""
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return UntrustedError(
            f"the certificate of {url} has the fingerprint {error.got.hex()}, not the one given",
            "compare with the fingerprint that `aggregator serve` printed, then pass that one with --fingerprint",
        )
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _certificate_error(error.certificate_error, url)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unavailable(f"no address is known for {url}", "check the name in --server and the board's DNS")
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return UntrustedError(f"{url} does not speak TLS", "check --server: is it http:// instead of https://?")
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = (
            os.strerror(error.errno).lower() if error.errno else str(error)
        )  # aiohttp's own text repeats the address
        return Unavailable(
            f"{url} cannot be reached: {reason}", "check that `aggregator serve` runs there, on that port"
        )
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return Unavailable(f"{url} did not answer in time", "check the network between the board and the server")
    return Unavailable(f"the connection to {url} broke: {error or type(error).__name__}", "check the network")


def _certificate_error(error: Exception, url: str) -> UntrustedError:
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else None
    if code == _NOT_YET_VALID:
        return UntrustedError(
            f"this board's clock is wrong: the certificate of {url} lies in its future",
            "set the clock (timedatectl set-ntp true), or pass --fingerprint, which needs no clock",
        )
    if code == _EXPIRED:
        return UntrustedError(
            f"the certificate of {url} has expired, or this board's clock is ahead",
            "check `date`; renew the server's certificate, or pass the --fingerprint that `aggregator serve` printed",
        )
    return UntrustedError(
        f"the certificate of {url} is signed by nobody this board trusts",
        "pass --fingerprint with the value that `aggregator serve` printed",
    )
