"""One linear map of the model: frozen weight, frozen context, trainable strands, and who observes its gradient.

    y = x·Wᵀ + (x·C_aᵀ)·C_bᵀ + (x·Aᵀ)·Bᵀ          W (m, n), C_b (m, s), C_a (s, n), B (m, r), A (r, n)

W is decompressed in the forward pass and again in the backward pass and kept by neither. Backward keeps A·x, r numbers
per token, in place of x; only while a sketch is taken does it keep x (without a copy).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from quantize.weight import DenseWeight, FrozenWeight, Scratch

RANK_STEP = 8
"""Ranks are computed at multiples of this, with rows of zeros: boards choose strands by value, so that every weight has
a rank of its own, and a kernel would have to be compiled, kept or made again for each."""


@dataclass(frozen=True, slots=True)
class Factors:
    """A low-rank matrix b·a: b (m, s), a (s, n), both in the compute dtype."""

    b: Tensor
    a: Tensor


class Observer(Protocol):
    """Sees every backward pass of one linear map, such as its gradient sketch does."""

    def add(self, grad: Tensor, x: Tensor) -> None:
        """Count one backward pass: grad (T, m) by the output, x (T, n) the input, same dtype. Neither is changed."""


class Linear:
    """A frozen weight with what is added to it.

    Args: weight; compute dtype; context or None; basis (r, n) in the compute dtype or None, both on the weight's
    device; scratch for the unpacked weight, which several linears may share. `b` (m, r) fp32 starts at zero and is what
    a board trains; r may be 0. While `sketch` is set and the backward pass comes through here, it is added to, whether
    or not anything is trained.
    """

    __slots__ = ("_basis", "_compute", "_context", "_held", "_is_stored", "_scratch", "_weight", "b", "sketch")

    def __init__(
        self,
        weight: FrozenWeight,
        compute: torch.dtype,
        context: Factors | None = None,
        basis: Tensor | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        rows, columns = weight.shape
        self._weight = weight
        self._compute = compute
        self.set_context(context)
        if basis is None:
            basis = torch.empty(0, columns, dtype=compute, device=weight.device)
        self._basis = torch.nn.functional.pad(basis, (0, 0, 0, -basis.shape[0] % RANK_STEP))
        self._is_stored = isinstance(weight, DenseWeight) and weight.values.dtype == compute
        self._held: Tensor | None = None
        self._scratch = scratch
        self.b = torch.zeros(rows, basis.shape[0], device=weight.device)
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

    def train(self) -> None:
        """Let gradients reach B."""
        self.b.requires_grad_(True)

    def start_sketch(self, sketch: Observer) -> None:
        """Add every following backward pass to `sketch`. Gradients must get here even where there are no strands."""
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
        y: Tensor = _Product.apply(x, self.b, self)  # type: ignore[no-untyped-call]
        return y

    def forward(self, x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """y (T, m) and A·x (T, r padded) of x (T, n)."""
        dense, context = self._dense(x.shape[0])
        y = x @ dense.t()
        if context is not None:
            y.addmm_(x @ context.a.t(), context.b.t())
        ax = x @ self._basis.t()
        if self.rank:
            y.addmm_(ax, self._padded(b, x.dtype).t())
        return y, ax

    def backward(self, grad: Tensor, b: Tensor) -> Tensor:
        """The gradient (T, n) by x, from grad (T, m) by y."""
        dense, context = self._dense(grad.shape[0])
        grad_x = grad @ dense
        if context is not None:
            grad_x.addmm_(grad @ context.b, context.a)
        if self.rank:
            grad_x.addmm_(grad @ self._padded(b, grad.dtype), self._basis)
        return grad_x

    def _padded(self, b: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.nn.functional.pad(b.to(dtype), (0, self._basis.shape[0] - b.shape[1]))

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


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor, linear: Linear) -> Tensor:
        flat = x.flatten(0, -2)
        y, ax = linear.forward(flat, b)
        ctx.linear, ctx.x_shape = linear, x.shape
        ctx.save_for_backward(ax, b, flat if linear.sketch is not None else None)
        return y.view(*x.shape[:-1], y.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        ax, b, x = ctx.saved_tensors
        linear: Linear = ctx.linear
        grad = grads[0].flatten(0, -2)
        if linear.sketch is not None and x is not None:
            linear.sketch.add(grad, x)
        grad_b = (grad.t() @ ax)[:, : b.shape[1]].to(b.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_b, None
        return linear.backward(grad, b).view(*ctx.x_shape), grad_b, None
