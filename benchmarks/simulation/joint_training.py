"""One round of all boards at once, in about half the time that one job after another takes.

Each board keeps production's `TrainingRound`: its examples, factors, optimiser, sketches, penalties and message. Only
the forward and backward passes are shared: a step of one board multiplies matrices of a few dozen rows, at a cost per
call that is much the same for ten boards' rows. These go through the frozen weight together, through each board's own
strands in a batched product, and through the frozen factors together where they are the same. Under rules whose boards
freeze the rest of the adapter beside their strands they are not: each board's rows then meet its own. In bf16 the
updates have the same bits (tests/benchmarks/simulation/test_federation.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_client.data.tokeniser import Pair
from edge_client.engines.adapter_patch import make_whole
from edge_client.engines.lean.model.batches import collate
from edge_client.engines.lean.model.chunked_loss import head_loss
from edge_client.engines.lean.model.lora import Factors, Linear
from edge_client.engines.lean.model.model import DTYPES
from edge_client.engines.lean.model.t5 import T5
from edge_client.engines.lean.round import StepLoss, TrainingRound
from edge_client.engines.lean.session import Meter, Session
from edge_client.jobs.messages import TrainJob
from quantize.base import FrozenWeight


def train_together(jobs: Sequence[TrainJob], session: Session) -> None:
    """Run training jobs of one round and one version, and write their updates, as the engine does for each.

    What jobs say of scope, arithmetic, steps and batch must be the same in all. Raises ConfigError where a board
    diverges.
    """
    for job in jobs:
        if job.held_path:
            make_whole(Path(job.adapter_path), Path(job.held_path), job.run, job.spec.version, job.plan.ranks)
    rounds = [TrainingRound(job, session) for job in jobs]
    models = [training.model for training in rounds]
    names = models[0].linears
    joined = {name: JoinedLinear([model.linears[name] for model in models]) for name in names}
    base, compute = session.base(jobs[0]), DTYPES[jobs[0].plan.mode.compute]
    # A T5 does no more with its linears than call them.
    t5 = T5(models[0].config, joined, base.plain, base.weights["shared"], compute)  # type: ignore[arg-type]
    meter = Meter(session, "train", rounds[0].n_steps)
    for step in range(rounds[0].n_steps):
        _step(rounds, t5, base.weights["lm_head"], step, jobs[0].run.settings.batch)
    for training in rounds:
        training.finish(meter)


def _step(rounds: Sequence[TrainingRound], t5: T5, head: FrozenWeight, step: int, n_examples: int) -> None:
    pairs = [training.pairs(step) for training in rounds]
    batch = collate([pair for own in pairs for pair in own], t5.config.pad_id, t5.config.start_id)
    for training in rounds:
        training.start_pass(step * n_examples)
    hidden = t5.decode(batch.decoder_input, _encoded(rounds, pairs, batch.source.shape[1]), batch.padding)
    loss = head_loss(hidden, batch.labels, head)
    loss.backward()  # type: ignore[no-untyped-call]
    mean = float(loss.detach()) / batch.n_target_tokens
    for training, own in zip(rounds, pairs, strict=True):
        n_targets = sum(len(pair.target) for pair in own)
        training.end_pass(n_targets)
        # A board's own loss is not known here, so it gets the mean of all; its gradients are its own.
        training.step(step, StepLoss(mean * n_targets, sum(len(pair.source) for pair in own), n_targets))


def _encoded(rounds: Sequence[TrainingRound], pairs: Sequence[Sequence[Pair]], width: int) -> Tensor:
    """The encoder's output (boards·b, width, d) of all boards' sources."""
    parts = [
        training.encoder_outputs.encoded_sources([pair.source for pair in own], width)
        for training, own in zip(rounds, pairs, strict=True)
    ]
    return torch.cat([part for part in parts if part is not None])


class JoinedLinear:
    """One weight of all boards: (boards·b, t, n) → (boards·b, t, m), where each board's rows meet its own strands."""

    def __init__(self, linears: Sequence[Linear]) -> None:
        self.linears = linears
        self.rank = max(linear.rank for linear in linears)
        self._frozen = [linear.dense(0)[1] for linear in linears]  # of no token: never folded into the weight
        self._is_frozen_alike = all(_is_alike(frozen, self._frozen[0]) for frozen in self._frozen)

    def through_frozen(self, flat: Tensor, product: Tensor, *, is_forward: bool) -> None:
        """Add to `product` (T, m) what the frozen factors make of `flat` (T, n); backwards (T, n) of (T, m)."""
        parts = 1 if self._is_frozen_alike else len(self.linears)
        rows, sums = (tensor.view(parts, -1, tensor.shape[1]) for tensor in (flat, product))
        for own, total, frozen in zip(rows, sums, self._frozen, strict=False):  # alike: the first is everybody's
            if frozen is not None and is_forward:
                total.addmm_(own @ frozen.a.t(), frozen.b.t())
            elif frozen is not None:
                total.addmm_(own @ frozen.b, frozen.a)

    def __call__(self, x: Tensor) -> Tensor:
        b = [linear.b for linear in self.linears]
        a = [linear.a for linear in self.linears if linear.a is not None]
        y: Tensor = _JoinedProduct.apply(x, self, *b, *a)  # type: ignore[no-untyped-call]
        return y

    def stacked(self) -> tuple[Tensor, Tensor]:
        """A (boards, r, n) and B (boards, m, r) in the compute dtype, narrower ones padded with zeros."""
        a = [linear.factors.a for linear in self.linears]
        b = [linear.b.detach() for linear in self.linears]
        compute = self.linears[0].compute
        rows = torch.zeros(len(a), self.rank, a[0].shape[1], dtype=compute)
        columns = torch.zeros(len(b), b[0].shape[0], self.rank, dtype=compute)
        for index, linear in enumerate(self.linears):
            rank = linear.rank if linear.prefix is None else linear.prefix  # zeros get no gradient
            rows[index, :rank] = a[index][:rank]
            columns[index, :, :rank] = b[index][:, :rank]
        return rows, columns


class _JoinedProduct(torch.autograd.Function):
    """The product of edge_client.engines.lean.model.lora._Product, for all boards' strands at once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, joined: JoinedLinear, *leaves: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        y = flat @ joined.linears[0].dense(0)[0].t()
        joined.through_frozen(flat, y, is_forward=True)
        a, b = joined.stacked()
        own = flat.view(len(a), -1, flat.shape[1])
        ax = torch.bmm(own, a.transpose(1, 2))
        y.view(len(b), -1, y.shape[1]).baddbmm_(ax, b.transpose(1, 2))
        ctx.joined, ctx.x_shape, ctx.rows, ctx.columns = joined, x.shape, a, b
        ctx.save_for_backward(flat, ax)
        return y.view(*x.shape[:-1], y.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        flat, ax = ctx.saved_tensors
        joined: JoinedLinear = ctx.joined
        boards = len(joined.linears)
        grad = grads[0].flatten(0, -2)
        own_grad, own_x = (tensor.view(boards, -1, tensor.shape[1]) for tensor in (grad, flat))
        for linear, one_grad, one_x in zip(joined.linears, own_grad, own_x, strict=True):
            if linear.sketch is not None:
                linear.sketch.add(one_grad, one_x)
        grad_ax = torch.bmm(own_grad, ctx.columns)
        grad_x = _through_frozen(joined, grad, grad_ax, ctx.rows) if ctx.needs_input_grad[0] else None
        by_leaf = _by_leaf(joined, torch.bmm(own_grad.transpose(1, 2), ax), grad_ax, own_x)
        return None if grad_x is None else grad_x.view(*ctx.x_shape), None, *by_leaf


def _is_alike(one: Factors | None, other: Factors | None) -> bool:
    """Whether both are the same frozen factors, bit for bit, or none."""
    if one is None or other is None:
        return one is other
    return torch.equal(one.b, other.b) and torch.equal(one.a, other.a)


def _through_frozen(joined: JoinedLinear, grad: Tensor, grad_ax: Tensor, rows: Tensor) -> Tensor:
    """The gradient (T, n) by x."""
    grad_x = grad @ joined.linears[0].dense(0)[0]
    joined.through_frozen(grad, grad_x, is_forward=False)
    grad_x.view(len(rows), -1, grad_x.shape[1]).baddbmm_(grad_ax, rows)
    return grad_x


def _by_leaf(joined: JoinedLinear, grad_b: Tensor, grad_ax: Tensor, own_x: Tensor) -> list[Tensor | None]:
    """Gradients of every board's B, and of its A where that is trained."""
    linears = joined.linears
    gradients: list[Tensor | None] = [
        grad_b[k, :, : linear.rank].float() if linear.b.requires_grad else None for k, linear in enumerate(linears)
    ]
    if linears[0].a is not None:
        grad_a = torch.bmm(grad_ax.transpose(1, 2), own_x)
        gradients += [grad_a[k, : linear.rank].float() for k, linear in enumerate(linears)]
    return gradients
