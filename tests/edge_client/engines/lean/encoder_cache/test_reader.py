from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from edge_client.engines.contract import Host, Stopped
from edge_client.engines.lean.encoder_cache import reader
from edge_client.engines.lean.evaluate import evaluate
from edge_client.engines.lean.profile import profile
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.jobs.messages import EvaluateJob, Job, Progress
from tests.fakes.plans import with_mode
from wire.codec import decode
from wire.messages import Profile, Update
from wire.tensors import unpack

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]
LIMIT_BYTES = 1 << 20


def cached(job: Job, folder: Path, dtype: str = "bf16", **plan: Any) -> Job:
    """The job in decoder scope with a cache in `folder`."""
    with_cache = with_mode(job.plan, cache=dtype, **plan)
    return msgspec.structs.replace(job, plan=with_cache, cache_path=str(folder), cache_limit_bytes=LIMIT_BYTES)


def decoder_job(make_job: Jobs, **changes: Any) -> Job:
    return make_job(settings={"scope": "decoder"} | changes.pop("settings", {}), **changes)


def b_and_sketches(job: Job) -> list[torch.Tensor]:
    parts = decode(Path(job.result_path).read_bytes(), Update).parts
    return [torch.tensor(unpack(tensor)) for part in parts for tensor in (part.b, part.sketch) if tensor is not None]


def test_a_round_from_the_cache_is_that_of_the_live_encoder(make_job: Jobs, tmp_path: Path) -> None:
    """In bf16, which the cache keeps exactly, whole rounds agree to the rounding of other batch compositions: the
    losses, every B after four steps of Adam, every sketch."""
    job = decoder_job(make_job, settings={"batch": 1, "micro_batch": 1})
    bf16 = msgspec.structs.replace(job, plan=with_mode(job.plan, compute="bf16", micro_batch=1))

    live = train(bf16, Session())
    expected = b_and_sketches(bf16)
    values = train(cached(bf16, tmp_path / "cache"), Session())

    assert values["encoded_tokens"] > 0
    assert live["encoded_tokens"] == 0
    assert values["loss"] == pytest.approx(live["loss"], rel=2e-2)
    assert values["held_out_loss"] == pytest.approx(live["held_out_loss"], rel=1e-2)
    for ours, theirs in zip(b_and_sketches(bf16), expected, strict=True):
        assert (ours - theirs).norm() <= 0.1 * theirs.norm()


@pytest.mark.parametrize(("dtype", "error"), [("bf16", 0.01), ("int8", 0.02)])
def test_the_gradient_is_that_of_the_live_encoder(dtype: str, error: float, make_job: Jobs, tmp_path: Path) -> None:
    """Profiles sketch the gradient itself: with fp32 compute it differs by what the cache rounds, no more."""
    job = decoder_job(make_job, kind="profile")

    profile(job, Session())
    theirs = decode(Path(job.result_path).read_bytes(), Profile)
    profile(cached(job, tmp_path / "cache", dtype), Session())
    ours = decode(Path(job.result_path).read_bytes(), Profile)

    for one, other in zip(ours.sketches, theirs.sketches, strict=True):
        exact = torch.tensor(unpack(other.tensor))
        assert (torch.tensor(unpack(one.tensor)) - exact).norm() <= error * exact.norm(), one.name


def test_the_encoder_runs_once_per_example(make_job: Jobs, tmp_path: Path) -> None:
    """A second round, after a restart, and the evaluation encode nothing that was encoded before."""
    job = cached(decoder_job(make_job), tmp_path / "cache")

    first = train(job, Session())
    second = train(job, Session())
    shared = {name: getattr(job, name) for name in EvaluateJob.__struct_fields__ if hasattr(job, name)}
    evaluated = evaluate(EvaluateJob(**shared), Session())

    assert first["encoded_tokens"] > 0
    assert second["encoded_tokens"] == 0
    assert evaluated["loss"] == pytest.approx(first["held_out_loss"], rel=1e-6)


def test_training_holds_no_encoder(make_job: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded while the encoder works is not there while the decoder is, and the other way round."""
    job = cached(decoder_job(make_job), tmp_path / "cache")
    own = Session()
    while_encoding: list[bool] = []
    original = reader.encode_sources

    def watched(*arguments: Any, **options: Any) -> None:
        while_encoding.append(own._base is None)
        original(*arguments, **options)

    monkeypatch.setattr(reader, "encode_sources", watched)
    train(job, own)

    assert while_encoding == [True]
    assert not any(name.startswith("encoder.") for name in own.base(job).weights)
    assert not any(name.startswith("encoder.") for name in own.base(job).plain)


def test_a_damaged_entry_is_made_again(make_job: Jobs, tmp_path: Path) -> None:
    """One flipped byte in every file of the cache changes a round by rounding alone: other sources were encoded
    together."""
    job = cached(decoder_job(make_job), tmp_path / "cache")
    train(job, Session())
    expected = b_and_sketches(job)
    entries = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    for path in entries:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    values = train(job, Session())

    assert len(entries) > 20
    assert values["encoded_tokens"] > 0
    for ours, theirs in zip(b_and_sketches(job), expected, strict=True):
        assert (ours - theirs).norm() <= 0.01 * theirs.norm()


def test_a_cache_that_holds_nothing_still_trains(make_job: Jobs, tmp_path: Path) -> None:
    """Where an entry finds no room its batch is encoded each time it is needed."""
    job = cached(decoder_job(make_job), tmp_path / "cache")
    expected = train(job, Session())

    full = msgspec.structs.replace(job, cache_path=str(tmp_path / "other"), cache_limit_bytes=100)
    values = train(full, Session())

    assert values["encoded_tokens"] > 0
    assert not [path for path in (tmp_path / "other").rglob("*") if path.is_file()]
    for number in ("loss", "held_out_loss"):
        assert values[number] == pytest.approx(expected[number], rel=1e-3)


def test_encoding_shows_progress_and_can_be_stopped(make_job: Jobs, tmp_path: Path) -> None:
    """The phase "encode" counts to the sources that lacked an entry, and a stop is heard in its middle."""
    told: list[Progress] = []
    job = cached(decoder_job(make_job), tmp_path / "cache")

    with pytest.raises(Stopped):
        train(job, Session(Host(told.append, wants_stop=lambda: bool(told))))
    assert [one.phase for one in told] == ["encode"]

    told.clear()
    train(job, Session(Host(told.append)))
    encoding = [one for one in told if one.phase == "encode"]
    assert encoding[-1].step == encoding[-1].steps > 20


def test_resuming_from_a_checkpoint_gives_the_same_bits(make_job: Jobs, tmp_path: Path) -> None:
    """Stopped after two steps and taken up by another process, B and sketches are those of an undisturbed round."""
    job = cached(decoder_job(make_job), tmp_path / "cache")
    train(job, Session())
    expected = b_and_sketches(job)
    saved = msgspec.structs.replace(job, training_state_path=str(tmp_path / "place"))
    steps: list[int] = []

    def note(progress: Progress) -> None:
        if progress.phase == "train":
            steps.append(progress.step)

    own = Session(Host(note, wants_stop=lambda: bool(steps) and steps[-1] >= 2))
    own.clock = iter(range(10**6)).__next__  # type: ignore[assignment, method-assign]
    with pytest.raises(Stopped):
        train(saved, own)
    assert max(steps) == 2 < job.run.settings.local_steps

    train(saved, Session())

    for ours, theirs in zip(b_and_sketches(saved), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_memory_is_given_back_only_near_the_plan(make_job: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step far below its plan's peak keeps its free pages; one near it returns them."""
    returned: list[int] = []
    monkeypatch.setattr("edge_client.host.worker_memory.return_free_memory", lambda: returned.append(1))

    for predicted_peak_bytes, times in ((1 << 40, 0), (1, 4)):
        returned.clear()
        job = make_job()
        plan = msgspec.structs.replace(job.plan, expected_peak_bytes=predicted_peak_bytes)
        train(msgspec.structs.replace(job, plan=plan), Session())
        assert len(returned) == times
