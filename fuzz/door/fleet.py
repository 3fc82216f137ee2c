"""The fleet of a server under test: honest boards that have profiled, and the one whose credential inputs hold."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from aggregator.run.run import Run
from aggregator.run.setup import Opened, create, open_run, open_store
from aggregator.store.folder import Folder
from aggregator.store.records import Device, Received
from aggregator.store.secrets import secret_hash
from fuzz.door.template import TOKEN
from wire.checks import basis_rank
from wire.codec import encode
from wire.limits import PROTOCOL_VERSION
from wire.messages import NamedTensor, Profile
from wire.run import Weight
from wire.tensors import pack

RUN_ID = "fuzz"

HONEST = "the-credential-of-an-honest-board"
"""A secret that no input holds."""

SETTINGS = {
    "run.rounds": 3,
    "rounds.min_devices": 2,
    "rounds.quorum": 2,
    "merge.max_rank": 2,
    "merge.server_rank": 2,
    "merge.sketch_every": 1,
    "train.targets": ["q"],
    "train.importance": "sketch",
    "train.max_source_tokens": 64,
    "train.max_target_tokens": 16,
}
"""A run whose uploads have a kilobyte."""

MANY = 10**6
"""Boards that the token lets in: more than inputs."""

LIFE_S = 1e10
"""Seconds for which the token lets boards in, since the wall clock of inputs runs through centuries."""


class Clock:
    """Monotonic seconds that move with the inputs, and a wall clock that can be put on."""

    def __init__(self) -> None:
        self.now, self._since = 1000.0, 1.7e9

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._since + self.now

    def put_on(self, seconds: float) -> None:
        """Put the wall clock on, and only that."""
        self._since += seconds


def open_small_run(folder: Path, base: Path, clock: Clock) -> Opened:
    """A new run on a tiny base, with a token that inputs hold, and the same id on every machine."""
    create(folder, str(base), SETTINGS, force=False)
    place = Folder(folder)
    store = open_store(place)
    try:
        store.settle("run_id", RUN_ID)
        store.add_token(secret_hash(TOKEN), "fuzz", uses=MANY, life_s=LIFE_S)
    finally:
        store.close()
    return open_run(place, clock, clock.wall)


def profile(weights: tuple[Weight, ...], manifest: str, max_rank: int, seed: int) -> bytes:
    """The profile of an honest board."""
    rng = np.random.default_rng(seed)
    sketches = tuple(
        NamedTensor(name=w.name, tensor=pack(rng.standard_normal((basis_rank(w, max_rank), w.columns)), "bf16"))
        for w in weights
    )
    return encode(
        Profile(protocol=PROTOCOL_VERSION, run_id=RUN_ID, manifest=manifest, n_examples=10, sketches=sketches)
    )


async def enrol(run: Run, name: str, credential: str) -> Device:
    """A device of this name under this credential, whether or not it was one before."""
    return await run.submissions.enrol(secret_hash(name)[:32], name, secret_hash(credential))


async def forget(run: Run, device: str) -> None:
    """Take back what a board has sent for the open round, so that its next upload is judged as well."""
    open_round = run.open_round
    answer = None if open_round is None else open_round.answers.get(device)
    if open_round is not None and answer is not None:
        await asyncio.to_thread(run.storage.records.lose_answer, answer, open_round.round == 0, "forgotten")
        run.open_round = open_round.without({device})
    run.inbox.judged(Received(0, device, 0, "", 0))  # and what could not be read
