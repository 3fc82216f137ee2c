"""Disks that are full, sums that cannot be merged, boards too few: the run says so and goes on."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from aggregator.errors import DiskError
from aggregator.http.app import make_app
from aggregator.run.setup import Opened, open_run
from aggregator.run.tasks import time_left_s
from aggregator.store.folder import Folder
from aggregator.store.secrets import secret_hash
from aggregator.store.uploads import Part
from tests.fakes.clock import FakeClock
from tests.fakes.uploads import submitted
from wire.codec import CONTENT_TYPE, decode, encode
from wire.messages import NamedTensor, Profile, Receipt, Refusal, Tensor, Update, UpdatePart


@pytest.fixture
def opened(make_folder: Callable[..., Folder], clock: FakeClock) -> Iterator[Opened]:
    """A run of one round that one board alone can carry."""
    settings = {
        "run.rounds": 1,
        "merge.max_rank": 2,
        "rounds.min_devices": 1,
        "rounds.quorum": 1,
        "rounds.deadline_s": 100.0,
        "rounds.profile_deadline_s": 100.0,
        "train.targets": ["q"],
    }
    made = open_run(make_folder(settings), clock)
    yield made
    made.store.close()


def profile_of(opened: Opened) -> bytes:
    terms = opened.run.terms
    sketches = tuple(
        NamedTensor(name=w.name, tensor=Tensor(dtype="bf16", shape=(2, w.columns), data=b"\x80\x3f" * 2 * w.columns))
        for w in terms.weights
    )
    scores = (1.0,) * len(sketches)
    return encode(
        Profile(
            protocol=1, run_id=terms.run_id, manifest=terms.manifest, n_examples=1, sketches=sketches, scores=scores
        )
    )


def update_of(opened: Opened) -> bytes:
    """What a board could have trained in the open round: every value 2⁻⁷."""
    run = opened.run
    assert run.open_round is not None
    spec, terms = run.open_round.spec, run.terms
    parts = tuple(
        UpdatePart(name=w.name, b=Tensor(dtype="bf16", shape=(w.rows, 1), data=b"\x00\x3c" * w.rows))
        for w in terms.weights
    )
    fields = {"round": spec.round, "version": spec.version, "version_digest": spec.version_digest}
    run_id, manifest = terms.run_id, terms.manifest
    return encode(Update(protocol=1, run_id=run_id, manifest=manifest, n_examples=1, parts=parts, **fields))


async def post_profile(opened: Opened) -> tuple[int, dict[str, str], bytes]:
    """Enrol a board and send its profile over HTTP, and wait for the judgement."""
    await opened.run.submissions.enrol("1" * 32, "ada", secret_hash("credential"))
    app = make_app(opened, "0" * 64)
    body = profile_of(opened)
    headers = {
        "Authorization": "Bearer credential",
        "Content-Type": CONTENT_TYPE,
        "Upload-Digest": hashlib.sha256(body).hexdigest(),
        "Upload-Length": str(len(body)),
        "Upload-Offset": "0",
    }
    async with TestClient(TestServer(app)) as client:
        async with client.head("/v1/uploads/0", headers=headers) as response:
            headers["Upload-Offset"] = offset = response.headers["Upload-Offset"]
        async with client.patch("/v1/uploads/0", data=body[int(offset) :], headers=headers) as response:
            if response.status != 202:
                return response.status, dict(response.headers), await response.read()
        async with client.get("/v1/uploads/0?wait=30", headers=headers) as response:
            return response.status, dict(response.headers), await response.read()


@pytest.mark.parametrize("point", ["append", "adopt", "row"])
async def test_a_full_disk_is_told_and_damages_nothing(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """507 with Retry-After at each place that writes before an upload is answered; nothing is counted, and with space
    again the board goes on where it was."""
    fired: list[str] = []

    def full(*_: Any, **__: Any) -> None:
        fired.append(point)
        if point == "row":
            raise DiskError("The database cannot be used: database or disk is full")
        raise OSError(errno.ENOSPC, "No space left on device")

    owner: Any = {"append": Part, "adopt": opened.run.storage.blobs, "row": opened.store}[point]
    name = {"append": "append", "adopt": "adopt", "row": "add_received"}[point]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        status, headers, body = await post_profile(opened)
    assert fired and (status, decode(body, Refusal).code) == (507, "full") and int(headers["Retry-After"]) > 0
    assert opened.run.open_round is not None and opened.run.open_round.accepted == 0
    assert opened.store.profiles() == opened.store.received() == () and list(opened.folder.blobs.iterdir()) == []
    kept = sum(path.stat().st_size for path in opened.folder.uploads.iterdir())
    assert kept == (0 if point == "append" else len(profile_of(opened)))

    status, _, body = await post_profile(opened)

    assert status == 200 and decode(body, Receipt).accepted
    assert len(opened.store.profiles()) == 1


async def test_a_sum_that_cannot_be_merged_abandons_the_round(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version stays, the reason is written down, and the run goes on to its end."""
    await post_profile(opened)
    run = opened.run
    await run.step()
    assert run.open_round is not None and run.state.version == 1

    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("SVD did not converge")

    monkeypatch.setattr("aggregator.merge.rules.braid.merge", fails)
    await submitted(opened, "ada", 1, update_of(opened))

    assert run.state.version == 1 and run.run_state.value == "finished"
    row = opened.store.rounds()[0]
    assert row.state == "abandoned" and "SVD did not converge" in row.reason


async def test_too_few_boards_extend_the_deadline(opened: Opened, clock: FakeClock) -> None:
    """Profiling and rounds without a quorum are extended at their deadline, and people are told."""
    run = opened.run
    await run.submissions.enrol("1" * 32, "ada", secret_hash("credential"))
    clock.advance(101)
    await run.step()
    assert any("no board has profiled" in event for event in run.events)
    assert time_left_s(run) == 100

    await post_profile(opened)
    await run.step()
    clock.advance(101)
    await run.step()

    assert any("0 of 1 updates needed" in event for event in run.events)
    assert opened.store.rounds()[0].state == "extended"
    assert run.open_round is not None and run.open_round.round == 1


def test_a_restart_keeps_an_extended_round_open(opened: Opened, clock: FakeClock) -> None:
    """The restarted server is in the same round, with a whole deadline."""

    async def extend() -> None:
        await post_profile(opened)
        await opened.run.step()
        clock.advance(101)
        await opened.run.step()

    asyncio.run(extend())
    opened.store.close()

    again = open_run(opened.folder, clock)

    assert again.run.open_round is not None and again.run.open_round.round == 1
    assert again.run.open_round.state.value == "extended" and time_left_s(again.run) == 100
    again.store.close()
