"""One linear map of the model: frozen weight, frozen context, trainable strands, and who observes its gradient.

    y = x·Wᵀ + (x·C_aᵀ)·C_bᵀ + (x·Aᵀ)·Bᵀ          W (m, n), C_b (m, s), C_a (s, n), B (m, r), A (r, n)

A round trains B, A or both. W is decompressed in the forward pass and again in the backward pass and kept by neither.
Where B alone is trained, backward keeps A·x, r numbers per token, in place of x (LoRA-FA, arXiv 2308.03303); x is kept,
without a copy, only for the gradient of A and while a sketch is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from quantize.weight import DenseWeight, FrozenWeight, Scratch
from wire.messages import Trains

RANK_STEP = 8
"""Ranks are computed at multiples of this, with rows of zeros: boards choose strands by value, so that every weight has
a rank of its own, and a kernel would have to be compiled, kept or made again for each."""


@dataclass(frozen=True, slots=True)
class Factors:
    """A low-rank matrix b·a: b (m, s), a (s, n). Those of a context are in the compute dtype."""

    b: Tensor
    a: Tensor


class Observer(Protocol):
    """Sees every backward pass of one linear map, such as its gradient sketch does."""

    def add(self, grad: Tensor, x: Tensor) -> None:
        """Count one backward pass: grad (T, m) by the output, x (T, n) the input, same dtype. Neither is changed."""


class Linear:
    """A frozen weight with what is added to it.

    Args: weight; compute dtype; context in the compute dtype or None; basis (r, n) or None, where r may be 0; scratch
    for the unpacked weight, which several linears may share; start_b (m, r) fp32, or None for zeros; `trains`, which
    factors `train` lets gradients reach. Tensors are on the weight's device, and none of them is changed.

    `b` (m, r) and `a` (r, n) are fp32 and, once trained, leaves of autograd; where A stays as it is, `a` is None, and
    the rows are kept in the compute dtype. While `sketch` is set and the backward pass comes through here, it is added
    to, whether or not anything is trained.
    """

    __slots__ = (
        "_basis",
        "_compute",
        "_context",
        "_held",
        "_is_stored",
        "_scratch",
        "_trains",
        "_weight",
        "a",
        "b",
        "sketch",
    )

    def __init__(
        self,
        weight: FrozenWeight,
        compute: torch.dtype,
        context: Factors | None = None,
        basis: Tensor | None = None,
        scratch: Scratch | None = None,
        start_b: Tensor | None = None,
        trains: Trains = "b",
    ) -> None:
        rows, columns = weight.shape
        self._weight = weight
        self._compute = compute
        self._trains = trains
        self.set_context(context)
        if basis is None:
            basis = torch.empty(0, columns, dtype=compute, device=weight.device)
        self.b = torch.zeros(rows, basis.shape[0], device=weight.device) if start_b is None else start_b.clone()
        self.a = None if trains == "b" else basis.to(torch.float32, copy=True)
        self._basis = _padded_rows(basis.to(compute)) if trains == "b" else None
        self._is_stored = isinstance(weight, DenseWeight) and weight.values.dtype == compute
        self._held: Tensor | None = None
        self._scratch = scratch
        self.sketch: Observer | None = None

    @property
    def rank(self) -> int:
        return self.b.shape[1]

    @property
    def dense_bytes(self) -> int:
        """What `hold` would take."""
        rows, columns = self._weight.shape
        return 0 if self._is_stored else rows * columns * self._compute.itemsize

    def set_context(self, context: Factors | None) -> None:
        """Put another frozen low-rank matrix on top of the weight, from the next forward pass on."""
        self._context = context if context is not None and context.a.shape[0] else None

    @property
    def factors(self) -> Factors:
        """B and A as they are now, not copied: fp32, but an A that stays as it is in the compute dtype."""
        a = self._rows(None)[: self.rank] if self.a is None else self.a.detach()
        return Factors(self.b.detach(), a)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Those of B and A that gradients reach."""
        return tuple(factor for factor in (self.b, self.a) if factor is not None and factor.requires_grad)

    def train(self) -> None:
        """Let gradients reach what the round trains."""
        if self._trains != "a":
            self.b.requires_grad_(True)
        if self.a is not None:
            self.a.requires_grad_(True)

    def start_sketch(self, sketch: Observer) -> None:
        """Add every following backward pass to `sketch`. Gradients must get here even where nothing is trained."""
        if not self.leaves:
            self.b.requires_grad_(True)
        self.sketch = sketch

    def hold(self) -> None:
        """Keep the decompressed weight until `release`: writing token by token would unpack it for every token."""
        if not self._is_stored:
            self._held = self._weight.dense(self._compute)

    def release(self) -> None:
        self._held = None

    def __call__(self, x: Tensor) -> Tensor:
        """(…, n) → (…, m) in the compute dtype."""
        y: Tensor = _Product.apply(x, self.b, self.a, self)  # type: ignore[no-untyped-call]
        return y

    def forward(self, x: Tensor, b: Tensor, a: Tensor | None) -> tuple[Tensor, Tensor]:
        """y (T, m) and A·x (T, r padded) of x (T, n). `a` is None where the basis stays as it is."""
        dense, context = self._dense(x.shape[0])
        y = x @ dense.t()
        if context is not None:
            y.addmm_(x @ context.a.t(), context.b.t())
        ax = x @ self._rows(a).t()
        if self.rank:
            y.addmm_(ax, self._columns(b).t())
        return y, ax

    def backward(
        self, grad: Tensor, b: Tensor, a: Tensor | None, x: Tensor | None, *, needs_x: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients (T, n) by x, if it `needs_x`, and (r, n) by A, if `x` is given; from grad (T, m) by y."""
        grad_x = self._through_frozen(grad) if needs_x else None
        if not self.rank or (grad_x is None and x is None):
            return grad_x, None
        grad_ax = grad @ self._columns(b)
        if grad_x is not None:
            grad_x.addmm_(grad_ax, self._rows(a))
        return grad_x, None if x is None else (grad_ax.t() @ x)[: self.rank]

    def _through_frozen(self, grad: Tensor) -> Tensor:
        dense, context = self._dense(grad.shape[0])
        grad_x = grad @ dense
        if context is not None:
            grad_x.addmm_(grad @ context.b, context.a)
        return grad_x

    def _rows(self, a: Tensor | None) -> Tensor:
        """A (r padded, n) in the compute dtype."""
        if a is not None:
            return _padded_rows(a.to(self._compute))
        assert self._basis is not None
        return self._basis

    def _columns(self, b: Tensor) -> Tensor:
        """B (m, r padded) in the compute dtype."""
        return torch.nn.functional.pad(b.to(self._compute), (0, -b.shape[1] % RANK_STEP))

    def _dense(self, n_tokens: int) -> tuple[Tensor, Factors | None]:
        """The weight, and the context if it is not folded in.

        Folding costs m·n·s products, applying the factors T·s·(m + n): with many tokens folding is cheaper. It is
        done only into an unpacked fp32 copy that is ours to change. In bf16 it would round the context away (a bf16
        weight of 0.05 has steps of 0.0002), and a weight stored as it is used would need a copy first.
        """
        if self._held is not None:
            return self._held, self._context
        dense = self._weight.dense(self._compute, self._scratch)
        rows, columns = dense.shape
        may_fold = self._compute == torch.float32 and not self._is_stored
        if self._context is None or not may_fold or n_tokens * (rows + columns) < rows * columns:
            return dense, self._context
        return dense.addmm_(self._context.b, self._context.a), None


def _padded_rows(a: Tensor) -> Tensor:
    return torch.nn.functional.pad(a, (0, 0, 0, -a.shape[0] % RANK_STEP))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor, a: Tensor | None, linear: Linear) -> Tensor:
        flat = x.flatten(0, -2)
        y, ax = linear.forward(flat, b, a)
        ctx.linear, ctx.x_shape = linear, x.shape
        _, needs_b, needs_a, _ = ctx.needs_input_grad
        keeps_x = needs_a or linear.sketch is not None
        ctx.save_for_backward(ax if needs_b else None, b, a, flat if keeps_x else None)
        return y.view(*x.shape[:-1], y.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        ax, b, a, x = ctx.saved_tensors
        linear: Linear = ctx.linear
        grad = grads[0].flatten(0, -2)
        if linear.sketch is not None and x is not None:
            linear.sketch.add(grad, x)
        needs_x, needs_b, needs_a, _ = ctx.needs_input_grad
        grad_b = (grad.t() @ ax)[:, : b.shape[1]].to(b.dtype) if needs_b else None
        grad_x, grad_a = linear.backward(grad, b, a, x if needs_a else None, needs_x=needs_x)
        return (
            None if grad_x is None else grad_x.view(*ctx.x_shape),
            grad_b,
            None if grad_a is None else grad_a.to(torch.float32),
            None,
        )
