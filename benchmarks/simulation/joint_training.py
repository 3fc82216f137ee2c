"""One round of all boards at once, in about half the time that one job after another takes.

Each board keeps production's round: its examples, factors, optimiser, sketches, penalties and message. Only the
forward and backward passes are shared: a step of one board multiplies matrices of a few dozen rows, at a cost per call
that is much the same for ten boards' rows. These go through the frozen weight and the context together, and through
each board's own strands in a batched product. In bf16 the updates have the same bits
(tests/benchmarks/simulation/test_federation.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from edge_client.engines.lean.adapter_patch import make_whole
from torch import Tensor

from edge_client.engines.lean.model.batches import collate
from edge_client.engines.lean.model.chunked_loss import head_loss
from edge_client.engines.lean.model.lora import Linear
from edge_client.engines.lean.model.model import DTYPES
from edge_client.engines.lean.model.t5 import T5
from edge_client.engines.lean.model.tokeniser import Pair
from edge_client.engines.lean.session import Meter, Session
from edge_client.engines.lean.train import _Round
from edge_client.errors import ConfigError
from edge_client.jobs.messages import Job
from quantize.base import FrozenWeight


def train_together(jobs: Sequence[Job], session: Session) -> None:
    """Run "train" jobs of one round and one version, and write their updates, as `run_job` does for each.

    What jobs say of scope, arithmetic, steps and batch must be the same in all, and each board trains every weight: the
    context is then the same too. Raises ConfigError where a board diverges.
    """
    for job in jobs:
        if job.held_path:
            make_whole(Path(job.adapter_path), Path(job.held_path), job.run, job.task.version, job.plan.ranks)
    rounds = [_Round(job, session) for job in jobs]
    models = [one._model for one in rounds]
    names = models[0].linears
    joined = {name: JoinedLinear([model.linears[name] for model in models]) for name in names}
    base, compute = session.base(jobs[0]), DTYPES[jobs[0].plan.compute]
    t5 = T5(models[0].shape, joined, base.plain, base.weights["shared"], compute)  # type: ignore[arg-type]
    meter = Meter(session, "train", jobs[0].run.settings.local_steps)
    for step in range(jobs[0].run.settings.local_steps):
        _step(rounds, t5, base.weights["lm_head"], step)
    for one in rounds:
        one._finish(meter)


def _step(rounds: Sequence[_Round], t5: T5, head: FrozenWeight, step: int) -> None:
    pairs = [[one._pair(index) for index in one._order.examples(step)] for one in rounds]
    batch = collate([pair for mine in pairs for pair in mine], t5.shape.pad_id, t5.shape.start_id)
    turns = [_attached(one, step) for one in rounds]
    hidden = t5.decode(batch.decoder_input, _encoded(rounds, pairs, batch.source.shape[1]), batch.padding)
    loss = head_loss(hidden, batch.labels, head)
    loss.backward()  # type: ignore[no-untyped-call]
    for one, mine, turn in zip(rounds, pairs, turns, strict=True):
        n_labels = sum(len(pair.target) for pair in mine)
        if one._sketches is not None and turn is not None:
            one._sketches.count(n_labels, turn)
        _end_step(one, n_labels, step)


def _attached(one: _Round, step: int) -> int | None:
    """Whose turn it is in the step's backward pass, for which the board's sketches are made ready, if it feeds them."""
    turn = one._window.turn(step * one._settings.batch)
    if one._sketches is not None and turn is not None:
        one._sketches.attach(one._model.linears, turn)
    return turn


def _encoded(rounds: Sequence[_Round], pairs: Sequence[Sequence[Pair]], width: int) -> Tensor:
    """The encoder's output (boards·b, width, d) of all boards' sources."""
    sources = [[pair.source for pair in mine] for mine in pairs]
    parts = [one._prefix.encoded_sources(mine, width) for one, mine in zip(rounds, sources, strict=True)]
    return torch.cat([part for part in parts if part is not None])


def _end_step(one: _Round, n_labels: int, step: int) -> None:
    """The board's own: penalty, clipping and Adam."""
    if one._pruning is not None:
        one._pruning.add_gradients(n_labels)
    norm = one._adam.step(n_labels)
    if not norm < float("inf"):
        raise ConfigError(f"training diverged at step {step + 1}: gradient {norm}", "lower the learning rate")


class JoinedLinear:
    """One weight of all boards: (boards·b, t, n) → (boards·b, t, m), where each board's rows meet its own strands."""

    def __init__(self, linears: Sequence[Linear]) -> None:
        self.linears = linears
        self.rank = max(linear.rank for linear in linears)

    def __call__(self, x: Tensor) -> Tensor:
        b = [linear.b for linear in self.linears]
        a = [linear.a for linear in self.linears if linear.a is not None]
        y: Tensor = _JoinedProduct.apply(x, self, *b, *a)  # type: ignore[no-untyped-call]
        return y

    def stacked(self) -> tuple[Tensor, Tensor]:
        """A (boards, r, n) and B (boards, m, r) in the compute dtype, narrower ones padded with zeros."""
        a = [linear.factors.a for linear in self.linears]
        b = [linear.b.detach() for linear in self.linears]
        compute = self.linears[0]._compute
        rows = torch.zeros(len(a), self.rank, a[0].shape[1], dtype=compute)
        columns = torch.zeros(len(b), b[0].shape[0], self.rank, dtype=compute)
        for index, (one_a, one_b) in enumerate(zip(a, b, strict=True)):
            rows[index, : one_a.shape[0]] = one_a
            columns[index, :, : one_b.shape[1]] = one_b
        return rows, columns


class _JoinedProduct(torch.autograd.Function):
    """The product of edge_client.engines.lean.model.lora._Product, for all boards' strands at once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, joined: JoinedLinear, *leaves: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        dense, context = joined.linears[0]._dense(flat.shape[0])
        y = flat @ dense.t()
        if context is not None:
            y.addmm_(flat @ context.a.t(), context.b.t())
        ctx.joined, ctx.x_shape, ctx.rows = joined, x.shape, None
        if joined.rank:
            a, b = joined.stacked()
            own = flat.view(len(a), -1, flat.shape[1])
            ax = torch.bmm(own, a.transpose(1, 2))
            y.view(len(b), -1, y.shape[1]).baddbmm_(ax, b.transpose(1, 2))
            ctx.rows, ctx.columns = a, b
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


def _through_frozen(joined: JoinedLinear, grad: Tensor, grad_ax: Tensor, rows: Tensor) -> Tensor:
    """The gradient (T, n) by x."""
    dense, context = joined.linears[0]._dense(grad.shape[0])
    grad_x = grad @ dense
    if context is not None:
        grad_x.addmm_(grad @ context.b, context.a)
    grad_x.view(len(rows), -1, grad_x.shape[1]).baddbmm_(grad_ax, rows)
    return grad_x


def _by_leaf(joined: JoinedLinear, grad_b: Tensor, grad_ax: Tensor, own_x: Tensor) -> list[Tensor | None]:
    """Gradients of every board's B, and of its A where that is trained."""
    linears = joined.linears
    found: list[Tensor | None] = [
        grad_b[k, :, : linear.rank].float() if linear.b.requires_grad else None for k, linear in enumerate(linears)
    ]
    if linears[0].a is not None:
        grad_a = torch.bmm(grad_ax.transpose(1, 2), own_x)
        found += [grad_a[k, : linear.rank].float() for k, linear in enumerate(linears)]
    return found
