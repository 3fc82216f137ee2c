"""A stop loses nothing: weights, optimizers and the order of batches all come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builtin_base.training import batches
from builtin_base.training.settings import Settings
from tests.fakes.base_training import TINY

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import builtin_base  # noqa: E402
from builtin_base.training import state, step  # noqa: E402

pytestmark = pytest.mark.slow  # transformers alone takes seconds to import
SETTINGS = Settings(batch_tokens=256, warmup_steps=2)


def steps(run: state.State, sources: batches.Sources, n_steps: int) -> list[dict[str, float]]:
    """Train some steps and give their losses."""
    with step.workers(2) as pool:
        return [step.train_step(run, batches.draw(sources, 256, 0, run.step), 1.0, 1.0, pool) for _ in range(n_steps)]


def test_resume_goes_on_as_if_never_stopped(tmp_path: Path, sources: batches.Sources) -> None:
    """Two steps, a stop and two more give the weights of four steps."""
    whole = state.fresh(SETTINGS, TINY)
    expected = steps(whole, sources, 4)
    stopped = state.fresh(SETTINGS, TINY)
    steps(stopped, sources, 2)
    state.save(stopped, tmp_path)

    resumed = state.resume(SETTINGS, tmp_path)
    assert resumed is not None
    losses = steps(resumed, sources, 2)

    assert losses == expected[2:]
    assert (resumed.step, resumed.n_tokens) == (whole.step, whole.n_tokens)
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_rates_are_those_of_the_settings(tmp_path: Path) -> None:
    """A rate that was edited between two starts counts from the second on."""
    state.save(state.fresh(SETTINGS, TINY), tmp_path)

    resumed = state.resume(Settings(matrix_lr=1e-4), tmp_path)

    assert resumed is not None
    assert resumed.optimizers[0].param_groups[1]["base_lr"] == 1e-4


def test_a_folder_without_a_checkpoint_has_nothing_to_resume(tmp_path: Path) -> None:
    """A run that never saved begins from weights."""
    assert state.resume(SETTINGS, tmp_path) is None


def test_a_run_begins_at_the_weights_of_a_model_folder() -> None:
    """The shipped base, packed in 8 bits, is where a run begins; the working copy has the same weights rounded."""
    first = state.from_weights(SETTINGS, builtin_base.folder())

    assert sum(weight.numel() for weight in first.model.parameters()) > 10_000_000
    assert torch.equal(first.model.lm_head.weight.to(torch.bfloat16), first.working.lm_head.weight)


def test_training_lowers_the_loss(sources: batches.Sources) -> None:
    """Even a tiny model learns a sentence."""
    losses = steps(state.fresh(SETTINGS, TINY), sources, 12)

    assert losses[-1]["summary"] < losses[0]["summary"] - 0.1


def test_loss_that_is_not_finite_changes_nothing(sources: batches.Sources) -> None:
    """A bad batch is passed over: the step counts, the weights stay."""
    spoilt = state.fresh(SETTINGS, TINY)
    before = spoilt.model.lm_head.weight.detach().clone()
    spoilt.working.lm_head.weight.data[:] = float("nan")
    (losses,) = steps(spoilt, sources, 1)
    assert all(np.isnan(loss) for loss in losses.values()) and spoilt.step == 1
    assert torch.equal(spoilt.model.lm_head.weight, before)
