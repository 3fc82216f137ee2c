"""Gradient checkpointing: a block keeps its inputs alone and is computed again in the backward pass.

Chen et al. 2016 (arXiv 1604.06174). torch.utils.checkpoint does the same, but the first call imports 70 MiB of tracing
tools, more than a small base's activations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def recomputed(block: Callable[..., Tensor], inputs: Sequence[Tensor], trained: Sequence[Tensor]) -> Tensor:
    """block(*inputs), where only `inputs` are kept for the backward pass.

    `trained` are the leaves inside the block that want gradients: autograd cannot see them otherwise. The block must
    give the same result each time; here it does, for the frozen base has no dropout.
    """
    y: Tensor = _Recomputed.apply(block, len(inputs), *inputs, *trained)  # type: ignore[no-untyped-call]
    return y


class _Recomputed(torch.autograd.Function):
    """A block for autograd that keeps its inputs, and runs again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, block: Callable[..., Tensor], n_inputs: int, *tensors: Tensor) -> Tensor:
        ctx.block, ctx.n_inputs = block, n_inputs
        ctx.save_for_backward(*tensors)
        return block(*tensors[:n_inputs])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        inputs = [
            tensor.detach().requires_grad_(needs)
            for tensor, needs in zip(tensors[: ctx.n_inputs], wanted, strict=False)
        ]
        leaves = [*inputs, *tensors[ctx.n_inputs :]]
        differentiated = [leaf for leaf, needs in zip(leaves, wanted, strict=True) if needs]
        with torch.enable_grad():
            y = ctx.block(*inputs)
            pull = _Pull.apply(y, grads[0])  # type: ignore[no-untyped-call]
        gradients = iter(torch.autograd.grad(pull, differentiated, allow_unused=True))
        return None, None, *(next(gradients) if needs else None for needs in wanted)


class _Pull(torch.autograd.Function):
    """A number whose gradient by `y` is `grad`: asked for the gradient of anything but a number, torch imports its
    symbolic algebra, 33 MiB of it."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        return y.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = ctx.saved_tensors
        return grad, None
