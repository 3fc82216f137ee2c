"""One linear map of the model with LoRA: a frozen weight, frozen factors, trainable strands, and a gradient observer.

    y = x·Wᵀ + (x·F_aᵀ)·F_bᵀ + (x·Aᵀ)·Bᵀ          W (m, n), F_b (m, s), F_a (s, n), B (m, r), A (r, n)

Further strands may lie beside these (`put_beside`), trained in the same product and held in tensors of their own. And
there may be a `prefix`: the leading strands alone, B[:, :p]·A[:p], count then, and only they are trained.

A round trains B, A or both. W is decompressed in the forward pass and again in the backward pass and kept by neither.
Where B alone is trained, backward keeps A·x, r numbers per token, in place of x (LoRA-FA, arXiv 2308.03303); x is kept,
without a copy, only for the gradient of A and while a sketch is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from edge_client.jobs.sizes import RANK_STEP
from quantize.weight import DenseWeight, FrozenWeight, Scratch
from wire.messages import Trains


@dataclass(frozen=True, slots=True)
class Factors:
    """A low-rank matrix b·a: b (m, s), a (s, n). Frozen ones are in the compute dtype."""

    b: Tensor
    a: Tensor


class Observer(Protocol):
    """Something that must see every backward pass of one linear map, such as its gradient sketch."""

    def add(self, grad: Tensor, x: Tensor) -> None:
        """Count one backward pass: grad (T, m) by the output, x (T, n) the input, same dtype. Neither is changed."""


class Linear:
    """A frozen weight with what is added to it.

    Args:
        weight: W (m, n), packed or not.
        compute: dtype of the products, fp32 or bf16.
        frozen: factors b (m, s), a (s, n) in the compute dtype, added to the weight and not trained; None for none.
        basis: the A (r, n) that strands begin with, r ≥ 0; None for no strands.
        scratch: memory for the unpacked weight, which several linears may share.
        start_b: the B (m, r) fp32 that they begin with; None for zeros.
        trains: which factors `train` lets gradients reach.

    Tensors are on the weight's device, and none of them is changed.

    Attributes:
        b: B (m, r) fp32, once trained a leaf of autograd.
        a: A (r, n) fp32 in the same way; None where A stays as it is, its rows then being kept in the compute dtype.
        compute: as above.
        sketch: while it is set, every backward pass that comes through here is added to it, whether or not anything is
            trained.
        beside: further strands b (m, l), a (l, n) fp32, whose leaves gradients reach; None for none.
        uses_beside: whether they count; without them the map is what it is to every other board.
        prefix: how many leading strands count, while a pass is of fewer than all; None for all. It is not to change
            between a forward pass and its backward pass.
    """

    __slots__ = (
        "_basis",
        "_frozen",
        "_held",
        "_is_stored",
        "_scratch",
        "_trains",
        "_weight",
        "a",
        "b",
        "beside",
        "compute",
        "prefix",
        "sketch",
        "uses_beside",
    )

    def __init__(
        self,
        weight: FrozenWeight,
        compute: torch.dtype,
        frozen: Factors | None = None,
        basis: Tensor | None = None,
        scratch: Scratch | None = None,
        start_b: Tensor | None = None,
        trains: Trains = "b",
    ) -> None:
        rows, columns = weight.shape
        self._weight = weight
        self.compute = compute
        self._trains = trains
        self.set_frozen(frozen)
        if basis is None:
            basis = torch.empty(0, columns, dtype=compute, device=weight.device)
        self.b = torch.zeros(rows, basis.shape[0], device=weight.device) if start_b is None else start_b.clone()
        self.a = None if trains == "b" else basis.to(torch.float32, copy=True)
        self._basis = _padded_rows(basis.to(compute)) if trains == "b" else None
        self._is_stored = isinstance(weight, DenseWeight) and weight.values.dtype == compute
        self._held: Tensor | None = None
        self._scratch = scratch
        self.sketch: Observer | None = None
        self.beside: Factors | None = None
        self.uses_beside = True
        self.prefix: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n) of the weight."""
        return self._weight.shape

    @property
    def rank(self) -> int:
        return self.b.shape[1]

    @property
    def dense_bytes(self) -> int:
        """Bytes that `hold` would take."""
        rows, columns = self._weight.shape
        return 0 if self._is_stored else rows * columns * self.compute.itemsize

    def set_frozen(self, frozen: Factors | None) -> None:
        """Put another frozen low-rank matrix on top of the weight, from the next forward pass on."""
        self._frozen = frozen if frozen is not None and frozen.a.shape[0] else None

    @property
    def factors(self) -> Factors:
        """B and A as they are now, not copied: fp32, but an A that stays as it is in the compute dtype."""
        a = self._rows(None, self.rank)[: self.rank] if self.a is None else self.a.detach()
        return Factors(self.b.detach(), a)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Those of B and A that gradients reach, and those of the strands beside them."""
        beside = () if self.beside is None else (self.beside.b, self.beside.a)
        return tuple(factor for factor in (self.b, self.a, *beside) if factor is not None and factor.requires_grad)

    def put_beside(self, strands: Factors, *, trains: bool = True) -> None:
        """Lay further strands beside the weight's own, b (m, l) and a (l, n), which are copied; and train them."""
        at = self.b.device
        b, a = (values.to(at, torch.float32, copy=True).requires_grad_(trains) for values in (strands.b, strands.a))
        self.beside = Factors(b, a)

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
            self._held = self._weight.dense(self.compute)

    def release(self) -> None:
        self._held = None

    def __call__(self, x: Tensor) -> Tensor:
        """(…, n) → (…, m) in the compute dtype."""
        y: Tensor = _Product.apply(x, *self._all_strands(), self)  # type: ignore[no-untyped-call]
        return y

    def _all_strands(self) -> tuple[Tensor, Tensor | None]:
        """B (m, r) and A, with the strands beside them in the last columns and rows: one product for all."""
        b, a = self.b, self.a
        if self.prefix is not None:
            b, a = b[:, : self.prefix], None if a is None else a[: self.prefix]
        if self.beside is None or not self.uses_beside:
            return b, a
        rank = b.shape[1]
        own = self._rows(None, rank)[:rank].float() if a is None else a
        return torch.cat([b, self.beside.b], 1), torch.cat([own, self.beside.a])

    def forward(self, x: Tensor, b: Tensor, a: Tensor | None) -> tuple[Tensor, Tensor]:
        """The map without autograd.

        Args:
            x: (T, n) in the compute dtype.
            b: B (m, r) fp32, with the strands beside it.
            a: A (r, n) fp32 in the same way, or None where the basis stays as it is.

        Returns:
            y (T, m) and x·Aᵀ (T, r padded), in the compute dtype.
        """
        dense, frozen = self.dense(x.shape[0])
        y = x @ dense.t()
        if frozen is not None:
            y.addmm_(x @ frozen.a.t(), frozen.b.t())
        ax = x @ self._rows(a, b.shape[1]).t()
        if b.shape[1]:
            y.addmm_(ax, self._columns(b).t())
        return y, ax

    def backward(
        self, grad: Tensor, b: Tensor, a: Tensor | None, x: Tensor | None, *, needs_x: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of the map by its input and by A. The one by B needs x·Aᵀ alone, and is its caller's.

        With g = ∂L/∂y of every token, ∂L/∂x = g·W + (g·F_b)·F_a + (g·B)·A and ∂L/∂A = (g·B)ᵀ·x.

        Args:
            grad: g (T, m) in the compute dtype.
            b: B (m, r) fp32.
            a: A (r, n) fp32, or None where the basis stays as it is.
            x: the input (T, n), where the gradient by A is wanted.
            needs_x: whether the gradient by x is.

        Returns:
            The gradients (T, n) by x and (r, n) by A, in the compute dtype; None for what is not wanted.
        """
        grad_x = self._through_frozen(grad) if needs_x else None
        if not b.shape[1] or (grad_x is None and x is None):
            return grad_x, None
        grad_ax = grad @ self._columns(b)  # (T, r padded): shared by both gradients
        if grad_x is not None:
            grad_x.addmm_(grad_ax, self._rows(a, b.shape[1]))
        # Rows of the padding meet columns of zeros in B; they are cut off again.
        return grad_x, None if x is None else (grad_ax.t() @ x)[: b.shape[1]]

    def _through_frozen(self, grad: Tensor) -> Tensor:
        """The part (T, n) of the gradient by x that does not pass the strands: g·W + (g·F_b)·F_a."""
        dense, frozen = self.dense(grad.shape[0])
        grad_x = grad @ dense
        if frozen is not None:
            grad_x.addmm_(grad @ frozen.b, frozen.a)
        return grad_x

    def _rows(self, a: Tensor | None, rank: int) -> Tensor:
        """A (r padded, n) in the compute dtype, r = `rank`. Rows of the basis beyond it meet columns of zeros in B."""
        if a is not None:
            return _padded_rows(a.to(self.compute))
        assert self._basis is not None
        return self._basis[: rank + -rank % RANK_STEP]

    def _columns(self, b: Tensor) -> Tensor:
        """B (m, r padded) in the compute dtype."""
        return torch.nn.functional.pad(b.to(self.compute), (0, -b.shape[1] % RANK_STEP))

    def dense(self, n_tokens: int) -> tuple[Tensor, Factors | None]:
        """The unpacked weight (m, n) in the compute dtype, and the frozen factors where they are not folded in.

        Folding costs m·n·s products, applying the factors T·s·(m + n) for T = `n_tokens`: with many tokens folding is
        cheaper. It is done only into an unpacked fp32 copy that is ours to change. In bf16 it would round the factors
        away (a bf16 weight of 0.05 has steps of 0.0002), and a weight stored as it is used would need a copy first.
        """
        if self._held is not None:
            return self._held, self._frozen
        dense = self._weight.dense(self.compute, self._scratch)
        rows, columns = dense.shape
        may_fold = self.compute == torch.float32 and not self._is_stored
        if self._frozen is None or not may_fold or n_tokens * (rows + columns) < rows * columns:
            return dense, self._frozen
        return dense.addmm_(self._frozen.b, self._frozen.a), None


def _padded_rows(a: Tensor) -> Tensor:
    return torch.nn.functional.pad(a, (0, 0, 0, -a.shape[0] % RANK_STEP))


class _Product(torch.autograd.Function):
    """`Linear` for autograd: keeps x·Aᵀ for the gradient by B, and x only for those of A and of a sketch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor, a: Tensor | None, linear: Linear) -> Tensor:
        flat = x.flatten(0, -2)
        y, ax = linear.forward(flat, b, a)
        ctx.linear, ctx.x_shape = linear, x.shape
        _, needs_b, needs_a, _ = ctx.needs_input_grad
        # r values a token instead of n: without a sketch, and with A as it is, the input itself can go.
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
        # The weight is unpacked a second time in `linear.backward`, and only if something before this map is trained.
        needs_x, needs_b, needs_a, _ = ctx.needs_input_grad
        grad_b = (grad.t() @ ax)[:, : b.shape[1]].to(b.dtype) if needs_b else None  # gᵀ·(x·Aᵀ), without its padding
        grad_x, grad_a = linear.backward(grad, b, a, x if needs_a else None, needs_x=needs_x)
        return (
            None if grad_x is None else grad_x.view(*ctx.x_shape),
            grad_b,
            None if grad_a is None else grad_a.to(torch.float32),
            None,
        )
