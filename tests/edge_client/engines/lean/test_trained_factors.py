"""Rounds that train B, A or both, from zero or from where the server says, on rows of the server's or of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from edge_client.engines.contract import Stopped
from edge_client.engines.lean.model.adapter_tensors import read_adapter
from edge_client.engines.lean.model.lora import Factors, Linear
from edge_client.engines.lean.model.model import Model, start_training
from edge_client.engines.lean.model.recompute import recomputed
from edge_client.engines.lean.private_basis import private_basis
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.jobs.messages import Job
from quantize.base import load_base
from quantize.int8 import to_int8
from quantize.weight import DenseWeight, FrozenWeight
from tests.fakes.engine.stopped_training import stop_after
from wire.checks import check_update
from wire.codec import decode
from wire.messages import RoundSpec, Trains, Update
from wire.tensors import unpack

Jobs = Callable[..., Job]
EVERY: tuple[Trains, ...] = ("b", "a", "both")


class Observed:
    """Sees what a sketch is shown."""

    def __init__(self) -> None:
        self.n_passes = 0

    def add(self, grad: Tensor, x: Tensor) -> None:
        self.n_passes += 1


def random_linear(trains: Trains, weight: FrozenWeight, dtype: torch.dtype = torch.float32) -> Linear:
    """Context of rank 4 and five strands with a random B."""
    generator = torch.Generator().manual_seed(1)
    rows, columns = weight.shape

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    frozen = Factors(draw(rows, 4).to(dtype), draw(4, columns).to(dtype))
    linear = Linear(weight, dtype, frozen, draw(5, columns), start_b=draw(rows, 5), trains=trains)
    linear.train()
    return linear


@pytest.mark.parametrize("trains", EVERY)
@pytest.mark.parametrize("format", ["fp32", "int8"])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("x_needs_grad", [False, True])
def test_gradients_equal_autograd(trains: Trains, format: str, checkpointed: bool, x_needs_grad: bool) -> None:
    """y and the gradients by x, B and A are those of x·(W + C + B·A)ᵀ on dense matrices, just for what is trained."""
    values = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))
    weight: FrozenWeight = DenseWeight(values) if format == "fp32" else to_int8(values)
    linear, twin = random_linear(trains, weight), random_linear("both", weight)
    x = torch.randn(2, 7, 33, requires_grad=x_needs_grad)
    grad = torch.randn(2, 7, 20)
    assert twin.a is not None and linear._frozen is not None
    total = weight.dense(torch.float32) + linear._frozen.b @ linear._frozen.a + twin.b @ twin.a
    expected_y = x @ total.t()
    leaves = {"x": x, "b": twin.b, "a": twin.a}
    wanted = [name for name in leaves if (x_needs_grad if name == "x" else trains in (name, "both"))]
    expected = torch.autograd.grad(expected_y, [leaves[name] for name in wanted], grad)

    y = recomputed(linear, [x], linear.leaves) if checkpointed else linear(x)
    y.backward(grad)  # type: ignore[no-untyped-call]

    torch.testing.assert_close(y, expected_y, rtol=1e-5, atol=1e-4)
    ours = {"x": x.grad, "b": linear.b.grad, "a": None if linear.a is None else linear.a.grad}
    assert [name for name, found in ours.items() if found is not None] == wanted
    for name, theirs in zip(wanted, expected, strict=True):
        found = ours[name]
        assert found is not None
        assert (found - theirs).norm() <= 1e-5 * theirs.norm(), name


def test_a_trained_in_bf16_is_kept_in_fp32() -> None:
    """Adam moves fp32 factors whatever the products are computed in: a bf16 A would swallow small steps."""
    linear = random_linear("both", DenseWeight(torch.randn(20, 33)), torch.bfloat16)

    linear(torch.randn(4, 33).bfloat16()).sum().backward()  # type: ignore[no-untyped-call]

    for factor in linear.leaves:
        assert factor.dtype == torch.float32
        assert factor.grad is not None and factor.grad.dtype == torch.float32 and factor.grad.any()


def test_rounds_that_train_b_keep_a_times_x_alone() -> None:
    """x is kept for the gradient of A, and never copied; where B alone is trained, only r numbers a token are."""
    kept: dict[str, set[int]] = {}
    x = torch.randn(50, 33, requires_grad=True)
    for trains in EVERY:
        sizes: list[Tensor] = []
        linear = random_linear(trains, DenseWeight(torch.randn(20, 33)))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]  # noqa: B023
            linear(x)
        kept[trains] = {t.data_ptr() for t in sizes if t.shape[0] == 50 and t.shape[1] != 33}
        assert (x.data_ptr() in {t.data_ptr() for t in sizes}) == (trains != "b")
        assert len([t for t in sizes if t.shape[0] == 50]) == {"b": 1, "a": 1, "both": 2}[trains]

    assert not kept["a"], "A·x is for the gradient of B"


def test_a_sketch_is_taken_where_a_alone_is_trained() -> None:
    """The sketch sees the pass, and B, which stays as it is, gathers no gradient."""
    linear, seen = random_linear("a", DenseWeight(torch.randn(20, 33))), Observed()
    linear.start_sketch(seen)

    linear(torch.randn(4, 33)).sum().backward()  # type: ignore[no-untyped-call]

    assert seen.n_passes == 1
    assert linear.b.grad is None


def test_what_was_received_stays_as_it_was() -> None:
    """Training moves copies: neither the rows nor the B that a board was sent change."""
    basis, start_b = torch.randn(3, 33), torch.randn(20, 3)
    before = basis.clone(), start_b.clone()
    linear = Linear(DenseWeight(torch.randn(20, 33)), torch.float32, None, basis, start_b=start_b, trains="both")
    linear.train()

    with torch.no_grad():
        for leaf in linear.leaves:
            leaf.add_(1.0)

    assert torch.equal(basis, before[0]) and torch.equal(start_b, before[1])


# --- whole rounds -----------------------------------------------------------------------------------------------------


def read_update(job: Job) -> Update:
    return decode(Path(job.result_path).read_bytes(), Update)


@pytest.mark.slow
@pytest.mark.parametrize("trains", EVERY)
@pytest.mark.parametrize("starts", [False, True])
def test_update_carries_what_was_trained(make_job: Jobs, trains: Trains, starts: bool) -> None:
    """The update passes wire.checks for the round's kind, and every factor in it has moved from where it began; A does
    not where B is zero, for then nothing depends on it."""
    job = make_job(trains=trains, starts=starts)
    received = read_adapter(Path(job.adapter_path), job.run, 1, job.plan.ranks)

    train(job, Session())

    update = read_update(job)
    check_update(update, job.run, RoundSpec(round=1, version=1, sketch=True, trains=trains), ranks=job.plan.ranks)
    for part in update.parts:
        if part.b.shape[1]:
            start = received.start_b.get(part.name, torch.zeros(part.b.shape)).numpy()
            assert np.abs(unpack(part.b) - start).max() > 1e-4
        if part.a is not None:
            moved = np.abs(unpack(part.a) - received.basis[part.name].numpy()).max()
            assert moved == 0 if trains == "a" and not starts else moved > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("trains", ["a", "both"])
@pytest.mark.parametrize("own", [False, True])
def test_resuming_gives_the_same_bits(make_job: Jobs, tmp_path: Path, trains: Trains, own: bool) -> None:
    """A round that trains A and was stopped goes on to the same bytes, on rows it was sent or drew itself."""
    settings = {"own_basis": own, "trains_a": True}
    job = make_job(trains=trains, starts=not own, settings=settings, training_state_path=str(tmp_path / "place"))
    train(msgspec.structs.replace(job, training_state_path=""), Session())
    whole = Path(job.result_path).read_bytes()
    Path(job.result_path).unlink()
    with pytest.raises(Stopped):
        train(job, Session(stop_after(2)))
    train(job, Session())

    assert Path(job.result_path).read_bytes() == whole


@pytest.mark.slow
def test_a_round_that_trains_both_goes_on_with_fewer_strands(make_job: Jobs, tmp_path: Path) -> None:
    """Leading columns of B and rows of A are resumed from."""
    job = make_job(ranks=(3, 0, 2), trains="both", starts=True, training_state_path=str(tmp_path / "place"))
    train(job, Session())
    before = {part.name: part for part in read_update(job).parts}
    fewer = make_job(ranks=(2, 0, 1), trains="both", starts=True, training_state_path=job.training_state_path)

    train(fewer, Session())  # no step is left: what is sent is what was there

    for part in read_update(fewer).parts:
        if part.a is not None:
            whole = before[part.name]
            assert whole.a is not None
            np.testing.assert_array_equal(unpack(part.a), unpack(whole.a)[: part.a.shape[0]])
            np.testing.assert_array_equal(unpack(part.b), unpack(whole.b)[:, : part.b.shape[1]])


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_a_whole_model_equal_autograd(make_job: Jobs, base_folder: Path, checkpointing: bool) -> None:
    """∂loss/∂B = G·Aᵀ and ∂loss/∂A = Bᵀ·G, with G formed by autograd on dense weights."""
    from edge_client.data.tokeniser import Pair
    from edge_client.engines.lean.model.batches import collate

    job = make_job(trains="both", starts=True)
    adapter = read_adapter(Path(job.adapter_path), job.run, 1, job.plan.ranks)
    base = load_base(base_folder, "fp32")
    model = Model(base, adapter, "fp32", trains_encoder=True, checkpointing=checkpointing, trains="both")
    dense = Model(base, adapter, "fp32", trains_encoder=True)
    trained = start_training(model.linears)
    batch = collate([Pair((5, 9, 3, 1), (7, 4, 1)), Pair((8, 1), (2, 6, 9, 1))], pad_id=0, start_id=0)
    leaves = {}
    for name, linear in dense.linears.items():
        whole = linear._weight.dense(torch.float32) + linear.b @ linear.factors.a
        frozen = linear._frozen
        leaves[name] = (whole if frozen is None else whole + frozen.b @ frozen.a).clone().requires_grad_(True)
    dense._t5._linears = {name: (lambda x, leaf=leaf: x @ leaf.t()) for name, leaf in leaves.items()}  # type: ignore[misc]

    model.loss_sum(batch).backward()  # type: ignore[no-untyped-call]
    dense.loss_sum(batch).backward()  # type: ignore[no-untyped-call]

    assert len(trained) > 20
    for key, factor in trained.items():
        side, name = key.split(".", 1)
        gradient, start_b, basis = leaves[name].grad, adapter.start_b[name], adapter.basis[name]
        assert gradient is not None and factor.grad is not None
        expected = gradient @ basis.t() if side == "b" else start_b.t() @ gradient
        assert (factor.grad - expected).norm() <= 2e-5 * expected.norm(), key


@pytest.mark.slow
def test_what_was_received_is_evaluated_whole(make_job: Jobs) -> None:
    """The held-out loss of a round's start includes start_b·basis."""
    with_start = make_job(starts=True)
    loss = train(with_start, Session())["held_out_loss"]
    without = train(make_job(), Session())["held_out_loss"]

    assert abs(loss - without) > 1e-3


# --- rows of one's own ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_own_rows_are_orthonormal_and_drawn_anew(make_job: Jobs) -> None:
    """Rows are orthonormal, the same for the same board and round, others for another board or round; fewer are the
    leading ones."""
    job = make_job(ranks=(3, 0, 2), settings={"own_basis": True})
    drawn, again = private_basis(job), private_basis(job)
    others = [
        msgspec.structs.replace(job, board_id="other"),
        msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, round=2)),
    ]
    fewer = private_basis(make_job(ranks=(2, 0, 1), settings={"own_basis": True}))

    for name, rows in drawn.items():
        torch.testing.assert_close(rows @ rows.t(), torch.eye(len(rows)), rtol=0, atol=1e-5)
        assert torch.equal(rows, again[name])
        torch.testing.assert_close(fewer[name], rows[: len(fewer[name])])
        assert all(not torch.equal(rows, private_basis(other)[name]) for other in others if len(rows))


@pytest.mark.slow
@pytest.mark.parametrize("trains", ["b", "both"])
def test_a_board_trains_on_rows_of_its_own(make_job: Jobs, trains: Trains) -> None:
    """Sent no rows, a board trains on those it draws."""
    job = make_job(trains=trains, settings={"own_basis": True})

    train(job, Session())

    update = read_update(job)
    check_update(update, job.run, RoundSpec(round=1, version=1, sketch=True, trains=trains), ranks=job.plan.ranks)
    assert any(part.b.shape[1] and unpack(part.b).any() for part in update.parts)
