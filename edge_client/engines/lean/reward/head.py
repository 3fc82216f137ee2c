"""A reward model: a logistic head on features of the frozen encoder, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edge_client.engines.lean.reward.features import n_features
from edge_client.engines.lean.tensor_file import load_tensors, save_tensors
from edge_client.errors import ConfigError

FORMAT = 1
"""Version of features and file; a head of another one is refused."""

_NAMES = ("mean", "deviation", "weights")


@dataclass(frozen=True, slots=True)
class RewardHead:
    """P(good) = sigmoid(offset + Σ weights·(features - mean)/deviation).

    Attributes:
        mean, deviation, weights: (features,) fp32.
        offset: what stays where every feature is at its mean.
    """

    mean: Tensor
    deviation: Tensor
    weights: Tensor
    offset: float

    def probabilities(self, features: Tensor) -> Tensor:
        """(n,) float64, from features (n, …) fp32."""
        scaled = (features.double() - self.mean.double()) / self.deviation.double()
        return torch.sigmoid(scaled @ self.weights.double() + self.offset)


def save_head(path: Path, head: RewardHead, base_digest: str, numbers: Mapping[str, float]) -> None:
    """Write a head, for one base, with `numbers` on how good it is. Raises DiskError."""
    matrices = {name: getattr(head, name)[None, :].float() for name in _NAMES}
    save_tensors(path, _key(base_digest), matrices, {"offset": head.offset, **numbers})


def load_head(path: Path, base_digest: str, d_model: int) -> RewardHead:
    """The head in a file. Raises ConfigError where there is none, it is damaged, or made for another base."""
    hint = "write it anew with `edge-client reward fit`, with this run's base as --model"
    if not path.exists():
        raise ConfigError(f"there is no reward model {path}", hint)
    saved = load_tensors(path, _key(base_digest))
    if saved is None:
        raise ConfigError(f"{path} is damaged, or no reward model of this base", hint)
    shape = (1, n_features(d_model))
    if {name: saved.shapes.get(name) for name in _NAMES} != dict.fromkeys(_NAMES, shape):
        raise ConfigError(f"{path} does not fit a base of width {d_model}", hint)
    tensors = {name: values[0].clone() for name, values in saved.read_all().items()}
    head = RewardHead(**tensors, offset=saved.numbers["offset"])
    if not all(bool(torch.isfinite(values).all()) for values in tensors.values()) or not bool(
        (head.deviation > 0).all()
    ):
        raise ConfigError(f"{path} holds numbers that are not finite", hint)
    return head


def _key(base_digest: str) -> str:
    return f"reward head {FORMAT} {base_digest}"
