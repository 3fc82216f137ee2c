"""Fitting of a reward model to rated answers, and its test on those of other sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from braid_common.base.files import base_digest, read_t5_config
from edge_client.data.tokeniser import Tokeniser
from edge_client.engines.lean.encoder_cache.encoder_pass import HIDDEN_BYTES, EncoderSpec
from edge_client.engines.lean.reward.features import features, reading
from edge_client.engines.lean.reward.head import RewardHead, save_head
from edge_client.engines.lean.reward.logistic import fit_logistic
from edge_client.errors import base_errors
from edge_client.jobs.messages import Format
from edge_client.rewards.agreement import Agreement, agreement
from edge_client.rewards.rated import RatedAnswer, RatedFile, split_by_source

RIDGES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
"""Penalties that are tried: features have deviation 1, and there are about as many of them as answers."""

DEVIATION_FLOOR = 1e-6
"""Of a feature that never changes."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted reward model.

    Attributes:
        head: the model.
        held_out: its agreement with people on answers to sources that it has not seen.
        ridge: the penalty that was best on a part of the training answers.
        n_train: answers that it was fitted to.
    """

    head: RewardHead
    held_out: Agreement
    ridge: float
    n_train: int


def fit_reward_model(
    base_folder: Path, rated: RatedFile, *, format: Format = "fp32", tell: Callable[[int, int], object]
) -> Fit:
    """Fit a head to the rated answers. `tell` hears how many of them are encoded, and tokens since the last time.

    Raises BaseModelError where the base cannot be used.
    """
    with base_errors():
        config = read_t5_config(base_folder)
    tokeniser = Tokeniser(base_folder, config.eos_id, config.vocab_size)
    answers = (*rated.train, *rated.held_out)
    readings = [reading(tokeniser, answer.source, answer.text) for answer in answers]
    spec = EncoderSpec(base_folder, format, torch.float32)
    values = features(spec, readings, tell=tell, hidden_bytes=HIDDEN_BYTES)
    n_train = len(rated.train)
    ridge = _best_ridge(values[:n_train], rated.train)
    head = _fitted(values[:n_train], _goodness(rated.train), ridge)
    probabilities = head.probabilities(values[n_train:]).numpy()
    return Fit(head, agreement(probabilities, _goodness(rated.held_out).numpy()), ridge, n_train)


def save_fit(path: Path, fit: Fit, base_folder: Path) -> None:
    """Write the model for its base. Raises BaseModelError, DiskError."""
    with base_errors():
        digest = base_digest(base_folder)
    save_head(path, fit.head, digest, {"auc": fit.held_out.auc, "accuracy": fit.held_out.accuracy})


def _best_ridge(values: Tensor, answers: Sequence[RatedAnswer]) -> float:
    """The penalty with the least loss on a fifth of the sources when it is fitted to the others."""
    places = {id(answer): i for i, answer in enumerate(answers)}
    # Another fifth than the one that was held out: the answers are those of the other four already.
    marked = [RatedAnswer(f"ridge {answer.source}", answer.text, answer.is_good) for answer in answers]
    places = {id(answer): i for i, answer in enumerate(marked)}
    train, test = ([places[id(answer)] for answer in part] for part in split_by_source(marked))
    is_good = _goodness(answers)
    if not test or len(set(is_good[train].tolist())) < 2:
        return RIDGES[len(RIDGES) // 2]

    def loss(ridge: float) -> float:
        probabilities = _fitted(values[train], is_good[train], ridge).probabilities(values[test])
        return float(torch.nn.functional.binary_cross_entropy(probabilities, is_good[test].double()))

    return min(RIDGES, key=loss)


def _fitted(values: Tensor, is_good: Tensor, ridge: float) -> RewardHead:
    mean, deviation = values.double().mean(0), values.double().std(0).clamp(min=DEVIATION_FLOOR)
    weights, offset = fit_logistic((values.double() - mean) / deviation, is_good, ridge)
    return RewardHead(mean.float(), deviation.float(), weights.float(), offset)


def _goodness(answers: Sequence[RatedAnswer]) -> Tensor:
    return torch.tensor([answer.is_good for answer in answers])
