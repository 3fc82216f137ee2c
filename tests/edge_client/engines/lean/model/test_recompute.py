from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.gradients.sketches import Sketches
from edge_client.engines.lean.model.adapter_tensors import read_adapter
from edge_client.engines.lean.model.batches import Batch, collate
from edge_client.engines.lean.model.model import Model, start_training
from edge_client.engines.lean.model.recompute import recomputed
from edge_client.jobs.messages import Job
from quantize.base import load_base


def test_only_inputs_are_kept() -> None:
    """Between forward and backward nothing of the block's inside lives, and it runs twice."""
    saved: list[tuple[int, ...]] = []
    runs: list[int] = []

    def block(x: Tensor) -> Tensor:
        runs.append(1)
        return (x @ weight).exp().sin() @ weight.t()

    weight = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)).mul_(0.1).requires_grad_(True)
    x = torch.ones(2, 5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(tuple(t.shape)) or t, lambda t: t):
        y = recomputed(block, [x], [weight])
    assert saved == [(2, 5), (5, 300)]

    y.sum().backward()
    expected = torch.autograd.grad(block(x).sum(), [x, weight])

    assert len(runs) == 3
    assert x.grad is not None
    assert weight.grad is not None
    assert torch.equal(x.grad, expected[0])
    assert torch.equal(weight.grad, expected[1])


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(6)
    sizes = ((9, 4), (3, 6), (12, 2))
    ids = [[torch.randint(2, 96, (n,), generator=generator).tolist() for n in size] for size in sizes]
    return collate([Pair((*source, 1), (*target, 1)) for source, target in ids], pad_id=0, start_id=0)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["all", "decoder"])
def test_checkpointing_changes_nothing(
    scope: str, make_job: Callable[..., Job], base_folder: Path, batch: Batch
) -> None:
    """Loss, the gradient of every B and every sketch are the same with and without checkpointing, but for the order in
    which the decoder blocks' gradients by the encoder's output are summed."""
    job = make_job(settings={"scope": scope})
    adapter = read_adapter(Path(job.adapter_path), job.run, 1, job.plan.ranks)

    def run(checkpointing: bool) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
        base = load_base(base_folder, "int8")
        model = Model(base, adapter, "fp32", trains_encoder=scope == "all", checkpointing=checkpointing)
        trained = start_training(model.linears)
        sketches = Sketches(job.run.weights, job.run.max_rank, 7, torch.device("cpu"))
        sketches.attach(model.linears)
        loss = model.loss_sum(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), {name: b.grad for name, b in trained.items() if b.grad is not None}, sketches.sums

    loss, grads, sums = run(False)
    again, grads_again, sums_again = run(True)

    assert loss == again
    assert grads.keys() == grads_again.keys()
    assert len(grads) > 10
    for name, grad in grads.items():
        torch.testing.assert_close(grads_again[name], grad, rtol=1e-5, atol=1e-5)
    for name, total in sums.items():
        assert total.any(), name
        torch.testing.assert_close(sums_again[name], total, rtol=1e-5, atol=1e-5)
