"""Nested ranks against dense float64 matrices and autograd, and whole rounds that train under them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edge_client.engines.contract import Stopped
from edge_client.engines.lean.gradients.nested import NestedRanks, nested_rank
from edge_client.engines.lean.model.lora import Factors, Linear
from edge_client.engines.lean.model.recompute import recomputed
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.jobs.messages import Job, TrainJob
from quantize.weight import DenseWeight
from tests.fakes.engine.stopped_training import stop_after
from wire.messages import Trains
from wire.run import Keep

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]
ROWS, COLUMNS, RANK = 20, 33, 11  # padded to 16: the padding of a prefix is not that of the whole


def made(trains: Trains, *, beside: bool = False) -> Linear:
    """A linear map with three frozen strands, eleven of its own and, if wanted, two beside them."""
    draw = torch.Generator().manual_seed(3)

    def values(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    linear = Linear(
        DenseWeight(values(ROWS, COLUMNS)),
        torch.float32,
        Factors(values(ROWS, 3), values(3, COLUMNS)),
        values(RANK, COLUMNS),
        start_b=values(ROWS, RANK),
        trains=trains,
    )
    if beside:
        linear.put_beside(Factors(values(ROWS, 2), values(2, COLUMNS)))
    linear.train()
    return linear


def dense_gradients(linear: Linear, prefix: int, x: Tensor, grad: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """y and the gradients by x, B and A of x·(W + F + Σ_{i < p} b_i·a_i + beside)ᵀ in float64, strand by strand."""
    w, frozen = linear.dense(1)
    assert frozen is not None
    b, a = (factor.double().requires_grad_() for factor in (linear.factors.b, linear.factors.a))
    wide = x.detach().double().requires_grad_()
    total = w.double() + frozen.b.double() @ frozen.a.double()
    for i in range(prefix):
        total = total + torch.outer(b[:, i], a[i])
    if linear.beside is not None:
        total = total + linear.beside.b.detach().double() @ linear.beside.a.detach().double()
    y = wide @ total.t()
    return y.detach(), dict(zip("xba", torch.autograd.grad(y, [wide, b, a], grad.double()), strict=True))


@pytest.mark.parametrize("trains", ["b", "a", "both"])
@pytest.mark.parametrize("prefix", [1, 5, 9])
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_prefix_is_its_formula(trains: Trains, prefix: int, beside: bool, checkpointed: bool) -> None:
    """Only the leading strands count, and only they gather a gradient; strands beside them are all there."""
    linear = made(trains, beside=beside)
    draw = torch.Generator().manual_seed(4)
    x = torch.randn(2, 7, COLUMNS, generator=draw, requires_grad=True)
    grad = torch.randn(2, 7, ROWS, generator=draw)
    expected_y, expected = dense_gradients(linear, prefix, x, grad)

    linear.prefix = prefix
    y = recomputed(linear, [x], linear.leaves) if checkpointed else linear(x)
    y.backward(grad)  # type: ignore[no-untyped-call]

    torch.testing.assert_close(y.double(), expected_y, rtol=1e-5, atol=1e-4)
    found = {"x": x.grad, "b": linear.b.grad, "a": None if linear.a is None else linear.a.grad}
    for name in "xba":
        if name != "x" and trains not in (name, "both"):
            assert found[name] is None
            continue
        ours = found[name]
        assert ours is not None
        assert (ours.double() - expected[name]).norm() <= 1e-5 * expected[name].norm(), name
    for ours, axis in ((linear.b.grad, 1), (None if linear.a is None else linear.a.grad, 0)):
        if ours is not None:
            assert not ours.narrow(axis, prefix, RANK - prefix).any()


def test_a_prefix_of_all_strands_is_the_map_as_it_is() -> None:
    """Bit for bit."""
    x = torch.randn(6, COLUMNS)
    linear = made("both")
    whole = linear(x)

    linear.prefix = RANK

    assert torch.equal(linear(x), whole)


def test_ranks_are_halved() -> None:
    """At least one strand of a weight that has any, none of one that has none."""
    assert [nested_rank(11, halvings) for halvings in range(5)] == [11, 5, 2, 1, 1]
    assert nested_rank(0, 1) == 0


def test_every_cut_is_drawn_and_the_same_pass_has_the_same() -> None:
    """All as often as they should; another board or round draws otherwise; afterwards all strands count."""
    linears = {"w": made("both"), "v": made("b")}
    nested, other = NestedRanks(linears, 3, seed=1), NestedRanks(linears, 3, seed=2)

    def cuts(of: NestedRanks) -> list[int | None]:
        drawn = []
        for first in range(600):
            of.start_pass(first)
            assert linears["v"].prefix == linears["w"].prefix
            drawn.append(linears["w"].prefix)
            of.end_pass()
            assert linears["w"].prefix is None
        return drawn

    drawn = cuts(nested)

    assert drawn == cuts(nested) != cuts(other)
    assert all(160 < drawn.count(cut) < 240 for cut in (None, 5, 2)), "200 of each, give or take 3.5 deviations"


def job_of(make_job: Jobs, **settings: object) -> TrainJob:
    job = make_job(trains="both", starts=True, settings={"trains_a": True} | settings)
    assert isinstance(job, TrainJob)
    return job


def result(job: TrainJob) -> bytes:
    train(job, Session())
    return Path(job.result_path).read_bytes()


def test_a_round_under_nested_ranks_learns_otherwise(make_job: Jobs) -> None:
    """And the same in every run; what it sends has all strands."""
    plain, nested, again = (result(job_of(make_job, **each)) for each in ({}, {"nested": 3}, {"nested": 3}))

    assert nested == again != plain
    assert len(nested) == len(plain)


def test_a_penalty_observes_all_strands(make_job: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes of its first step are not cut; those after are."""
    begun: list[int] = []
    before = NestedRanks.start_pass
    monkeypatch.setattr(NestedRanks, "start_pass", lambda self, first: (begun.append(first), before(self, first))[1])
    job = job_of(make_job, nested=3, keep=Keep(weight=1.0))

    train(job, Session())

    assert begun and min(begun) == job.run.settings.batch


def test_a_round_that_was_stopped_goes_on_with_the_same_cuts(make_job: Jobs, tmp_path: Path) -> None:
    """Killed after two steps, a round sends the same bytes."""
    job = make_job(
        trains="both",
        starts=True,
        settings={"trains_a": True, "nested": 3},
        training_state_path=str(tmp_path / "place"),
    )
    assert isinstance(job, TrainJob)
    whole = result(job)
    (tmp_path / "place").unlink()
    with pytest.raises(Stopped):
        train(job, Session(stop_after(2)))

    assert result(job) == whole
