from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edge_client.engines.contract import Stopped
from edge_client.engines.lean.gradients.keep import Keep, scores_of
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.jobs.messages import Job, TrainJob
from tests.fakes.engine.stopped_training import stop_after
from wire import run as wire_run
from wire.codec import decode
from wire.messages import Trains, Update
from wire.tensors import unpack

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]


def leaves(seed: int = 0, *, with_a: bool = True) -> dict[str, Tensor]:
    """B (6, 3) and, unless B alone is trained, A (3, 8)."""
    draw = torch.Generator().manual_seed(seed)
    values = {"b.w": torch.randn(6, 3, generator=draw)} | ({"a.w": torch.randn(3, 8, generator=draw)} if with_a else {})
    return {name: value.requires_grad_(True) for name, value in values.items()}


def move(values: Mapping[str, Tensor]) -> None:
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for value in values.values():
            value.add_(torch.randn(value.shape, generator=draw))


@pytest.mark.parametrize("with_a", [True, False])
def test_the_penalty_has_the_gradient_of_its_formula(with_a: bool) -> None:
    """λ/2·Σ J·(θ - θ₀)² by autograd in float64, with J the squares of the first step's gradients, micro-batch by
    micro-batch, scaled to 1 on average; beside a loss's own gradients. For both factors, and for B alone."""
    values = leaves(with_a=with_a)
    begun = {name: value.detach().double() for name, value in values.items()}
    keep = Keep(values, 0.4)
    draw = torch.Generator().manual_seed(5)
    micro_batches = [{name: torch.randn(v.shape, generator=draw) for name, v in values.items()} for _ in range(3)]
    for gradients in micro_batches:
        for name, value in values.items():
            value.grad = gradients[name].clone()
        keep.observe()
    keep.gather()
    squares = {name: sum(g[name].double() ** 2 for g in micro_batches) for name in values}
    mean = sum(float(s.sum()) for s in squares.values()) / sum(s.numel() for s in squares.values())  # type: ignore[union-attr]
    for name, value in values.items():
        assert value.grad is not None
        assert torch.allclose(value.grad, sum(g[name] for g in micro_batches), atol=1e-5)  # type: ignore[arg-type]
        value.grad = torch.ones_like(value)
    move(values)

    keep.add_gradients(n_tokens=7)

    for name, value in values.items():
        exact = value.detach().double().requires_grad_(True)
        penalty = 0.4 / 2 * (squares[name] / mean * (exact - begun[name]) ** 2).sum()
        (7 * penalty + exact.sum()).backward()  # type: ignore[no-untyped-call]
        assert value.grad is not None and exact.grad is not None
        assert torch.allclose(value.grad.double(), exact.grad, rtol=1e-4, atol=1e-4)
        assert float((value.grad - 1).abs().min()) > 0


def test_scores_are_the_runs_ranking(make_run: Callable[..., wire_run.RunInfo]) -> None:
    """Every value of a strand has the strand's worth, on average 1; without a ranking all count alike."""
    import msgspec

    run = make_run()
    ranks = [2] + [0] * (len(run.weights) - 1)
    name = run.weights[0].name
    values = {f"b.{name}": torch.zeros(run.weights[0].rows, 2), f"a.{name}": torch.zeros(2, run.weights[0].columns)}
    ranked = msgspec.structs.replace(run, values=((3.0, 1.0, 0.5),) + ((),) * (len(run.weights) - 1))

    scores = scores_of(ranked, ranks, values)

    assert torch.allclose(scores[f"b.{name}"], torch.tensor([[1.5, 0.5]]))
    assert torch.allclose(scores[f"a.{name}"], torch.tensor([[1.5], [0.5]]))
    assert all(torch.equal(j, torch.ones_like(j)) for j in scores_of(run, ranks, values).values())


def moved(job: TrainJob) -> float:
    """How far a round moves its strands, squared."""
    from edge_client.engines.lean.model.adapter_tensors import read_adapter

    train(job, Session())
    begun = read_adapter(Path(job.adapter_path), job.run, 1, job.plan.ranks)
    update = decode(Path(job.result_path).read_bytes(), Update)
    total = 0.0
    for part in update.parts:
        if part.b.shape[1]:
            total += float(((torch.from_numpy(unpack(part.b).copy()) - begun.start_b[part.name]) ** 2).sum())
    return total


@pytest.mark.parametrize("trains", ["b", "both"])
@pytest.mark.parametrize("importance", ["fisher", "scores"])
def test_a_board_is_held_near_what_it_received(
    make_job: Jobs, trains: Trains, importance: wire_run.KeepImportance
) -> None:
    """The larger λ, the less a round moves its strands; both factors or B alone, by either importance."""
    distances = []
    for weight in (0.0, 1.0, 100.0):
        settings = {"trains_a": trains == "both", "upload": "fp32"}
        keep = {"keep": wire_run.Keep(weight=weight, importance=importance)} if weight else {}
        job = make_job(trains=trains, starts=True, settings=settings | keep)
        assert isinstance(job, TrainJob)
        distances.append(moved(job))

    assert distances[0] > distances[1] > distances[2] > 0


def test_a_round_that_was_stopped_is_held_by_the_same_importance(make_job: Jobs, tmp_path: Path) -> None:
    """J of the first step is in the saved training: killed after two steps, a round sends the same bytes."""
    settings = {"trains_a": True, "keep": wire_run.Keep(weight=1.0)}
    job = make_job(trains="both", starts=True, settings=settings, training_state_path=str(tmp_path / "place"))
    train(job, Session())
    whole = Path(job.result_path).read_bytes()
    (tmp_path / "place").unlink()
    with pytest.raises(Stopped):
        train(job, Session(stop_after(2)))
    train(job, Session())

    assert Path(job.result_path).read_bytes() == whole
