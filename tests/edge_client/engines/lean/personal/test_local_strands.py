from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
import torch

from edge_client.engines.contract import Stopped
from edge_client.engines.lean.model.lora import Factors, Linear
from edge_client.engines.lean.personal.local_strands import OwnStrands, learning_rate, read_own, write_own
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.errors import ConfigError
from edge_client.jobs.messages import Job, TrainJob
from edge_client.state.personal_folder import strands_key
from quantize.weight import DenseWeight
from tests.fakes.engine.stopped_training import stop_after
from tests.fakes.plans import with_mode
from wire.codec import decode
from wire.messages import Update
from wire.run import Personal
from wire.tensors import unpack

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]
T, M, N = 7, 6, 10  # tokens, rows, columns


def local_job(make_job: Jobs, path: Path, personal: Personal | None = None, **changes: Any) -> TrainJob:
    """A training job of a board that has local strands in the file `path`."""
    personal = personal or Personal(rank=2, learning_rate=0.05)
    settings = {"trains_a": True, "personal": personal}
    job = make_job(personal_path=str(path), trains="both", settings=settings, **changes)
    assert isinstance(job, TrainJob)
    return job


def read_file(job: TrainJob) -> dict[str, Factors]:
    own = read_own(Path(job.personal_path), strands_key(job.run))
    assert own is not None
    return dict(own.strands)


@pytest.mark.parametrize("trains", ["b", "both"])
@pytest.mark.parametrize("rank", [0, 3])
def test_a_weight_with_strands_beside_it_is_the_sum_of_products(trains: Literal["b", "both"], rank: int) -> None:
    """Output and every gradient of a linear map with its own strands and further ones beside them are those of the
    dense map in float64, whether its A is trained or not, and where it has no strands of its own."""
    draw = torch.Generator().manual_seed(3)
    x, weight, b, a, b_l, a_l, pull = (
        torch.randn(*shape, generator=draw) for shape in ((T, N), (M, N), (M, rank), (rank, N), (M, 2), (2, N), (T, M))
    )
    linear = Linear(DenseWeight(weight), torch.float32, basis=a, start_b=b, trains=trains)
    linear.train()
    linear.put_beside(Factors(b_l, a_l))
    ours = x.clone().requires_grad_(True)

    (linear(ours) * pull).sum().backward()

    leaves = [value.double().requires_grad_(True) for value in (x, b, a, b_l, a_l)]
    dx, db, da, db_l, da_l = leaves
    y = dx @ (weight.double() + db @ da + db_l @ da_l).t()
    (y * pull.double()).sum().backward()
    assert linear.beside is not None
    pairs = [(ours, dx), (linear.b, db), (linear.beside.b, db_l), (linear.beside.a, da_l)]
    if linear.a is not None:
        pairs.append((linear.a, da))
    assert torch.allclose(linear(x).double(), y, atol=1e-4)
    for mine, theirs in pairs:
        assert mine.grad is not None and theirs.grad is not None
        assert torch.allclose(mine.grad.double(), theirs.grad, atol=1e-4)
    assert float(da_l.grad.abs().max()) > 0.1  # type: ignore[union-attr]


def test_without_its_strands_a_weight_is_what_others_have() -> None:
    """Switched off, strands beside a weight change not one bit of its product."""
    draw = torch.Generator().manual_seed(3)
    x, weight, b, a = (torch.randn(*shape, generator=draw) for shape in ((T, N), (M, N), (M, 2), (2, N)))
    linear = Linear(DenseWeight(weight), torch.float32, basis=a, start_b=b, trains="both")
    before = linear(x)
    linear.put_beside(Factors(torch.ones(M, 1), torch.ones(1, N)))

    assert not torch.equal(linear(x), before)
    linear.uses_beside = False
    assert torch.equal(linear(x), before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_local_strands_learn_beside_the_global_ones(make_job: Jobs, tmp_path: Path, checkpointing: bool) -> None:
    """A round trains them in its file, sends an update of the same shapes as without them and none of their values,
    and tells two losses: of the received adapter as it is to all, and with the strands of before."""
    job = local_job(make_job, tmp_path / "own" / "strands")
    job = msgspec.structs.replace(job, plan=with_mode(job.plan, checkpointing=checkpointing))
    values = train(job, Session())
    assert values["personal_loss"] == values["held_out_loss"]  # they began at zero

    strands = read_file(job)
    update = Path(job.result_path).read_bytes()
    again = train(job, Session())

    assert all(float(factors.b.abs().max()) > 0 for factors in strands.values())
    assert {name: len(factors.a) for name, factors in strands.items()} == {w.name: 2 for w in job.run.weights}
    assert again["held_out_loss"] == values["held_out_loss"]  # what is sent to the server is of the global adapter
    assert again["personal_loss"] < values["personal_loss"]
    train(msgspec.structs.replace(job, personal_path=""), Session())
    shapes = [(part.name, part.b.shape) for part in decode(Path(job.result_path).read_bytes(), Update).parts]
    assert [(part.name, part.b.shape) for part in decode(update, Update).parts] == shapes
    for factors in strands.values():
        for row in factors.a:
            assert row.numpy().tobytes()[:16] not in update
            assert row.bfloat16().view(torch.int16).numpy().tobytes()[:16] not in update


def test_a_round_that_was_stopped_trains_the_same_local_strands(make_job: Jobs, tmp_path: Path) -> None:
    """Killed after two steps and started again, a round leaves the same strands and sends the same bytes."""
    job = local_job(make_job, tmp_path / "strands", training_state_path=str(tmp_path / "place"))
    train(msgspec.structs.replace(job, training_state_path=""), Session())
    whole, strands = Path(job.result_path).read_bytes(), Path(tmp_path / "strands").read_bytes()
    (tmp_path / "strands").unlink()
    with pytest.raises(Stopped):
        train(job, Session(stop_after(2)))
    assert not (tmp_path / "strands").exists()
    train(job, Session())

    assert Path(job.result_path).read_bytes() == whole
    assert (tmp_path / "strands").read_bytes() == strands


def test_strands_keep_their_product_at_another_rank(make_job: Jobs, tmp_path: Path) -> None:
    """With more of them asked for, what was learnt stays; with fewer, the nearest product of that rank is taken."""
    job = local_job(make_job, tmp_path / "strands")
    train(job, Session())
    before = read_file(job)
    frozen = Personal(rank=3, learning_rate=1e-12)

    train(local_job(make_job, tmp_path / "strands", frozen), Session())
    more = read_file(job)
    train(local_job(make_job, tmp_path / "strands", msgspec.structs.replace(frozen, rank=1)), Session())
    fewer = read_file(job)

    for name, factors in before.items():
        product = (factors.b @ factors.a).double().numpy()
        u, sizes, v = np.linalg.svd(product, full_matrices=False)
        assert np.allclose((more[name].b @ more[name].a).numpy(), product, atol=1e-6)
        assert np.allclose((fewer[name].b @ fewer[name].a).numpy(), sizes[0] * np.outer(u[:, 0], v[0]), atol=1e-6)


def test_only_the_targets_have_local_strands(make_job: Jobs, tmp_path: Path) -> None:
    """Targets are the last parts of weights' names, as for the run."""
    job = local_job(make_job, tmp_path / "strands", Personal(rank=1, targets=("v", "wo")))

    train(job, Session())

    assert {name.rsplit(".", 1)[-1] for name in read_file(job)} == {"v", "wo"}


@pytest.mark.parametrize(("own", "expected"), [(0.0, 0.01), (0.05, 0.05)])
def test_strands_without_a_step_size_of_their_own_take_part_in_the_runs_cooldown(
    make_job: Jobs, tmp_path: Path, own: float, expected: float
) -> None:
    """The last of three rounds, which all belong to it."""
    run = local_job(make_job, tmp_path / "strands", Personal(rank=1, learning_rate=own)).run
    settings = msgspec.structs.replace(run.settings, learning_rate=0.04, cooldown=1.0)
    run = msgspec.structs.replace(run, settings=settings, rounds=3)

    assert learning_rate(run, 3) == pytest.approx(expected)


@pytest.mark.parametrize("damage", ["cut", "bit"])
def test_damaged_strands_are_told_and_begin_anew(make_job: Jobs, tmp_path: Path, damage: str) -> None:
    """A file that was half written, or has one flipped bit, is not trained on."""
    path = tmp_path / "strands"
    job = local_job(make_job, path)
    train(job, Session())
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[-3] ^= 0x10
    path.write_bytes(data)

    values = train(job, Session())

    assert values["personal_lost"] == 1
    assert values["personal_loss"] == values["held_out_loss"]
    assert read_file(job)


def test_strands_of_another_run_are_not_used(make_job: Jobs, tmp_path: Path) -> None:
    """What another run, another base or other weights left in the file means nothing here, and is said."""
    job = local_job(make_job, tmp_path / "strands")
    train(job, Session())
    base = msgspec.structs.replace(job.run.base, digest="f" * 64)
    others = [msgspec.structs.replace(job.run, run_id="other"), msgspec.structs.replace(job.run, base=base)]

    assert len({strands_key(run) for run in (job.run, *others)}) == 3
    assert all(read_own(tmp_path / "strands", strands_key(run)) is None for run in others)


def test_strands_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    """The last good file stays."""
    good = {"w": Factors(torch.ones(3, 1), torch.ones(1, 4))}
    write_own(tmp_path / "strands", "key", OwnStrands(good))

    with pytest.raises(ConfigError, match="local strands of w are not finite"):
        bad = {"w": Factors(torch.full((3, 1), torch.nan), torch.ones(1, 4))}
        write_own(tmp_path / "strands", "key", OwnStrands(bad))

    kept = read_own(tmp_path / "strands", "key")
    assert kept is not None and torch.equal(kept.strands["w"].b, torch.ones(3, 1))


def test_b_alone_is_trained_beside_strands_of_both_factors(make_job: Jobs, tmp_path: Path) -> None:
    """In a run that trains B alone the local pair trains both factors, and what is sent is B alone."""
    job = make_job(personal_path=str(tmp_path / "strands"), settings={"personal": Personal(rank=2)})
    assert isinstance(job, TrainJob)

    train(job, Session())

    update = decode(Path(job.result_path).read_bytes(), Update)
    assert all(part.a is None for part in update.parts)
    assert [unpack(part.b).shape[1] for part in update.parts] == list(job.plan.ranks)
    assert len(read_file(job)) == len(job.run.weights)
