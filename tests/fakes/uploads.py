"""Uploads to a server that runs inside the test, without HTTP."""

from __future__ import annotations

import hashlib

from aggregator.run.setup import Opened
from wire.messages import Receipt


async def submitted(opened: Opened, device: str, round_id: int, body: bytes) -> Receipt:
    """The judgement on an upload that is sent from where the server is; everything that is due after it is done."""
    digest = hashlib.sha256(body).hexdigest()
    submissions = opened.run.submissions
    if not submissions.received(device, round_id, digest):
        offset = opened.uploads.size(device, round_id, digest)
        part = opened.uploads.take(device, round_id, digest, offset)
        part.append(body[offset:])
        await submissions.receive(device, round_id, digest, part)
        part.release()
    await opened.run.step()
    receipt = await submissions.receipt(device, round_id, digest, 0.0)
    assert receipt is not None, "it was not judged"
    return receipt
