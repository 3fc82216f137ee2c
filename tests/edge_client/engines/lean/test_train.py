from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from edge_client.data.load import load_data
from edge_client.engines.contract import Host, Stopped
from edge_client.engines.lean.engine import LeanEngine
from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.tensor_file import load_tensors, save_tensors
from edge_client.engines.lean.train import train
from edge_client.engines.lean.training_state import MIN_INTERVAL_S, interval_s, restore, training_state_key
from edge_client.errors import BaseModelError, ConfigError, RefusedError
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import Job, Progress
from edge_client.worker.main import run_job
from tests.fakes.engine.stopped_training import StepClock, stop_after
from tests.fakes.plans import with_mode
from wire.checks import check_profile, check_update
from wire.codec import decode
from wire.messages import Profile, RoundSpec, Update
from wire.tensors import unpack

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]


def read_update(job: Job) -> Update:
    return decode(Path(job.result_path).read_bytes(), Update)


def test_update_is_what_the_server_checks(make_job: Jobs) -> None:
    """A round leaves an Update that passes wire.checks with the planned ranks: unequal ones, and weights only
    sketched."""
    job = make_job()

    values = train(job, Session())

    update = read_update(job)
    check_update(update, job.run, RoundSpec(round=1, version=1, sketch=True), ranks=job.plan.ranks)
    assert all(part.sketch is not None for part in update.parts)
    assert update.n_examples == values["n_examples"] == 24  # 4 steps of 6, fewer than the board holds
    assert set(values) == {
        "loss", "held_out_loss", "n_examples", "tokens_per_s", "seconds", "encode_s", "encoded_tokens", "peak_bytes"
    }  # fmt: skip
    assert all(math.isfinite(value) for value in values.values())


@pytest.mark.parametrize("micro_batch", [1, 6, 9])
def test_micro_batches_do_not_change_the_result(make_job: Jobs, micro_batch: int) -> None:
    """Accumulation weighs tokens, not micro-batches: any split of a batch trains the same B."""
    job = make_job()
    small = msgspec.structs.replace(job, plan=with_mode(job.plan, micro_batch=micro_batch))

    results = []
    for one in (job, small):
        train(one, Session())
        results.append([unpack(part.b) for part in read_update(one).parts])

    for ours, theirs in zip(*results, strict=True):
        # Adam turns tiny gradients into whole steps, so a few entries may differ by more than rounding.
        assert abs(ours - theirs).mean() < 1e-4 if ours.size else True


@pytest.mark.parametrize("sketch_batches", [1, 3])  # block by block in turns, and all at once
@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_resuming_gives_the_same_bits(make_job: Jobs, tmp_path: Path, n_steps: int, sketch_batches: int) -> None:
    """A job that was stopped after any step and started again writes the same bytes as one that never stopped, and
    does not repeat the steps that were done."""
    job = make_job(training_state_path=str(tmp_path / "place"), settings={"sketch_batches": sketch_batches})
    train(msgspec.structs.replace(job, training_state_path=""), Session())
    whole = Path(job.result_path).read_bytes()
    Path(job.result_path).unlink()
    session = Session(stop_after(n_steps))

    with pytest.raises(Stopped):
        train(job, session)
    assert not Path(job.result_path).exists()
    seen: list[Progress] = []
    values = train(job, Session(Host(seen.append, StepClock())))

    assert Path(job.result_path).read_bytes() == whole
    assert [p.step for p in seen if p.phase == "train"] == list(range(n_steps, 5))
    assert "held_out_loss" in values
    assert not any(p.phase == "evaluate" for p in seen)


@pytest.mark.parametrize("sketch_batches", [1, 3])  # block by block in turns, and all at once
@pytest.mark.parametrize("n_steps", [1, 2, 3])
@pytest.mark.parametrize("leaner", [{"micro_batch": 2}, {"micro_batch": 1, "checkpointing": True}])
def test_a_round_goes_on_in_a_leaner_way(
    make_job: Jobs, tmp_path: Path, n_steps: int, leaner: dict[str, Any], sketch_batches: int
) -> None:
    """A plan that takes less memory, after any step, changes neither B nor the sketches by more than rounding, before
    and inside the window that is sketched."""
    job = make_job(training_state_path=str(tmp_path / "place"), settings={"sketch_batches": sketch_batches})
    train(msgspec.structs.replace(job, training_state_path=""), Session())
    whole = read_update(job)
    session = Session(stop_after(n_steps))
    with pytest.raises(Stopped):
        train(job, session)
    seen: list[Progress] = []

    train(
        msgspec.structs.replace(job, plan=with_mode(job.plan, **leaner)),
        Session(Host(seen.append, StepClock())),
    )

    assert [p.step for p in seen if p.phase == "train"] == list(range(n_steps, 5))
    for ours, theirs in zip(read_update(job).parts, whole.parts, strict=True):
        assert abs(unpack(ours.b) - unpack(theirs.b)).mean() < 1e-4 if ours.b.shape[1] else True
        assert ours.sketch is not None
        assert theirs.sketch is not None
        sketch, expected = unpack(ours.sketch), unpack(theirs.sketch)
        assert np.linalg.norm(sketch - expected) < 1e-2 * np.linalg.norm(expected)


def test_a_round_goes_on_with_fewer_strands(make_job: Jobs, tmp_path: Path) -> None:
    """After a stop the leading columns of each B are trained on from the same step; weights may lose all of theirs."""
    job = make_job(ranks=(3, 0, 2), training_state_path=str(tmp_path / "place"))
    session = Session(stop_after(3))
    with pytest.raises(Stopped):
        train(job, session)
    place = load_tensors(tmp_path / "place", training_state_key(job, load_data(job.data).train))
    assert place is not None
    befores = {name: place.read(name).clone() for name in place.shapes}
    fewer = make_job(ranks=(2, 0, 0), training_state_path=job.training_state_path)
    seen: list[Progress] = []

    train(fewer, Session(Host(seen.append, StepClock())))

    assert [p.step for p in seen if p.phase == "train"] == [3, 4]
    update = read_update(fewer)
    check_update(update, fewer.run, RoundSpec(round=1, version=1, sketch=True), ranks=fewer.plan.ranks)
    for part in update.parts:
        if part.b.shape[1]:
            before = befores[f"b.{part.name}"][:, :2].numpy()
            moved = np.abs(unpack(part.b) - before).max()
            assert 0 < moved < 3 * job.run.settings.learning_rate, "one step of Adam, from where the other had come"


def test_a_place_with_less_than_is_needed_is_left_alone(tmp_path: Path) -> None:
    """Where a value is missing or too small nothing is changed; what is larger gives its leading columns."""
    saved = {"b.x": torch.arange(12.0).reshape(3, 4), "mean.x": torch.ones(3, 4)}
    assert save_tensors(tmp_path / "place", "key", saved, {"step": 1.0}) == (tmp_path / "place").stat().st_size
    place = load_tensors(tmp_path / "place", "key")
    assert place is not None
    assert place.numbers == {"step": 1.0}
    for name, shape in (("b.y", (3, 4)), ("b.x", (3, 5)), ("b.x", (4, 4))):
        wanted = {"mean.x": torch.zeros(3, 2), name: torch.zeros(shape)}
        assert not restore(place, wanted)
        assert all(not tensor.any() for tensor in wanted.values())

    wanted = {"b.x": torch.zeros(3, 2)}

    assert restore(place, wanted)
    assert wanted["b.x"].tolist() == [[0.0, 1.0], [4.0, 5.0], [8.0, 9.0]]


def test_a_finished_job_is_not_trained_again(make_job: Jobs, tmp_path: Path) -> None:
    """If the result is lost after the last step, the saved training still gives it."""
    job = make_job(training_state_path=str(tmp_path / "place"))
    train(job, Session())
    whole = Path(job.result_path).read_bytes()
    Path(job.result_path).unlink()
    seen: list[Progress] = []

    train(job, Session(Host(seen.append, StepClock())))

    assert Path(job.result_path).read_bytes() == whole
    assert [p.step for p in seen] == [4]


def test_foreign_and_damaged_checkpoints_are_ignored(make_job: Jobs, tmp_path: Path) -> None:
    """A place of another round, board, data or half a file is no place to go on from; one of another plan is."""
    job = make_job(training_state_path=str(tmp_path / "place"))
    train(job, Session())
    path, examples = Path(job.training_state_path), load_data(job.data).train
    key = training_state_key(job, examples)
    others = [
        msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, round=2)),
        msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, version=2)),
        msgspec.structs.replace(job, board_id="another"),
    ]
    leaner = msgspec.structs.replace(job, plan=with_mode(job.plan, micro_batch=2, format="nf4"))

    assert load_tensors(path, key) is not None
    keys = {key, training_state_key(job, examples[1:]), *(training_state_key(other, examples) for other in others)}
    assert len(keys) == 5
    assert training_state_key(leaner, examples) == key
    later = msgspec.structs.replace(job, run=msgspec.structs.replace(job.run, round=7, version=7))
    assert training_state_key(later, examples) == key
    assert load_tensors(path, "another") is None
    path.write_bytes(path.read_bytes()[:200])
    assert load_tensors(path, key) is None


def test_large_checkpoints_are_written_seldom() -> None:
    """20 MB every five seconds would wear out an SD card within months."""
    assert interval_s(1000) == MIN_INTERVAL_S
    assert interval_s(20_000_000) == 40.0


@pytest.mark.parametrize("format", ["int8", "nf4"])
def test_training_lowers_the_loss(make_job: Jobs, format: str) -> None:
    """On a quantised base, more local steps on the same examples give a lower loss."""
    job = make_job(ranks=(4,), settings={"local_steps": 60, "sketch_batches": 1, "learning_rate": 2e-2})
    job = msgspec.structs.replace(job, plan=with_mode(job.plan, format=format))
    losses: list[float] = []

    train(job, Session(Host(lambda p: losses.append(p.loss) if p.phase == "train" and p.step else None, StepClock())))

    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_no_sketch_unless_asked(make_job: Jobs) -> None:
    """A round without sketches sends the trained weights alone."""
    job = make_job()
    job = msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, sketch=False))

    train(job, Session())

    update = read_update(job)
    assert [part.name for part in update.parts] == [
        weight.name for weight, rank in zip(job.run.weights, job.plan.ranks, strict=True) if rank
    ]
    check_update(update, job.run, RoundSpec(round=1, version=1, sketch=False), ranks=job.plan.ranks)


def test_profile_sketches_every_weight(make_job: Jobs) -> None:
    """A profile of the bare base passes wire.checks and has no empty sketch."""
    job = make_job("profile")

    values = run_job(job, LeanEngine(Session()))

    profile = decode(Path(job.result_path).read_bytes(), Profile)
    check_profile(profile, job.run)
    assert len(profile.sketches) == len(job.run.weights)
    assert all(abs(unpack(sketch.tensor)).max() > 0 for sketch in profile.sketches)
    assert profile.n_examples == values["n_examples"] == 12


def test_decoder_scope_leaves_the_encoder_alone(make_job: Jobs) -> None:
    """With scope "decoder" the encoder has neither strands nor sketches."""
    job = make_job(settings={"scope": "decoder"})

    train(job, Session())

    assert all(part.name.startswith("decoder.") for part in read_update(job).parts)


def test_divergence_is_one_clear_error(make_job: Jobs) -> None:
    """A learning rate that blows the loss up is named as the thing to lower; no update is left."""
    job = make_job(settings={"learning_rate": 1e30})

    with pytest.raises(ConfigError, match="diverged") as caught:
        train(job, Session())

    assert "learning_rate" in caught.value.hint
    assert not Path(job.result_path).exists()


def test_an_adapter_of_other_ranks_is_refused(make_job: Jobs) -> None:
    """Ranks that were not asked for are an error, never cut or padded."""
    job = make_job()
    ranks = (1, *job.plan.ranks[1:])

    with pytest.raises(RefusedError, match=job.run.weights[0].name):
        train(msgspec.structs.replace(job, plan=msgspec.structs.replace(job.plan, ranks=ranks)), Session())


def test_missing_base_is_one_clear_error(make_job: Jobs, tmp_path: Path) -> None:
    """A folder without a base is a BaseModelError that names it."""
    with pytest.raises(BaseModelError, match=str(tmp_path)):
        train(make_job(base_folder=str(tmp_path)), Session())


def test_session_keeps_base_and_data(make_job: Jobs) -> None:
    """The base is loaded once for jobs that agree on folder and format."""
    job, session = make_job(), Session()

    first = session.base(job)
    other = msgspec.structs.replace(job, plan=with_mode(job.plan, format="int8"))

    assert session.base(job) is first
    assert session.base(other) is not first
    assert session.data(job.data) is session.data(job.data)


def test_adam_equals_torch() -> None:
    """Adam with clipping takes the steps of torch.optim.Adam after clip_grad_norm_."""
    generator = torch.Generator().manual_seed(0)
    start = {name: torch.randn(shape, generator=generator) for name, shape in (("a", (5, 3)), ("b", (2, 7)))}
    ours = {name: value.clone().requires_grad_(True) for name, value in start.items()}
    theirs = {name: value.clone().requires_grad_(True) for name, value in start.items()}
    adam, reference = Adam(ours, 0.01), torch.optim.Adam(theirs.values(), lr=0.01)

    for _ in range(5):
        for name in start:
            grad = torch.randn(start[name].shape, generator=generator)
            ours[name].grad, theirs[name].grad = 6 * grad, 2 * grad
        norm = adam.step(3.0)
        torch.testing.assert_close(norm, float(torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)), rtol=1e-5, atol=0)
        reference.step()

    for name in start:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-7)


def test_changed_data_changes_the_update(make_job: Jobs, tmp_path: Path) -> None:
    """Federation carries what the board's text says: other targets give another B."""
    job = make_job()
    train(job, Session())
    before = read_update(job)
    lines = [json.loads(line) for line in Path(job.data.path).read_text().splitlines()]
    changed = tmp_path / "changed.jsonl"
    changed.write_text("\n".join(json.dumps(line | {"target": "w1 w2"}) for line in lines))

    train(msgspec.structs.replace(job, data=DataSpec(str(changed))), Session())

    assert read_update(job).parts[0].b != before.parts[0].b
