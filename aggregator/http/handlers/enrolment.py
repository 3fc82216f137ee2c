"""Enrolment: a join token against a device's credential."""

from __future__ import annotations

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.app_keys import RUN, STORE
from aggregator.http.streaming import answer, read_message
from aggregator.run.tasks import run_info
from aggregator.store.records import FleetFullError
from aggregator.store.secrets import is_among, new_secret, secret_hash
from wire.codec import check_protocol
from wire.messages import Enrol, Enrolled


async def enrol(request: web.Request) -> web.Response:
    """`POST /v1/devices`. The same `install_id` is the same device again, with a fresh credential; the old one ends."""
    message = await read_message(request, Enrol)
    check_protocol(message.protocol)
    tokens = request.app[STORE].tokens()
    if not is_among(message.token, [token.hash for token in tokens if not token.revoked]):
        raise CallError("unauthorised", "this join token is not valid", "Ask for a new one: `aggregator token create`.")
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
