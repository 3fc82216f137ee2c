"""Honest boards: they enrol, poll, and time what they get."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np

from benchmarks.load.times import Times
from wire import routes
from wire.checks import basis_rank
from wire.codec import CONTENT_TYPE, decode, encode
from wire.limits import PROTOCOL_VERSION
from wire.messages import Enrol, Enrolled, NamedTensor, Profile, Receipt
from wire.routes import UPLOAD_DIGEST, UPLOAD_LENGTH, UPLOAD_OFFSET
from wire.run import RunInfo
from wire.tensors import pack

POLL_EVERY_S = 0.1
FRESH_EVERY_S = 0.25
TIMEOUT_S = 30.0
"""The client's own limit on an answer."""


@dataclass(slots=True)
class Seen:
    """Times of honest boards: of polls on connections that stay open, and of calls on new ones; and from when to when
    (monotonic seconds) they called."""

    polls: Times = field(default_factory=Times)
    fresh: Times = field(default_factory=Times)
    began_s: float = field(default_factory=time.monotonic)
    ended_s: float = math.inf


async def enrol(url: str, token: str, number: int) -> Enrolled:
    """A new board."""
    message = Enrol(
        protocol=PROTOCOL_VERSION,
        token=token,
        install_id=f"{number:032x}",
        name=f"board-{number}",
        client_version="load",
    )
    headers = {"Content-Type": CONTENT_TYPE}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + routes.ENROL.path, data=encode(message), headers=headers) as response,
    ):
        response.raise_for_status()
        return decode(await response.read(), Enrolled)


async def profile(url: str, enrolled: Enrolled) -> None:
    """Send sketches of random numbers, so that there is a first version."""
    await sent_whole(url, enrolled, routes.PROFILING, encode(sketches_of(enrolled.run)))


def sketches_of(run: RunInfo) -> Profile:
    """Sketches of random numbers."""
    drawn = np.random.default_rng(1)
    shapes = {weight.name: (basis_rank(weight, run.max_rank), weight.columns) for weight in run.weights}
    sketches = tuple(
        NamedTensor(name=name, tensor=pack(drawn.standard_normal(shape, np.float32), "bf16"))
        for name, shape in shapes.items()
    )
    return Profile(
        protocol=PROTOCOL_VERSION, run_id=run.run_id, manifest=run.manifest, n_examples=100, sketches=sketches
    )


async def sent_whole(url: str, enrolled: Enrolled, round_id: int, body: bytes) -> None:
    """Send an upload, and wait until it is accepted."""
    digest = hashlib.sha256(body).hexdigest()
    path = routes.UPLOAD.path.format(round=round_id)
    sent = {UPLOAD_DIGEST: digest, UPLOAD_LENGTH: str(len(body)), UPLOAD_OFFSET: "0", "Content-Type": CONTENT_TYPE}
    async with _session(enrolled.credential) as session:
        async with session.patch(url + path, data=body, headers=sent) as response:
            response.raise_for_status()
        status = 202
        while status == 202:
            async with session.get(f"{url}{path}?wait=25", headers={UPLOAD_DIGEST: digest}) as response:
                response.raise_for_status()
                status, answer = response.status, await response.read()
        receipt = decode(answer, Receipt)
        assert receipt.accepted, receipt.reason


async def poll(url: str, credentials: Sequence[str], seconds: float) -> Seen:
    """Poll with every board for so long."""
    seen = Seen()
    until = time.monotonic() + seconds
    await asyncio.gather(
        *(_poll(url, credential, seen.polls, until) for credential in credentials),
        _call_anew(url, credentials[0], seen.fresh, until),
    )
    seen.ended_s = time.monotonic()
    return seen


async def _poll(url: str, credential: str, times: Times, until: float) -> None:
    async with _session(credential) as session:
        while time.monotonic() < until:
            await _timed(session, f"{url}{routes.WORK.path}?wait=0", times)
            await asyncio.sleep(POLL_EVERY_S)


async def _call_anew(url: str, credential: str, times: Times, until: float) -> None:
    while time.monotonic() < until:
        async with _session(credential) as session:
            await _timed(session, url + routes.RUN.path, times)
        await asyncio.sleep(FRESH_EVERY_S)


def _session(credential: str) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {credential}"}, timeout=timeout)


async def _timed(session: aiohttp.ClientSession, url: str, times: Times) -> None:
    began = time.monotonic()
    try:
        async with session.get(url) as response:
            await response.read()
            response.raise_for_status()
    except (aiohttp.ClientError, asyncio.TimeoutError):
        times.errors += 1
    else:
        times.seconds.append(time.monotonic() - began)
