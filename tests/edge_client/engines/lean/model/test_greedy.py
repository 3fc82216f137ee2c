"""Drawn texts: by the model's probabilities, and the same whether rows that have ended are kept or left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.batches import collate
from edge_client.engines.lean.model.greedy import drawn, write
from edge_client.engines.lean.model.model import Model
from quantize.base import load_base

pytestmark = pytest.mark.slow


def test_draws_follow_the_probabilities() -> None:
    """Within five deviations of 20,000 draws; never one of probability 0, wherever it stands."""
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    n_draws = 20_000

    places = drawn(probabilities.repeat(n_draws, 1), torch.Generator().manual_seed(4))

    shares = torch.bincount(places[:, 0], minlength=7) / n_draws
    assert (shares[probabilities == 0] == 0).all()
    assert ((shares - probabilities).abs() < 5 * (probabilities * (1 - probabilities) / n_draws).sqrt() + 1e-9).all()


def test_the_largest_number_draws_the_last_place_that_may_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw that is rounded up to the sum itself."""
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.ones(*shape))

    assert drawn(torch.tensor([[0.5, 0.5, 0.0]]), torch.Generator()).item() == 1


def test_rows_that_have_ended_are_left_out(base_folder: Path) -> None:
    """Texts end at different lengths, and those of the rows that stay are the same as in the whole batch."""
    model = Model(load_base(base_folder, "fp32"), AdapterTensors(), "fp32")
    sources = [Pair((*range(2, 5 + 3 * n), 1), (1,)) for n in range(5)]
    batch = collate(sources, pad_id=0, start_id=0)
    sizes: list[int] = []

    def choose(logits: Tensor) -> Tensor:
        """The likeliest token, of those whose number is the next one's remainder: some rows end soon."""
        sizes.append(len(logits))
        best = logits[:, 1:].argmax(1, keepdim=True) + 1
        return torch.where(best % 5 == len(sizes) % 5, torch.ones_like(best), best)

    whole = write(model, batch.source, batch.source_mask, 12, choose)
    n_whole = len(sizes)
    assert set(sizes) == {5}
    assert len({len(ids) for ids in whole}) > 2, "the case: they end one after another"

    sizes.clear()
    narrowed = write(model, batch.source, batch.source_mask, 12, choose, narrows=True)

    assert narrowed == whole
    assert len(sizes) == n_whole
    assert sizes[-1] < 3 < sizes[0]
