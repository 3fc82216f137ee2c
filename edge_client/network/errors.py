"""Errors of talking to the server, as types: try again, drop this piece of work, or stop.

`network/translate.py` makes them of what aiohttp, ssl and the operating system raise, `network/answers.py` of answers.
"""

from __future__ import annotations

from edge_client.errors import ClientError, ExitCode, RefusedError, UnreachableError


class Unavailable(UnreachableError):
    """No usable answer; trying again later may help. `retry_after_s`: the pause that the server asked for."""

    def __init__(self, message: str, hint: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message, hint)
        self.retry_after_s = retry_after_s


class TryAgain(Unavailable):
    """No outage: what server and board know each other by was found anew, and the same call will do at once."""


class CopiedError(Unavailable):
    """409: another client is at work with a copy of this board's identity. This one may go on when that one stops."""


class ThrottledError(Unavailable):
    """429: the server is there, and asks for patience."""


class NotKnownError(Unavailable):
    """401 to an enrolled board: its server has lost it, as one that was set up anew, or is another one."""


class MisconfiguredError(Unavailable):
    """Somebody answers, and a person has to change a setting. An enrolled board keeps trying, a new one stops."""

    exit_code = ExitCode.CONFIG


class UntrustedError(MisconfiguredError):
    """Somebody answers, but cannot show that it is our server."""


class ClockError(UntrustedError):
    """The board's clock lies before the server's certificate: one without a battery begins in 1970, until the network
    has set it."""


class OtherCertificateError(UntrustedError):
    """The certificate is not the pinned one. `fingerprint`: the one that came, 64 hexadecimal digits."""

    def __init__(self, message: str, hint: str = "", fingerprint: str = "") -> None:
        super().__init__(message, hint)
        self.fingerprint = fingerprint


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


class UnknownCredentialError(RefusedError):
    """401: the server knows no such token, or no such credential."""


class ProxyLimitError(RefusedError):
    """A proxy on the way takes no body of this size: each repetition would train for nothing."""
