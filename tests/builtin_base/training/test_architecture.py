"""The model is FLAN-T5's kind, and starts as one that knows nothing."""

from __future__ import annotations

import math

import pytest

from builtin_base.training.batches import Sources, draw
from tests.fakes.base_training import TINY

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from builtin_base.training import architecture  # noqa: E402
from builtin_base.training.settings import Settings  # noqa: E402
from builtin_base.training.state import fresh  # noqa: E402
from builtin_base.training.step import train_step, workers  # noqa: E402

pytestmark = pytest.mark.slow  # transformers alone takes seconds to import


def test_the_first_loss_is_that_of_knowing_nothing(sources: Sources) -> None:
    """Transformers' own initialisation of an untied head starts above 100."""
    with workers(1) as pool:
        losses = train_step(fresh(Settings(seed=3), TINY), draw(sources, 256, 3, 0), 0.1, 1.0, pool)

    assert losses == pytest.approx(dict.fromkeys(losses, math.log(8_000)), abs=0.3)


def test_the_head_is_a_matrix_of_its_own() -> None:
    """Regression: transformers 5 ties it whatever the configuration says, and a run was trained that way."""
    model = architecture.build(architecture.config(**TINY), seed=0)

    assert model.lm_head.weight is not model.shared.weight
    assert not model.config.scale_decoder_outputs


def test_sizes_describe_a_configuration() -> None:
    """What a checkpoint keeps of its configuration makes the same one again."""
    config = architecture.config(**TINY)

    assert architecture.config(**architecture.sizes(config.to_dict())).to_dict() == config.to_dict()
