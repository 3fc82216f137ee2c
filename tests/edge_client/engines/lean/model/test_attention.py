from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edge_client.engines.lean.model import attention
from edge_client.engines.lean.model.attention import attend
from edge_client.jobs.sizes import SCORES_BYTES

SHAPES = [(3, 5, 7, 11), (2, 3, 13, 4), (1, 2, 6, 6)]  # batch, heads, queries, keys


def inputs(shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys, values and a gradient, laid out as a model's linear maps leave them."""
    batch, heads, n_queries, n_keys = shape
    generator = torch.Generator().manual_seed(sum(shape))
    return [
        torch.randn(batch, n, heads, 8, generator=generator).to(dtype).transpose(1, 2)
        for n in (n_queries, n_keys, n_keys, n_queries)
    ]


def biases(shape: tuple[int, int, int, int]) -> dict[str, Tensor | None]:
    batch, heads, n_queries, n_keys = shape
    generator = torch.Generator().manual_seed(5)
    padding = torch.zeros(batch, 1, 1, n_keys)
    padding[0, ..., n_keys // 2 :] = -torch.inf
    position = torch.randn(1, heads, n_queries, n_keys, generator=generator)
    return {"none": None, "position": position, "padding": padding, "both": position + padding}


def reference(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, grad: Tensor) -> list[Tensor]:
    """Output and gradients in float64."""
    leaves = [tensor.detach().double().requires_grad_(True) for tensor in (q, k, v)]
    scores = leaves[0] @ leaves[1].transpose(2, 3)
    mixed = torch.softmax(scores if bias is None else scores + bias.double(), -1) @ leaves[2]
    return [mixed.detach(), *torch.autograd.grad(mixed, leaves, grad.double())]


@pytest.mark.parametrize("kind", ["none", "position", "padding", "both"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_output_and_gradients_equal_float64(
    kind: str, shape: tuple[int, int, int, int], dtype: torch.dtype, error: float
) -> None:
    """Both ways of computing attention, with every bias that T5 has, to the dtype's rounding."""
    q, k, v, grad = inputs(shape, dtype)
    bias = biases(shape)[kind]
    leaves = [tensor.detach().requires_grad_(True) for tensor in (q, k, v)]

    mixed = attend(*leaves, None if bias is None else bias.to(dtype))
    found = [mixed, *torch.autograd.grad(mixed, leaves, grad)]

    for ours, theirs in zip(found, reference(q, k, v, bias, grad), strict=True):
        assert (ours.detach().double() - theirs).abs().max() <= error * theirs.abs().max()


def test_parts_of_a_batch_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of one example at a time give the bits of all at once."""
    q, k, v, grad = inputs((4, 3, 10, 9), torch.bfloat16)
    bias = biases((4, 3, 10, 9))["both"]
    assert bias is not None

    def run() -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_(True) for tensor in (q, k, v)]
        mixed = attend(*leaves, bias.bfloat16())
        return [mixed.detach(), *torch.autograd.grad(mixed, leaves, grad)]

    whole = run()
    monkeypatch.setattr(attention, "SCORES_BYTES", 1)
    assert SCORES_BYTES > 1
    for one, other in zip(whole, run(), strict=True):
        assert torch.equal(one, other)
