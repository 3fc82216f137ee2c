from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from braid_common.base.t5_config import T5Config
from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.batches import Batch, collate
from edge_client.engines.lean.model.greedy import write_greedily
from edge_client.engines.lean.model.model import Model
from edge_client.engines.lean.model.t5 import Cache, position_buckets
from quantize.base import load_base

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(base_folder: Path) -> Model:
    return Model(load_base(base_folder, "fp32"), AdapterTensors(), "fp32")


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Three examples of unequal length, so that both sides are padded; one longer than every bucket."""
    generator = torch.Generator().manual_seed(3)
    lengths = ((21, 3), (5, 9), (1, 1))
    pairs = []
    for n_source, n_target in lengths:
        ids = torch.randint(2, 96, (n_source + n_target,), generator=generator).tolist()
        pairs.append(Pair((*ids[:n_source], 1), (*ids[n_source:], 1)))
    return collate(pairs, pad_id=0, start_id=0)


def test_logits_equal_transformers(model: Model, batch: Batch, reference: T5ForConditionalGeneration) -> None:
    """Every step's logits are those of transformers' T5, padding included."""
    theirs = reference(
        input_ids=batch.source, attention_mask=batch.source_mask.long(), decoder_input_ids=batch.decoder_input
    ).logits

    encoded = model.encode(batch.source, batch.source_mask)
    n_tokens = batch.decoder_input.shape[1]
    ours = [
        model.next_logits(batch.decoder_input[:, : n + 1], encoded, batch.source_mask, Cache()) for n in range(n_tokens)
    ]

    assert (torch.stack(ours, 1) - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_cache_changes_nothing(model: Model, batch: Batch) -> None:
    """Token by token with a cache gives the logits of the whole prefix at once."""
    encoded, cache = model.encode(batch.source, batch.source_mask), Cache()

    for n in range(batch.decoder_input.shape[1]):
        step = model.next_logits(batch.decoder_input[:, n : n + 1], encoded, batch.source_mask, cache)
        whole = model.next_logits(batch.decoder_input[:, : n + 1], encoded, batch.source_mask, Cache())

        torch.testing.assert_close(step, whole, rtol=1e-4, atol=1e-5)


def test_loss_equals_transformers(model: Model, batch: Batch, reference: T5ForConditionalGeneration) -> None:
    """The summed loss is transformers' mean times the number of labels."""
    theirs = reference(input_ids=batch.source, attention_mask=batch.source_mask.long(), labels=batch.labels).loss

    ours = model.loss_sum(batch)

    torch.testing.assert_close(ours / batch.n_target_tokens, theirs, rtol=1e-5, atol=0)


def test_greedy_text_equals_transformers(model: Model, batch: Batch, reference: T5ForConditionalGeneration) -> None:
    """write_greedily gives transformers' greedy tokens for a padded batch."""
    ours = write_greedily(model, batch.source, batch.source_mask, 12)

    theirs = reference.generate(  # its own cache looks for num_layers decoder blocks
        use_cache=False,
        input_ids=batch.source,
        attention_mask=batch.source_mask.long(),
        max_new_tokens=12,
        do_sample=False,
        num_beams=1,
    )
    for row, ids in zip(theirs.tolist(), ours, strict=True):
        end = row.index(1) if 1 in row else len(row)
        assert ids == row[1:end]


def test_tied_head_is_scaled(base_folder: Path, batch: Batch) -> None:
    """A T5 whose head is its embedding multiplies the hidden state by d_model**-0.5; v1.1 does not."""
    config = json.loads((base_folder / "config.json").read_text())

    tied = T5Config.parse(config | {"tie_word_embeddings": True})
    saved_by_transformers_5 = T5Config.parse(config | {"tie_word_embeddings": True, "scale_decoder_outputs": False})

    assert tied.scales_output
    assert not saved_by_transformers_5.scales_output
    assert not T5Config.parse(config).scales_output


def test_bf16_stays_near_fp32(base_folder: Path, batch: Batch, model: Model) -> None:
    """bf16 compute changes the loss by about a bf16 rounding, so norms and loss are taken in fp32."""
    half = Model(load_base(base_folder, "bf16"), AdapterTensors(), "bf16")

    ratio = float(half.loss_sum(batch) / model.loss_sum(batch))

    assert abs(ratio - 1) < 0.03


@pytest.mark.parametrize("both_ways", [True, False])
def test_position_buckets_equal_transformers(both_ways: bool) -> None:
    """Buckets of distances −300…300 are transformers'."""
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-300, 301)

    theirs = T5Attention._relative_position_bucket(distance, both_ways, 32, 128)

    assert torch.equal(position_buckets(distance, both_ways, 32, 128), theirs)
