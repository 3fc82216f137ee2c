"""Who sent a request: a board by its credential, or the operator by the folder's token."""

from __future__ import annotations

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.app_keys import GUARD, OPERATOR_HASH, RUN, STORE
from aggregator.run.fleet import Board
from aggregator.run.identity.copies import former_credential, require_served
from aggregator.run.tasks import shut_out
from aggregator.store.records import ShutOutError
from aggregator.store.secrets import bearer, is_among, operator_secret, secret_hash
from wire.codec import MEDIA_TYPE, check_content_type
from wire.routes import SESSION, SESSION_PATTERN

OPERATOR = "the operator"
"""The caller who shows the operator's token. No device id has a space."""


def board_of(request: web.Request) -> Board:
    """The enrolled board that is calling; it counts as alive from now on.

    Raises CallError "unauthorised" for a credential that is not known, "revoked" for a device that was shut out, "busy"
    (429) for one call too many, and ProtocolVersionError where the caller accepts only another version's answers.
    """
    guard = request.app[GUARD]
    if "Authorization" not in request.headers:
        guard.need_patience(request)
        guard.charge_stranger(request)
        raise CallError(
            "unauthorised",
            "the request came without its credential",
            "A proxy that drops the header Authorization? docs/guide/proxy.md has settings that keep it.",
        )
    known_hash = credential_hash_of(request)
    guard.before_login(request, known_hash)
    device = request.app[STORE].device_of(known_hash) if known_hash else None
    if device is None:
        guard.fail_login(request)
        raise _unknown(request, known_hash)
    run = request.app[RUN]
    run.refresh(device)
    if device.revoked:
        guard.fail_login(request)
        raise shut_out(ShutOutError(device.device))
    guard.welcome(request, device.device, known_hash)
    accepted = request.headers.get("Accept", "")
    if accepted.startswith(MEDIA_TYPE):
        check_content_type(accepted)
    board = run.boards[device.device]
    board.seen_s = run.clock()
    board.requests += 1
    return board


def participant_of(request: web.Request) -> Board:
    """The board that is calling for its part in the run: of two clients that share an identity, one at a time.

    Raises CallError as `board_of`, and "copied" where a newer client of the same board is at work.
    """
    board = board_of(request)
    session = request.headers.get(SESSION, "")
    session = session if SESSION_PATTERN.fullmatch(session) else ""
    require_served(request.app[RUN], board, session, request.remote or "")
    return board


def credential_hash_of(request: web.Request) -> str:
    """The hash of the credential that a request carries; "" where it has none that could be one."""
    credential = bearer(request.headers.get("Authorization"))
    return secret_hash(credential) if credential else ""


def _unknown(request: web.Request, known_hash: str) -> CallError:
    """The answer to a credential that is not, or no more, a device's."""
    run = request.app[RUN]
    device = request.app[STORE].formerly_of(known_hash) if known_hash else None
    if device is not None and device.device in run.boards:
        return former_credential(run, run.boards[device.device], request.remote or "")
    return CallError(
        "unauthorised", "this credential is not known here", "Join again with a token: a board stays the same device."
    )


def require_operator(request: web.Request) -> None:
    """Raise CallError "unauthorised" unless the operator's token came, as a bearer or as a browser's password; "busy"
    (429) for one call too many, "bad_request" for a header that no browser writes."""
    guard, header = request.app[GUARD], request.headers.get("Authorization")
    secret = operator_secret(header) or ""
    guard.before_login(request, secret_hash(secret))
    if not is_among(secret, [request.app[OPERATOR_HASH]]):
        if header is None:  # a browser's first request has none
            guard.need_patience(request)
            guard.charge_stranger(request)
        else:
            guard.fail_login(request)
            if not header.isascii():
                raise CallError("bad_request", "no name and no password is sent in bytes beyond ASCII")
        raise CallError(
            "unauthorised",
            "the operator's token is needed",
            "It is in the server's folder, operator.token; browsers send it as password, any user name.",
            headers={"WWW-Authenticate": 'Basic realm="braid", charset="UTF-8"'},
        )
    guard.welcome(request, OPERATOR, secret_hash(secret))
