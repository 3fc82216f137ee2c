"""Who sent a request: a board by its credential, or the operator by the folder's token."""

from __future__ import annotations

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.app_keys import OPERATOR_HASH, RUN, STORE
from aggregator.run.fleet import Board
from aggregator.store.secrets import bearer, is_among, operator_secret, secret_hash
from wire.codec import MEDIA_TYPE, check_content_type


def board_of(request: web.Request) -> Board:
    """The enrolled board that is calling; it counts as alive from now on.

    Raises CallError "unauthorised" for a credential that is not known, "revoked" for a device that was shut out, and
    ProtocolVersionError where the caller accepts only another version's answers.
    """
    accepted = request.headers.get("Accept", "")
    if accepted.startswith(MEDIA_TYPE):
        check_content_type(accepted)
    if "Authorization" not in request.headers:
        raise CallError(
            "unauthorised",
            "the request came without its credential",
            "A proxy that drops the header Authorization? docs/guide/proxy.md has settings that keep it.",
        )
    credential = bearer(request.headers.get("Authorization"))
    device = request.app[STORE].device_of(secret_hash(credential)) if credential else None
    if device is None:
        raise CallError(
            "unauthorised",
            "this credential is not known here",
            "Join again with a token: a board stays the same device.",
        )
    run = request.app[RUN]
    run.refresh(device)
    if device.revoked:
        raise CallError("revoked", f"device {device.device} was revoked", "Ask whoever runs the server.")
    board = run.boards[device.device]
    board.seen_s = run.clock()
    return board


def require_operator(request: web.Request) -> None:
    """Raise CallError "unauthorised" unless the operator's token came, as a bearer or as a browser's password."""
    secret = operator_secret(request.headers.get("Authorization"))
    if secret is None or not is_among(secret, [request.app[OPERATOR_HASH]]):
        raise CallError(
            "unauthorised",
            "the operator's token is needed",
            "It is in the server's folder, operator.token; browsers send it as password, any user name.",
            headers={"WWW-Authenticate": 'Basic realm="braid", charset="UTF-8"'},
        )
