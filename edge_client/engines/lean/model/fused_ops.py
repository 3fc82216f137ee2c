"""RMS norm and gated GELU with hand-written gradients that keep less for backward than autograd would.

Every layer keeps these tensors until its backward, so each tensor saved here is paid `layers` times in peak memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# torch's autograd.Function is untyped: its `apply` takes and gives Any.


class _RmsNorm(torch.autograd.Function):
    """RMS norm for autograd: keeps x and one number per row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
        values = x.to(torch.float32, copy=True)
        length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        inverse = torch.rsqrt(length.square_().div_(x.shape[-1]).add_(epsilon))
        ctx.save_for_backward(x, inverse, scale)
        return values.mul_(inverse).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, inverse, scale = ctx.saved_tensors
        normed = x.float() * inverse
        grad = grads[0].float() * scale
        # For n = x/rms: ∂x = (g - n·mean(g∘n))/rms, as rms changes with every entry of x.
        inner = (grad * normed).mean(-1, keepdim=True)
        return grad.addcmul_(normed, inner, value=-1).mul_(inverse).to(x.dtype), None, None


class _GatedGelu(torch.autograd.Function):
    """Gated GELU for autograd: keeps its inputs, and computes the GELU again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(gate, value)
        return torch.nn.functional.gelu(gate, approximate="tanh").mul_(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, value = ctx.saved_tensors
        grad_value = torch.nn.functional.gelu(gate, approximate="tanh").mul_(grads[0])
        grad_gate = torch.ops.aten.gelu_backward(grads[0] * value, gate, approximate="tanh")
        return grad_gate, grad_value


def rms_norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """T5's layer norm: x / rms(x) · scale, no mean, no bias; statistics in fp32 whatever x is.

    Args:
        x: (…, d) fp32 or bf16.
        scale: (d,) fp32, frozen.
        epsilon: added to the mean square.

    Returns:
        A tensor of x's shape and dtype.
    """
    y: Tensor = _RmsNorm.apply(x, scale, epsilon)  # type: ignore[no-untyped-call]
    return y


def gated_gelu(gate: Tensor, value: Tensor) -> Tensor:
    """T5's gated GELU: gelu(gate) · value with the tanh approximation ("gelu_new").

    Args:
        gate: (…, d_ff).
        value: (…, d_ff), of the same dtype.

    Returns:
        (…, d_ff).
    """
    y: Tensor = _GatedGelu.apply(gate, value)  # type: ignore[no-untyped-call]
    return y
