"""Enrolment by a join token; proofs to boards that came by another address; renewal of credentials; leaving."""

from __future__ import annotations

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.app_keys import CERTIFICATES, GUARD, OPERATOR_HASH, RUN, STORE
from aggregator.http.callers import board_of
from aggregator.http.streaming import answer, read_message
from aggregator.run.tasks import run_info
from aggregator.store.join_tokens import TokenRefusedError
from aggregator.store.records import FleetFullError, RenewalError
from aggregator.store.secrets import new_secret, secret_hash
from wire.codec import check_protocol
from wire.messages import Enrol, Enrolled, Proof, Prove, Renew
from wire.proof import certificate_proof, server_proof

MAKE_ROOM = "Ask whoever runs the server: `aggregator device remove DIR DEVICE` takes out those that are gone for good."


async def enrol(request: web.Request) -> web.Response:
    """`POST /v1/devices`. The same `install_id` is the same device again, with a fresh credential; the old one ends."""
    message = await read_message(request, Enrol)
    check_protocol(message.protocol)
    guard = request.app[GUARD]
    guard.note(message.install_id)
    credential, token = new_secret(), secret_hash(message.token)
    run = request.app[RUN]
    try:
        device = await run.submissions.enrol(message.install_id, message.name, secret_hash(credential), token)
    except TokenRefusedError as error:
        guard.fail_login(request)
        raise CallError("unauthorised", error.message, error.hint) from error
    except FleetFullError as error:
        raise CallError("conflict", f"no room for another board: {error}", MAKE_ROOM) from error
    guard.vouch(request, device.device)
    await run.submissions.returned(run.boards[device.device])
    return answer(Enrolled(device=device.device, credential=credential, run=run_info(run)), run.boards[device.device])


async def prove(request: web.Request) -> web.Response:
    """`POST /v1/proofs`. Whoever asks learns nothing, not even whether there is such a device."""
    message = await read_message(request, Prove)
    check_protocol(message.protocol)
    device = request.app[STORE].device(message.device)
    key = device.credential if device is not None and not device.has_left else request.app[OPERATOR_HASH]
    fingerprint = request.app[CERTIFICATES].fingerprint
    certificate = certificate_proof(key, message.device, message.nonce, fingerprint) if fingerprint else None
    return answer(Proof(proof=server_proof(key, message.device, message.nonce), certificate=certificate))


async def renew(request: web.Request) -> web.Response:
    """`PUT /v1/credential`, for the board that calls. Repeated, it changes nothing."""
    board = board_of(request)
    message = await read_message(request, Renew, board)
    try:
        await request.app[RUN].submissions.offer_credential(board.device, message.credential)
    except RenewalError as error:
        raise CallError("conflict", str(error), "Go on with the credential in use.") from error
    return web.Response(status=204)


async def leave(request: web.Request) -> web.Response:
    """`DELETE /v1/device`, for the board that calls."""
    board = board_of(request)
    await request.app[RUN].submissions.leave(board.device)
    return web.Response(status=204)
