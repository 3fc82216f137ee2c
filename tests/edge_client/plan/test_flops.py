"""The counted operations: against torch's own counter, and what must hold whatever the shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid_common.base.t5_config import T5Config
from edge_client.engines.lean.model.lora import RANK_STEP
from edge_client.plan.flops import MULTIPLY_ADD, NO_RANKS, Lengths, StepFlops, step_flops
from wire.manifest import t5_weights
from wire.messages import Trains
from wire.run import Scope

BATCH, SOURCE, TARGET = 3, 32, 8  # whole steps of the engine's padding, so that it computes nothing else
Ranks = Mapping[str, int]


def some_ranks(config: Mapping[str, Any], scope: Scope) -> dict[str, int]:
    """Ranks 0 to 4 steps of the engine's, unlike each other."""
    return {weight.name: RANK_STEP * (i % 5) for i, weight in enumerate(t5_weights(T5Config.parse(config), scope))}


def count(
    config: Mapping[str, Any],
    scope: Scope,
    ranks: Ranks,
    frozen_ranks: Ranks = NO_RANKS,
    *,
    trains_a: bool = False,
) -> StepFlops:
    return step_flops(
        T5Config.parse(config), scope, Lengths(BATCH, SOURCE, TARGET), ranks, frozen_ranks, trains_a=trains_a
    )


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["decoder", "all"])
@pytest.mark.parametrize("share", ["all", "some", "last"])
@pytest.mark.parametrize("trains_a", [False, True])
def test_the_count_is_torchs_own(
    scope: Scope, share: Literal["all", "some", "last"], trains_a: bool, base_folder: Path, config: dict[str, Any]
) -> None:
    """To the last operation, phase by phase, with attention made of plain products: a fused kernel computes its scores
    twice. Strands on all weights, on some, and on the last one only, where nothing below needs a gradient; B trained
    alone and with A."""
    ranks = some_ranks(config, scope)
    if share == "all":
        ranks = {name: RANK_STEP + rank for name, rank in ranks.items()}
    elif share == "last":
        ranks = {f"decoder.block.{config['num_decoder_layers'] - 1}.layer.2.DenseReluDense.wo": RANK_STEP}
    frozen_ranks = {name: i % 3 for i, name in enumerate(some_ranks(config, "all"))}

    counted = count(config, scope, ranks, frozen_ranks, trains_a=trains_a)

    assert counted == by_torch(base_folder, scope, ranks, frozen_ranks, "both" if trains_a else "b")


def in_place(_: object, a: tuple[int, int], b: tuple[int, int], **__: object) -> int:
    """Operations of a product of these shapes that is added in place, which torch's counter does not know."""
    return MULTIPLY_ADD * a[0] * a[1] * b[1]


def by_torch(folder: Path, scope: Scope, ranks: Ranks, frozen_ranks: Ranks, trains: Trains) -> StepFlops:
    """The engine's own step under torch's counter, the head's gradient told apart by a step that wants none."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from edge_client.data.tokeniser import Pair
    from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
    from edge_client.engines.lean.model.batches import collate
    from edge_client.engines.lean.model.lora import Factors
    from edge_client.engines.lean.model.model import Model, start_training
    from quantize.base import load_base

    base = load_base(folder, "fp32")
    shapes = {weight.name: (weight.rows, weight.columns) for weight in t5_weights(base.config, "all")}
    context = {}
    for name, rank in frozen_ranks.items():
        rows, columns = shapes[name]
        context[name] = Factors(torch.ones(rows, rank), torch.ones(rank, columns))
    basis = {name: torch.ones(rank, shapes[name][1]) for name, rank in ranks.items()}
    model = Model(base, AdapterTensors(context, basis), "fp32", trains_encoder=scope == "all", trains=trains)
    batch = collate([Pair((5,) * SOURCE, (6,) * TARGET)] * BATCH, 0, 0)

    def counter() -> FlopCounterMode:
        return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})

    with sdpa_kernel(SDPBackend.MATH):
        with counter() as encode, torch.no_grad():
            encoded = model.encode(batch.source, None)
        given = encoded if scope == "decoder" else None
        with counter() as untrained:
            model.loss_sum(batch, given)
        start_training(model.linears)
        with counter() as trained:
            loss = model.loss_sum(batch, given)
        with counter() as backward:
            loss.backward()  # type: ignore[no-untyped-call]
    forward = untrained.get_total_flops()
    return StepFlops(
        encode=encode.get_total_flops(),
        forward=forward,
        head_gradient=trained.get_total_flops() - forward,
        backward=backward.get_total_flops(),
    )


def test_without_strands_there_is_nothing_to_go_back_for(config: dict[str, Any]) -> None:
    """No gradient is wanted anywhere, the head's included."""
    flops = count(config, "all", {})

    assert (flops.head_gradient, flops.backward) == (0, 0)
    assert flops.step == flops.forward > flops.encode > 0


def test_the_frozen_encoder_costs_no_step_anything(config: dict[str, Any]) -> None:
    """In decoder scope a longer encoder changes the encoding pass only."""
    deeper = config | {"num_layers": 5}

    before, after = (count(one, "decoder", some_ranks(one, "decoder")) for one in (config, deeper))

    assert after.encode > before.encode
    assert after.step == before.step


def test_lora_needs_four_operations_per_weight_and_token(config: dict[str, Any]) -> None:
    """With wide weights, short texts and few strands: two forward, two backward, none for the weights' own gradient."""
    wide = config | {"d_model": 4096, "d_kv": 512, "num_heads": 8, "d_ff": 8192, "vocab_size": 32}
    weights = t5_weights(T5Config.parse(wide), "all")

    flops = step_flops(T5Config.parse(wide), "all", Lengths(1, 16, 16), {weight.name: 1 for weight in weights})

    n_products = sum(weight.rows * weight.columns for weight in weights) * 16
    assert 3.7 < flops.step / n_products <= 4.1  # the first blocks' queries, keys and values need no input gradient


@given(st.integers(1, 4), st.sampled_from(["decoder", "all"]))
def test_a_batch_costs_as_many_times_one_example(factor: int, scope: Scope) -> None:
    """Every part grows with the batch and with nothing but the batch."""
    config = {"d_model": 24, "d_kv": 4, "num_heads": 3, "d_ff": 56, "vocab_size": 50, "num_layers": 2}
    config |= {"model_type": "t5", "feed_forward_proj": "gated-gelu"}  # type: ignore[dict-item]
    ranks = some_ranks(config, scope)

    one, many = (step_flops(T5Config.parse(config), scope, Lengths(batch, 20, 7), ranks) for batch in (1, factor))

    assert many == StepFlops(
        encode=factor * one.encode,
        forward=factor * one.forward,
        head_gradient=factor * one.head_gradient,
        backward=factor * one.backward,
    )
