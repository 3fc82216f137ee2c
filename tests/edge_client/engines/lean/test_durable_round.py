"""A training round whose disk fails, whose power goes, or whose text is replaced: what was trained is not lost, and no
update is made of two texts."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from braid_common import atomic_file
from edge_client.engines.contract import Host, Stopped
from edge_client.engines.lean.engine import LeanEngine
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.tensor_file import load_tensors
from edge_client.engines.lean.train import train
from edge_client.errors import DataError, DiskError
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import DATA_FACTS, Job, Progress
from tests.fakes.engine.stopped_training import StepClock, stop_after
from tests.fakes.plans import with_mode
from tests.fakes.power_cut import Recording

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]


class FullDisk:
    """Whole-file writes whose names end with `name` fail with ENOSPC from the `first` on, `times` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, first: int, times: int) -> None:
        self.n_writes, self.fired = 0, 0
        original = atomic_file.write_atomically

        def write(path: Path, data: Any) -> None:
            if path.name.endswith(name):
                self.n_writes += 1
                if first <= self.n_writes < first + times:
                    self.fired += 1
                    raise OSError(errno.ENOSPC, "No space left on device")
            original(path, data)

        for module in ("tensor_file", "messages"):
            monkeypatch.setattr(f"edge_client.engines.lean.{module}.write_atomically", write)


def whole_result(job: Job) -> bytes:
    """What the job writes when nothing goes wrong; nothing of it stays."""
    train(msgspec.structs.replace(job, training_state_path="", residual_path=""), Session())
    data = Path(job.result_path).read_bytes()
    Path(job.result_path).unlink()
    return data


def heard() -> tuple[Session, list[Progress]]:
    seen: list[Progress] = []
    return Session(Host(seen.append, StepClock())), seen


def test_a_round_that_cannot_be_saved_goes_on(make_job: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up behind the first save: the same bytes come out, and progress says what is wrong until there is
    space."""
    job = make_job(training_state_path=str(tmp_path / "place"))
    whole = whole_result(job)
    disk = FullDisk(monkeypatch, "place", first=2, times=2)
    session, seen = heard()

    train(job, session)

    assert disk.fired == 2 and Path(job.result_path).read_bytes() == whole
    unsaved = [progress.unsaved for progress in seen if progress.phase == "train"]
    assert any("no space left" in text for text in unsaved) and session.unsaved == ""


def test_a_round_is_not_begun_that_cannot_be_saved(
    make_job: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first save is the trial: else each try would train all the steps and lose them."""
    disk = FullDisk(monkeypatch, "place", first=1, times=1)
    session, seen = heard()

    with pytest.raises(DiskError, match="no space left"):
        train(make_job(training_state_path=str(tmp_path / "place")), session)

    assert disk.fired == 1 and not any(progress.phase == "train" for progress in seen)


def test_a_result_without_room_costs_no_step(make_job: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps are done and saved, the result does not fit: the next try writes it without a step."""
    job = make_job(training_state_path=str(tmp_path / "place"))
    whole = whole_result(job)
    disk = FullDisk(monkeypatch, "result", first=1, times=1)
    with pytest.raises(DiskError):
        train(job, Session())
    session, seen = heard()

    train(job, session)

    assert disk.fired == 1 and Path(job.result_path).read_bytes() == whole
    assert [progress.step for progress in seen if progress.phase == "train"] == [4]


def test_an_encoder_cache_without_room_costs_time_alone(
    make_job: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No output can be kept: the encoder runs again where it is needed, and the update is the same."""
    job = make_job(settings={"scope": "decoder"}, cache_path=str(tmp_path / "cache"), cache_limit_bytes=1 << 30)
    job = msgspec.structs.replace(job, plan=with_mode(job.plan, cache="bf16", frozen_encoder=True))
    fired = []

    def full(*_: Any) -> None:
        fired.append("put")
        raise DiskError("no space left for the cache")

    monkeypatch.setattr("edge_client.engines.lean.encoder_cache.store.EncoderCache.put", full)
    session, seen = heard()

    values = train(job, session)

    assert len(fired) > 10 and values["loss"] > 0 and Path(job.result_path).exists()
    assert any("no space left" in progress.unsaved for progress in seen)


def test_power_cuts_in_a_round(make_job: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every operation of a round and in all four ways nothing is half; from any of them the round is finished with
    the same bytes, and the residual added once."""
    place = tmp_path / "state"
    place.mkdir()
    job = make_job(
        settings={"upload": "int8"},
        training_state_path=str(place / "training_state"),
        residual_path=str(place / "residual"),
        result_path=str(place / "result"),
    )
    with Recording(place, monkeypatch) as recording:
        train(job, Session(Host(clock=StepClock())))
    whole, residual = Path(job.result_path).read_bytes(), (place / "residual").read_bytes()
    assert len(recording.cuts) > 30 and recording.n_lost > 20
    assert not [f"{cut}: {cut.torn}" for cut in recording.cuts if cut.torn]

    for i, cut in enumerate(recording.cuts[:: max(1, len(recording.cuts) // 8)]):
        after = cut.write_to(tmp_path / f"cut-{i}")
        (
            again := msgspec.structs.replace(
                job,
                training_state_path=str(after / "training_state"),
                residual_path=str(after / "residual"),
                result_path=str(after / "result"),
            )
        )
        if "result" not in cut.tree:  # else the network side sends it
            train(again, Session(Host(clock=StepClock())))
        assert (after / "result").read_bytes() == whole, str(cut)
        assert (after / "residual").read_bytes() == residual, str(cut)


def test_no_flipped_bit_of_a_saved_training_is_trained_on(make_job: Jobs, tmp_path: Path) -> None:
    """Wherever it is in the file: the training counts as lost, which the round says, and begins again."""
    path = tmp_path / "place"
    job = make_job(training_state_path=str(path))
    whole = whole_result(job)
    with pytest.raises(Stopped):
        train(job, Session(stop_after(2)))
    sound = path.read_bytes()
    key = json.loads(sound[8 : 8 + int.from_bytes(sound[:8], "little")])["__metadata__"]["key"]
    assert load_tensors(path, key) is not None

    for place in range(0, len(sound), max(1, len(sound) // 97)):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        assert load_tensors(path, key) is None, place

    values = train(job, Session())
    assert values["training_lost"] == 1.0 and Path(job.result_path).read_bytes() == whole


# --- the board's text ---------------------------------------------------------------------------------------------


def rows(path: Path, first: int, n: int = 40) -> None:
    """Replace the data by examples whose words begin at `first`."""
    lines = [
        json.dumps(
            {"source": f"w{(first + i) % 90} w{(first + 3 * i) % 90} w{i % 50}", "target": f"w{(i + first) % 90}"}
        )
        for i in range(n)
    ]
    fresh = path.with_name("fresh")
    fresh.write_text("\n".join(lines))
    fresh.replace(path)


@pytest.mark.parametrize("cache", ["none", "bf16"])
def test_data_that_is_replaced_is_followed_by_the_next_job(make_job: Jobs, tmp_path: Path, cache: str) -> None:
    """A round that is under way reads the text that it began with, to its end; the next one reads the new text alone,
    encoder outputs included: as a worker does that has never seen the old one."""
    data = tmp_path / "own.jsonl"
    rows(data, 0)
    job = make_job(data=DataSpec(str(data)), cache_path=str(tmp_path / "cache"), cache_limit_bytes=1 << 30)
    if cache != "none":
        job = make_job(
            data=DataSpec(str(data)),
            settings={"scope": "decoder"},
            cache_path=str(tmp_path / "cache"),
            cache_limit_bytes=1 << 30,
        )
        job = msgspec.structs.replace(job, plan=with_mode(job.plan, cache=cache, frozen_encoder=True))
    undisturbed = LeanEngine(Session()).run(job)
    old = Path(job.result_path).read_bytes()
    replaced = []

    def replace_once(progress: Progress) -> None:
        if progress.phase == "train" and progress.step == 2 and not replaced:
            replaced.append(progress.step)
            rows(data, 7, n=30)

    engine = LeanEngine(Session(Host(replace_once, StepClock())))
    first = engine.run(job)
    assert replaced == [2] and Path(job.result_path).read_bytes() == old
    assert {name: first[name] for name in DATA_FACTS} == {name: undisturbed[name] for name in DATA_FACTS}

    second = engine.run(job)

    new = Path(job.result_path).read_bytes()
    assert new != old and second["n_train"] + second["n_held_out"] == 30
    assert second["data_crc32"] != first["data_crc32"]
    fresh = msgspec.structs.replace(job, cache_path=str(tmp_path / "another cache"))
    LeanEngine(Session()).run(fresh)
    assert Path(job.result_path).read_bytes() == new


def test_a_saved_training_of_another_text_is_not_gone_on_with(make_job: Jobs, tmp_path: Path) -> None:
    """The power goes in mid-round, and the text is another one when it is back: the round says so and begins again."""
    data = tmp_path / "own.jsonl"
    rows(data, 0)
    job = make_job(data=DataSpec(str(data)), training_state_path=str(tmp_path / "place"))
    with pytest.raises(Stopped):
        train(job, Session(stop_after(2)))
    rows(data, 7)

    session, seen = heard()
    values = train(job, session)

    assert values["training_lost"] == 1.0
    assert [progress.step for progress in seen if progress.phase == "train"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("fault", ["removed", "cut off", "a folder", "empty"])
def test_data_that_is_gone_ends_the_job_with_a_sentence(make_job: Jobs, tmp_path: Path, fault: str) -> None:
    """The worker has it in memory, and does not train on what is not there any more; back again, it goes on."""
    data = tmp_path / "own.jsonl"
    rows(data, 0)
    job = make_job(data=DataSpec(str(data)))
    engine = LeanEngine(Session())
    engine.run(job)
    old = Path(job.result_path).read_bytes()
    whole = data.read_bytes()
    data.unlink()
    if fault == "cut off":
        data.write_bytes(whole[:10])
    elif fault == "a folder":
        data.mkdir()
    elif fault == "empty":
        data.touch()

    with pytest.raises(DataError):
        engine.run(job)

    if data.is_dir():
        data.rmdir()
    data.write_bytes(whole)
    engine.run(job)
    assert Path(job.result_path).read_bytes() == old
