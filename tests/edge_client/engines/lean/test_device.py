from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.gradients.pruning import _tail_gradients
from edge_client.engines.lean.gradients.sketches import Sketches
from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.model.adapter_tensors import read_adapter
from edge_client.engines.lean.model.batches import Batch, collate
from edge_client.engines.lean.model.model import Model, start_training
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.errors import NoPlanError
from edge_client.jobs.messages import Compute, Job
from quantize.base import FORMATS, load_base
from tests.fakes.plans import with_mode
from wire.codec import decode
from wire.messages import Trains, Update
from wire.tensors import unpack

pytestmark = pytest.mark.slow

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")


def padded_batch() -> Batch:
    generator = torch.Generator().manual_seed(6)
    ids = [[torch.randint(2, 96, (n,), generator=generator).tolist() for n in size] for size in ((9, 4), (3, 6))]
    return collate([Pair((*source, 1), (*target, 1)) for source, target in ids], pad_id=0, start_id=0)


@pytest.mark.parametrize("scope", ["all", "decoder"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize("trains", ["b", "both"])
def test_a_step_stays_on_the_device_of_its_base(
    scope: str, format: str, compute: Compute, trains: Trains, make_job: Callable[..., Job], base_folder: Path
) -> None:
    """On torch's device without memory ("meta") any product with a tensor left on the processor is an error: forward,
    backward, sketch, the penalty on tails and Adam's moments go through, and gradients are where the base is."""
    meta = torch.device("meta")
    job = make_job(settings={"scope": scope}, trains=trains, starts=trains == "both")
    adapter = read_adapter(Path(job.adapter_path), job.run, 1, job.plan.ranks)
    base = load_base(base_folder, format, device=meta)
    is_all = scope == "all"
    model = Model(base, adapter, compute, trains_encoder=is_all, checkpointing=is_all, trains=trains)
    trained = start_training(model.linears)
    sketches = Sketches(job.run.weights, job.run.max_rank, 7, meta)
    sketches.attach(model.linears)
    adam = Adam(trained, 1e-3)

    model.loss_sum(padded_batch()).backward()  # type: ignore[no-untyped-call]

    for tails in (_tail_gradients(linear) for linear in model.linears.values() if linear.rank and trains == "both"):
        assert all(added.device == gradient.device == meta for gradient, added in tails)
    assert all(factor.grad is not None and factor.grad.device == meta for factor in trained.values())
    assert all(total.device == meta for total in sketches.sums.values())
    assert all(mean.device == meta for mean in adam.means.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_plan_for_a_missing_gpu_is_refused(make_job: Callable[..., Job]) -> None:
    """A board whose GPU has gone says so and does not fall over."""
    job = make_job()
    with pytest.raises(NoPlanError, match="GPU"):
        train(msgspec.structs.replace(job, plan=with_mode(job.plan, device="cuda")), Session())


@needs_gpu
@pytest.mark.parametrize("format", FORMATS)
def test_a_round_on_the_gpu_is_that_of_the_processor(format: str, make_job: Callable[..., Job]) -> None:
    """B and sketches of a whole round agree to the rounding of differently ordered fp32 sums."""
    updates = {}
    for device in ("cpu", "cuda"):
        job = make_job()
        plan = with_mode(job.plan, device=device, format=format)
        train(msgspec.structs.replace(job, plan=plan), Session())
        updates[device] = decode(Path(job.result_path).read_bytes(), Update)

    for ours, theirs in zip(updates["cuda"].parts, updates["cpu"].parts, strict=True):
        assert ours.sketch is not None
        assert theirs.sketch is not None
        torch.testing.assert_close(torch.tensor(unpack(ours.b)), torch.tensor(unpack(theirs.b)), rtol=1e-2, atol=1e-4)
        torch.testing.assert_close(
            torch.tensor(unpack(ours.sketch)), torch.tensor(unpack(theirs.sketch)), rtol=3e-2, atol=1e-4
        )
