"""Weights in 8 bits, so that the base fits into a wheel.

Every matrix ``NAME`` of shape (rows, columns) is an int8 tensor of that name and an fp32 tensor ``NAME.row_scale`` of
shape (rows,); value = int8 · row_scale[row]. All other tensors are fp32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

FORMAT = "braid-int8-rows"
STORAGE = "int8-rows"

REPEATED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Names under which transformers repeats `shared.weight`."""

_SUFFIX = ".row_scale"


def pack_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Store matrices as int8 with one scale per row.

    Args:
        weights: a T5's state dict.

    Returns:
        int8 ``NAME`` and fp32 ``NAME.row_scale`` for each matrix, fp32 for the rest; no repeated embeddings. The
        error of a value is at most half its row's scale, which is the row's largest magnitude / 127.

    Raises:
        ValueError: if a value is not finite.
    """
    packed: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if name in REPEATED:
            continue
        value = weight.detach().float().cpu()
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds values that are not finite: the run diverged, pack an earlier checkpoint")
        if value.ndim != 2:
            packed[name] = value.contiguous()
            continue
        largest = value.abs().amax(dim=1)  # (rows,)
        scale = torch.where(largest > 0, largest / 127.0, torch.ones_like(largest))
        packed[name] = (value / scale[:, None]).round().clamp(-127, 127).to(torch.int8).contiguous()
        packed[name + _SUFFIX] = scale.contiguous()
    return packed


def unpack_weights(packed: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Restore fp32 weights from what `pack_weights` gave."""
    return {
        name: value.float() * packed[name + _SUFFIX][:, None] if value.dtype == torch.int8 else value
        for name, value in packed.items()
        if not name.endswith(_SUFFIX)
    }
