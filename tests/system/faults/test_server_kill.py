"""SIGKILL between any two steps of taking an update in, or of merging: nothing is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from aggregator.merge.contribution import SentVersion
from aggregator.merge.rules.braid import fold, merge
from aggregator.merge.state import AdapterState, encode_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from aggregator.run.admit import contribution_of
from aggregator.run.setup import Opened, open_run
from aggregator.store.folder import Folder
from aggregator.store.secrets import secret_hash
from tests.fakes.uploads import submitted
from wire.checks import basis_rank
from wire.codec import decode, encode
from wire.limits import VERSION_DIGEST_CHARS
from wire.messages import NamedTensor, Profile, Receipt, Update, UpdatePart
from wire.tensors import pack

pytestmark = pytest.mark.slow

BOARDS = ("d-ada", "d-bo")

DYING_SERVER = """
import asyncio, hashlib, os, signal, sys, time
from pathlib import Path
from aggregator.store.blobs import Blobs
from aggregator.store.folder import Folder
from aggregator.run.setup import open_run
from aggregator.store.store import Store

root, device, body, where, method = sys.argv[1:]
owner = {"adopt": Blobs, "put": Blobs}.get(method, Store)
whole = getattr(owner, method)

def dying(*arguments):
    if where == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    whole(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, method, dying)

async def main():
    opened = open_run(Folder(Path(root)), time.monotonic)
    data = Path(body).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    part = opened.uploads.take(device, 1, digest, opened.uploads.size(device, 1, digest))
    part.append(data)
    await opened.run.submissions.receive(device, 1, digest, part)
    await opened.run.step()

asyncio.run(main())
"""


@pytest.fixture
def folder(make_folder: Callable[..., Folder]) -> Folder:
    return make_folder({"merge.max_rank": 2, "merge.server_rank": 32, "train.targets": ["q"]})


@pytest.fixture
def opened(folder: Folder) -> Iterator[Opened]:
    """A run with two boards whose first round is open."""
    made = open_run(folder, time.monotonic)
    asyncio.run(_profile(made))
    yield made
    made.store.close()


async def _profile(opened: Opened) -> None:
    run = opened.run
    rng = np.random.default_rng(1)
    for number, device in enumerate(BOARDS):
        await run.submissions.enrol(f"{number:032x}", device, secret_hash(device))
    for device in BOARDS:
        sketches = tuple(
            NamedTensor(name=w.name, tensor=_random(rng, basis_rank(w, 2), w.columns)) for w in run.terms.weights
        )
        terms = run.terms
        message = Profile(
            protocol=1,
            run_id=terms.run_id,
            manifest=terms.manifest,
            n_examples=10,
            sketches=sketches,
            scores=(1.0,) * len(sketches),
        )
        assert (await submitted(opened, device, 0, encode(message))).accepted
    assert run.open_round is not None and run.open_round.round == 1


def _random(rng: np.random.Generator, rows: int, columns: int):  # type: ignore[no-untyped-def]
    return pack(rng.standard_normal((rows, columns)).astype(np.float32), "fp32")


def _update(opened: Opened, device: str) -> bytes:
    terms = opened.run.terms
    rng = np.random.default_rng([BOARDS.index(device), 3])
    parts = tuple(UpdatePart(name=w.name, b=_random(rng, w.rows, 2)) for w in terms.weights)
    message = Update(
        protocol=1,
        run_id=terms.run_id,
        round=1,
        version=1,
        version_digest=opened.store.versions()[1][:VERSION_DIGEST_CHARS],
        manifest=terms.manifest,
        n_examples=10,
        parts=parts,
    )
    return encode(message)


def _send(opened: Opened, device: str, body: bytes) -> Receipt:
    """What the board does after a lost answer: the same upload again."""
    digest = hashlib.sha256(body).hexdigest()

    async def send() -> Receipt:
        if not opened.run.submissions.received(device, 1, digest):
            if receipt := opened.run.submissions.receipt_of(device, 1, digest):
                await opened.run.step()
                return receipt
            opened.run.submissions.require_open(device, 1)
        return await submitted(opened, device, 1, body)

    return asyncio.run(send())


def _kill(folder: Folder, device: str, body: bytes, where: str, method: str) -> None:
    """Run a server that takes `body` in and dies at the given point; assert that it did."""
    path = folder.root.parent / "body"
    path.write_bytes(body)
    command = [sys.executable, "-c", DYING_SERVER, str(folder.root), device, str(path), where, method]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert finished.returncode == -signal.SIGKILL, finished.stderr


def _merged(opened: Opened) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {name: weight.frozen_b @ weight.frozen_a for name, weight in opened.run.state.weights.items()}


def _contribution(opened: Opened, body: bytes, sent: AdapterState) -> Contribution:
    """What a stored update adds to the open round, that of a board which was sent that version."""
    run = opened.run
    assert run.open_round is not None
    return contribution_of(decode(body, Update), SentVersion(run.terms.rule, sent, run.terms.download), run.open_round)


@pytest.fixture
def expected(tmp_path: Path, folder: Folder, opened: Opened) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """What both updates make of version 1 when nobody is killed: computed beside the store."""
    run, total = opened.run, None
    assert run.open_round is not None
    for device in BOARDS:
        total = fold(total, _contribution(opened, _update(opened, device), run.state))
    assert total is not None
    state = merge(run.state, total, MergeSettings(server_rank=32, max_rank=2))
    return {name: weight.frozen_b @ weight.frozen_a for name, weight in state.weights.items()}


@pytest.mark.parametrize(
    ("where", "method", "waiting", "kept"),
    [
        ("before", "adopt", 0, 0),
        ("before", "add_received", 0, 0),
        ("after", "add_received", 1, 0),
        ("before", "add_update", 1, 0),
        ("after", "add_update", 0, 1),
    ],
)
def test_an_update_survives_a_kill_at_any_step(
    folder: Folder,
    opened: Opened,
    expected: dict[str, np.ndarray],
    where: str,
    method: str,
    waiting: int,
    kept: int,  # type: ignore[type-arg]
) -> None:
    """Killed before the blob has its name, between blob and row, after the 202, or around the row of the judgement:
    what was on the disk is judged though nobody sends it again, the board sends again what was not, and the round
    merges exactly the two updates."""
    bodies = {device: _update(opened, device) for device in BOARDS}
    opened.store.close()

    _kill(folder, "d-ada", bodies["d-ada"], where, method)
    again = open_run(folder, time.monotonic)

    assert again.run.open_round is not None and again.run.open_round.accepted == kept
    assert len(again.run.inbox) == waiting
    asyncio.run(again.run.step())
    assert again.run.open_round.accepted == kept + waiting and not len(again.run.inbox)
    for device in BOARDS:
        assert _send(again, device, bodies[device]).accepted
    assert again.run.state.version == 2
    for name, value in _merged(again).items():
        assert np.array_equal(value, expected[name])
    again.store.close()


@pytest.mark.parametrize(("where", "merged"), [("before", False), ("after", True)])
def test_a_merge_survives_a_kill(
    folder: Folder,
    opened: Opened,
    expected: dict[str, np.ndarray],
    where: str,
    merged: bool,  # type: ignore[type-arg]
) -> None:
    """Killed before or after the row that closes the round: it is merged once, with the same result."""
    bodies = {device: _update(opened, device) for device in BOARDS}
    assert _send(opened, "d-ada", bodies["d-ada"]).accepted
    opened.store.close()

    _kill(folder, "d-bo", bodies["d-bo"], where, "merge_round")
    again = open_run(folder, time.monotonic)

    assert (again.run.state.version == 2) is merged
    asyncio.run(again.run.step())
    assert again.run.state.version == 2 and again.run.open_round is not None and again.run.open_round.round == 2
    for name, value in _merged(again).items():
        assert np.array_equal(value, expected[name])
    stored = {path.name for path in folder.blobs.iterdir()}
    assert stored == set(again.store.live_digests())
    again.store.close()


@pytest.mark.parametrize(("where", "kept"), [("before", False), ("after", True)])
def test_a_late_update_survives_a_kill(make_folder: Callable[..., Folder], where: str, kept: bool) -> None:
    """An update of round 1 that comes while round 2 is open, and a kill before or after its row is written: it counts
    once, in round 2, against the version that it was trained on."""
    settings = {"rounds.mode": "asynchronous", "rounds.quorum": 1, "merge.max_rank": 2, "train.targets": ["q"]}
    folder = make_folder({**settings, "run.rounds": 3, "merge.server_rank": 32})
    opened = open_run(folder, time.monotonic)
    asyncio.run(_profile(opened))
    run, first = opened.run, opened.run.state
    assert _send(opened, "d-bo", _update(opened, "d-bo")).accepted and run.state.version == 2
    body = _update(opened, "d-ada")
    assert run.open_round is not None
    total = fold(None, _contribution(opened, body, first))
    expected = merge(run.state, total, MergeSettings(server_rank=32, max_rank=2))
    opened.store.close()

    _kill(folder, "d-ada", body, where, "add_update")
    again = open_run(folder, time.monotonic)

    assert again.run.open_round is not None and again.run.open_round.round == 2
    assert (again.run.open_round.accepted, again.run.open_round.stale) == (int(kept), int(kept))
    assert _send(again, "d-ada", body).accepted
    assert again.run.state.version == 3 and encode_state(again.run.state) == encode_state(expected)
    again.store.close()
