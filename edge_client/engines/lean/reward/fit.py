"""Fitting of a reward model to rated answers, and its test on those of other sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from braid_common.base.files import base_digest, read_t5_config
from edge_client.data.tokeniser import Tokeniser
from edge_client.engines.lean.encoder_cache.encoder_pass import HIDDEN_BYTES, EncoderSpec
from edge_client.engines.lean.reward.features import features
from edge_client.engines.lean.reward.head import RewardHead, save_head
from edge_client.engines.lean.reward.logistic import fit_logistic
from edge_client.errors import base_errors
from edge_client.host.board import probe_board
from edge_client.jobs.messages import Format
from edge_client.rewards.agreement import Agreement, Ranked, agreement, area, same_source
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
        length_auc: the area that the answers' length alone reaches on the held-out ones, with longer ones or shorter
            ones above, as is better on those that the head was fitted to.
        same_source: how it ranks answers to the same source, which is all that learning from rewards sees of it.
    """

    head: RewardHead
    held_out: Agreement
    ridge: float
    n_train: int
    length_auc: float
    same_source: Ranked


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
    spec = EncoderSpec(base_folder, format, torch.bfloat16 if probe_board().bf16_fast else torch.float32)
    texts = [(answer.source, answer.text) for answer in answers]
    values = features(spec, tokeniser, texts, tell=tell, hidden_bytes=HIDDEN_BYTES)
    n_train = len(rated.train)
    ridge = _best_ridge(values[:n_train], rated.train)
    head = _fitted(values[:n_train], _goodness(rated.train), ridge)
    probabilities, is_good = head.probabilities(values[n_train:]).numpy(), _goodness(rated.held_out).numpy()
    sources = [answer.source for answer in rated.held_out]
    return Fit(
        head,
        agreement(probabilities, is_good),
        ridge,
        n_train,
        length_auc=_length_auc(rated),
        same_source=same_source(probabilities, is_good, sources),
    )


def save_fit(path: Path, fit: Fit, base_folder: Path) -> None:
    """Write the model for its base. Raises BaseModelError, DiskError."""
    with base_errors():
        digest = base_digest(base_folder)
    save_head(path, fit.head, digest, {"auc": fit.held_out.auc, "accuracy": fit.held_out.accuracy})


def _length_auc(rated: RatedFile) -> float:
    train, held_out = (
        area(lengths[is_good], lengths[~is_good])
        for lengths, is_good in (
            (np.array([len(answer.text) for answer in part], float), _goodness(part).numpy())
            for part in (rated.train, rated.held_out)
        )
    )
    return held_out if train >= 0.5 else 1 - held_out


def _best_ridge(values: Tensor, answers: Sequence[RatedAnswer]) -> float:
    """The penalty with the least loss on a fifth of the sources when it is fitted to the others."""
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
