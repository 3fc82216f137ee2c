"""Enrolment: a join token against a device's credential; proofs to boards that came by another address; leaving."""

from __future__ import annotations

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.app_keys import GUARD, OPERATOR_HASH, RUN, STORE
from aggregator.http.callers import board_of
from aggregator.http.streaming import answer, read_message
from aggregator.run.tasks import run_info
from aggregator.store.records import FleetFullError
from aggregator.store.secrets import is_among, new_secret, secret_hash
from wire.codec import check_protocol
from wire.messages import Enrol, Enrolled, Proof, Prove
from wire.proof import server_proof


async def enrol(request: web.Request) -> web.Response:
    """`POST /v1/devices`. The same `install_id` is the same device again, with a fresh credential; the old one ends."""
    message = await read_message(request, Enrol)
    check_protocol(message.protocol)
    tokens = request.app[STORE].tokens()
    if not is_among(message.token, [token.hash for token in tokens if not token.revoked]):
        request.app[GUARD].fail_login(request)
        raise CallError("unauthorised", "this join token is not valid", "Ask for a new one: `aggregator token create`.")
    request.app[GUARD].note(message.install_id)
    credential = new_secret()
    run = request.app[RUN]
    try:
        device = await run.submissions.enrol(message.install_id, message.name, secret_hash(credential))
    except FleetFullError as error:
        raise CallError("conflict", f"no room for another board: {error}", "Ask whoever runs the server.") from error
    if device.revoked:
        raise CallError("revoked", f"device {device.device} was revoked", "Ask whoever runs the server.")
    await run.submissions.returned(run.boards[device.device])
    return answer(Enrolled(device=device.device, credential=credential, run=run_info(run)), run.boards[device.device])


async def prove(request: web.Request) -> web.Response:
    """`POST /v1/proofs`. Whoever asks learns nothing, not even whether there is such a device."""
    message = await read_message(request, Prove)
    check_protocol(message.protocol)
    device = request.app[STORE].device(message.device)
    key = device.credential if device is not None and not device.has_left else request.app[OPERATOR_HASH]
    return answer(Proof(proof=server_proof(key, message.device, message.nonce)))


async def leave(request: web.Request) -> web.Response:
    """`DELETE /v1/device`, for the board that calls."""
    board = board_of(request)
    await request.app[RUN].submissions.leave(board.device)
    return web.Response(status=204)
