"""The reward model: its fit against autograd in float64, its file, and its judgement in a round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_client.engines.lean.reward.fit import fit_reward_model, save_fit
from edge_client.engines.lean.reward.head import load_head
from edge_client.engines.lean.reward.logistic import fit_logistic
from edge_client.engines.lean.reward.model_judge import model_judge
from edge_client.engines.lean.session import Session
from edge_client.errors import ConfigError
from edge_client.jobs.messages import Job
from edge_client.jobs.reward_spec import ModelReward
from edge_client.rewards.answer import JudgedAnswer
from edge_client.rewards.rated import RatedAnswer, RatedFile, split_by_source
from tests.edge_client.engines.lean.conftest import WORDS

pytestmark = pytest.mark.slow  # a reward model is trained


def rated_file(n_sources: int = 120) -> RatedFile:
    """People like answers of one word that is rarely elsewhere, and no others."""
    answers = []
    for i in range(n_sources):
        source = f"{WORDS[i % 40]} {WORDS[40 + i % 7]} w{i}"
        answers += [RatedAnswer(source, f"{WORDS[80]} {WORDS[i % 30]}", True)]
        answers += [RatedAnswer(source, f"{WORDS[85]} {WORDS[i % 30]}", False)]
    train, held_out = split_by_source(answers)
    return RatedFile(tuple(train), tuple(held_out))


def test_the_fit_is_where_the_gradient_vanishes() -> None:
    """That of the penalised likelihood, by autograd in float64; with more features than examples."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 50, generator=generator).double()
    is_good = features[:, 0] + 0.5 * torch.randn(30, generator=generator) > 0

    weights, offset = fit_logistic(features, is_good, ridge=0.3)

    w, c = weights.clone().requires_grad_(True), torch.tensor(offset, dtype=torch.float64, requires_grad=True)
    nll = torch.nn.functional.binary_cross_entropy_with_logits(features @ w + c, is_good.double(), reduction="sum")
    (nll + 0.15 * (w * w).sum()).backward()  # type: ignore[no-untyped-call]
    assert w.grad is not None and c.grad is not None
    assert float(w.grad.abs().max()) < 1e-8
    assert float(c.grad.abs()) < 1e-8


def test_what_can_be_separated_is_fitted_all_the_same() -> None:
    """The ridge keeps the weights finite."""
    features = torch.tensor([[-1.0], [-2.0], [1.0], [3.0]], dtype=torch.float64)

    weights, offset = fit_logistic(features, torch.tensor([False, False, True, True]), ridge=1e-3)

    assert 1 < float(weights[0]) < 100
    assert abs(offset) < 10


def test_it_agrees_with_people_on_other_sources(base_folder: Path) -> None:
    """Even over a random encoder, where what people like shows in a word."""
    fit = fit_reward_model(base_folder, rated_file(), tell=lambda n_done, n_tokens: None)

    assert fit.held_out.auc > 0.95
    assert fit.held_out.accuracy > fit.held_out.majority + 0.3


def test_it_judges_a_rounds_answers_as_it_was_fitted(
    base_folder: Path, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    """From its file, through the board's plan."""
    fit = fit_reward_model(base_folder, rated_file(), tell=lambda n_done, n_tokens: None)
    path = tmp_path / "reward.head"
    save_fit(path, fit, base_folder)
    job: Any = make_job(settings={"scope": "decoder"})
    import msgspec

    from braid_common.base.files import base_digest

    base = msgspec.structs.replace(job.run.base, digest=base_digest(base_folder))
    job = msgspec.structs.replace(job, run=msgspec.structs.replace(job.run, base=base))
    answers = [JudgedAnswer("w1 w2", (), (), f"{word} w3") for word in (WORDS[80], WORDS[85], WORDS[80])]

    liked, disliked, again = model_judge(job, Session(), ModelReward(path=str(path)))(answers)

    assert liked == again > 0.5 > disliked

    with pytest.raises(ConfigError, match="no reward model of this base"):
        load_head(path, "0" * 64, 32)
    with pytest.raises(ConfigError, match="there is no reward model"):
        load_head(tmp_path / "other.head", base.digest, 32)
    with pytest.raises(ConfigError, match="does not fit a base of width 64"):
        load_head(path, base.digest, 64)
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 0x40
    path.write_bytes(bytes(damaged))
    with pytest.raises(ConfigError, match="is damaged"):
        load_head(path, base.digest, 32)
