"""Self-pruning: the penalty on trailing strands, and which of them a board gives up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edge_client.engines.lean.gradients.pruning import KEPT_SHARE, PENALTY, Pruning, tail_product, tail_start
from edge_client.engines.lean.model.lora import Factors, Linear
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.jobs.messages import Job
from edge_client.state.pruned_ranks import read_pruned
from quantize.weight import DenseWeight
from wire.checks import check_update, part_rank
from wire.codec import decode
from wire.messages import RoundSpec, Update

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]


def random_linear(rank: int, start_b: Tensor | None = None) -> Linear:
    """(20, 33), both factors trained, from random ones unless B is given."""
    generator = torch.Generator().manual_seed(rank)
    basis = torch.randn(rank, 33, generator=generator)
    if start_b is None:
        start_b = torch.randn(20, rank, generator=generator)
    linear = Linear(DenseWeight(torch.randn(20, 33)), torch.float32, None, basis, start_b=start_b, trains="both")
    linear.train()
    return linear


def pass_nothing(linear: Linear) -> None:
    """Gradients of zero, as a batch without any loss leaves."""
    for leaf in linear.leaves:
        leaf.grad = torch.zeros_like(leaf)


@pytest.mark.parametrize(("rank", "start"), [(0, 0), (1, 1), (2, 1), (3, 2), (99, 98), (100, 99), (250, 247)])
def test_the_tail_is_the_last_hundredth_and_one_strand_at_least(rank: int, start: int) -> None:
    """A tail has a strand wherever there are two; a single strand is never given up."""
    assert tail_start(rank) == start
    assert KEPT_SHARE == 0.99


@pytest.mark.parametrize("rank", [2, 5, 120])
def test_penalty_is_autograds(rank: int) -> None:
    """What is added to the gradients of a summed loss is not zero, and is autograd's of n·λ·‖A[t:]‖·‖B[:, t:]‖."""
    linear, n_tokens = random_linear(rank), 7
    assert linear.a is not None
    pass_nothing(linear)
    t = tail_start(rank)
    product = torch.linalg.vector_norm(linear.a[t:]) * torch.linalg.vector_norm(linear.b[:, t:])
    expected = torch.autograd.grad(n_tokens * PENALTY * product, [linear.b, linear.a])

    Pruning({"w": linear}).add_gradients(n_tokens)

    for factor, theirs in zip((linear.b, linear.a), expected, strict=True):
        assert theirs.any()
        torch.testing.assert_close(factor.grad, theirs, rtol=1e-5, atol=1e-9)


def test_a_tail_that_is_zero_has_no_gradient() -> None:
    """The norm's gradient at zero is taken as zero, never NaN, and near zero it is small; a single strand is not
    penalised."""
    for linear in (random_linear(3, torch.zeros(20, 3)), random_linear(1)):
        pass_nothing(linear)

        Pruning({"w": linear}).add_gradients(5)

        assert all(leaf.grad is not None and not leaf.grad.any() for leaf in linear.leaves)
    tiny = random_linear(3, torch.full((20, 3), 1e-30))
    pass_nothing(tiny)
    Pruning({"w": tiny}).add_gradients(5)
    assert all(leaf.grad is not None and leaf.grad.abs().max() < 1e-12 for leaf in tiny.leaves)


def test_the_penalty_alone_shrinks_the_tail_alone() -> None:
    """Steps down the penalty's gradient lower the tail's product and leave the other strands as they are."""
    linear = random_linear(4)
    before = Factors(linear.factors.b.clone(), linear.factors.a.clone())
    pruning = Pruning({"w": linear})

    for _ in range(20):
        pass_nothing(linear)
        pruning.add_gradients(1)
        with torch.no_grad():
            for leaf in linear.leaves:
                assert leaf.grad is not None
                leaf.sub_(leaf.grad)

    after = linear.factors
    assert tail_product(after) < tail_product(before)
    assert torch.equal(after.b[:, :3], before.b[:, :3])
    assert torch.equal(after.a[:3], before.a[:3])


@pytest.mark.parametrize(("factor", "rank"), [(0.9, 4), (1.0, 5), (1.1, 5)])
def test_a_tail_is_given_up_where_it_has_shrunk(factor: float, rank: int) -> None:
    """A smaller tail product than the round began with loses the tail, an equal or larger one keeps it."""
    linear = random_linear(5)
    pruning = Pruning({"w": linear})
    with torch.no_grad():
        linear.b[:, 4:].mul_(factor)

    sent = pruning.without_tails({"w": linear.factors})["w"]

    assert (sent.b.shape, sent.a.shape) == ((20, rank), (rank, 33))
    assert torch.equal(sent.b, linear.factors.b[:, :rank])


def test_a_tail_from_zero_is_kept() -> None:
    """Nothing is smaller than zero: strands that only began this round are not judged."""
    linear = random_linear(5, torch.zeros(20, 5))

    sent = Pruning({"w": linear}).without_tails({"w": linear.factors})["w"]

    assert sent.a.shape == (5, 33)


def test_a_round_prunes_just_where_it_is_asked(make_job: Jobs) -> None:
    """With `pruning` some weights come with one strand less and pass the server's check; without it none does."""
    ranks: dict[bool, dict[str, int]] = {}
    for pruning in (True, False):
        settings = {"pruning": pruning, "trains_a": True}
        job = make_job(ranks=(3, 1, 2), trains="both", starts=True, settings=settings)

        train(job, Session())

        update = decode(Path(job.result_path).read_bytes(), Update)
        check_update(update, job.run, RoundSpec(round=1, version=1, sketch=True, trains="both"))
        ranks[pruning] = {part.name: part.b.shape[1] for part in update.parts}

    planned = dict(zip((weight.name for weight in job.run.weights), job.plan.ranks, strict=True))
    assert ranks[False] == planned
    lost = {planned[name] - rank for name, rank in ranks[True].items()}
    assert lost == {0, 1}
    assert all(rank == 1 for name, rank in ranks[True].items() if planned[name] == 1)


def test_a_round_keeps_what_it_has_pruned(make_job: Jobs, tmp_path: Path) -> None:
    """What the next round may begin at is what this one sent less of than planned; a round that is ended again, from
    its last save, sends and keeps the same bytes. A round that prunes nothing keeps nothing."""
    path = tmp_path / "pruned.json"
    changes = {
        "trains": "both",
        "starts": True,
        "pruned_path": str(path),
        "training_state_path": str(tmp_path / "place"),
    }
    train(make_job(ranks=(3, 1, 2), settings={"trains_a": True}, **changes), Session())
    assert not path.exists()
    (tmp_path / "place").unlink()
    job = make_job(ranks=(3, 1, 2), settings={"pruning": True, "trains_a": True}, **changes)

    written = []
    for _ in range(2):
        train(job, Session())
        written.append((Path(job.result_path).read_bytes(), path.read_bytes()))

    sent = {part.name: part_rank(part) for part in decode(written[0][0], Update).parts}
    planned = {weight.name: rank for weight, rank in zip(job.run.weights, job.plan.ranks, strict=True)}
    fewer = {name: rank for name, rank in sent.items() if rank < planned[name]}
    assert fewer
    assert read_pruned(path, job.run, job.board_id, 2) == fewer
    assert read_pruned(path, job.run, job.board_id, 1) == {}
    assert written[0] == written[1]
