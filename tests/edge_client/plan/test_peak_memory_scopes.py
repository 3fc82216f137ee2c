"""The memory prediction with a cache of encoder outputs, a frozen encoder, checkpointing, and on a GPU."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from aggregator.merge.rules import RULES
from braid_common.base.t5_config import T5Config
from edge_client.jobs.messages import CacheDtype, Compute, Format, TrainingMode
from edge_client.jobs.sizes import CUDA_CONTEXT_BYTES
from edge_client.plan.adapter_memory import begins_at_adapter
from edge_client.plan.peak_memory import Breakdown, predict_peak
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import RunInfo, Scope

BASE_T5 = {**SMALL_T5, "vocab_size": 32128, "d_model": 768, "d_kv": 64, "num_heads": 12, "d_ff": 2048}
BASE_T5 |= {"num_layers": 12, "num_decoder_layers": 12}
"""FLAN-T5-base's config."""

FORMATS: tuple[Format, ...] = get_args(Format)
COMPUTES: dict[Format, Compute] = {"fp32": "fp32", "bf16": "bf16", "int8": "bf16", "nf4": "bf16"}
SCOPES: tuple[Scope, ...] = ("all", "decoder")


def predict(
    scope: Scope = "decoder", format: Format = "bf16", micro_batch: int = 4, rank: int = 8, **options: Any
) -> Breakdown:
    """Of FLAN-T5-base on 512/64 tokens."""
    run = run_of(BASE_T5, {"scope": scope, "max_source_tokens": 512, "max_target_tokens": 64})
    return predict_peak(
        T5Config.parse(BASE_T5),
        run,
        TrainingMode(format=format, compute=COMPUTES[format], micro_batch=micro_batch, **options),
        [rank] * len(run.weights),
    )


@pytest.mark.parametrize("scope", SCOPES)
def test_checkpointing_spares_most_of_the_activations(scope: Scope) -> None:
    """Twelve blocks' tensors become one block's and twelve inputs."""
    without, with_it = predict(scope), predict(scope, checkpointing=True)

    grown = with_it.working_bytes - without.working_bytes
    assert with_it.activations_bytes + grown < 0.4 * without.activations_bytes


@pytest.mark.parametrize("format", FORMATS)
def test_a_cache_spares_the_encoder(format: Format) -> None:
    """Its blocks are not loaded while the decoder trains; int8 or bf16 on disk is the same in memory."""
    without, with_it = predict(format=format), predict(format=format, cache="bf16")

    assert with_it.total_bytes < without.total_bytes
    assert with_it.base_bytes < without.base_bytes
    assert predict(format=format, cache="int8") == with_it


def test_the_encoding_pass_is_counted_where_it_needs_most() -> None:
    """A base with a small decoder trains in less than one block of its encoder takes with its hidden states."""
    run = run_of(SMALL_T5, {"scope": "decoder", "micro_batch": 1, "max_source_tokens": 2048})
    ranks = [1] * len(run.weights)
    caches: tuple[CacheDtype, ...] = ("none", "bf16")
    none, cached = (
        predict_peak(
            T5Config.parse(SMALL_T5),
            run,
            TrainingMode(format="bf16", compute="bf16", micro_batch=1, cache=cache),
            ranks,
        )
        for cache in caches
    )

    assert "encoding_bytes" not in none.parts()
    assert cached.parts()["encoding_bytes"] > 0
    assert cached.total_bytes == sum(cached.parts().values())
    assert predict(cache="bf16").encoding_bytes == 0, "a large decoder needs more than the pass"


def test_a_frozen_encoder_is_there_but_not_trained() -> None:
    """The board that leaves it alone holds its weights and its context, and neither activations nor sketches of it."""
    run = run_of(BASE_T5, {"scope": "all", "max_source_tokens": 512, "max_target_tokens": 64})
    ranks = [0 if weight.is_encoder else 8 for weight in run.weights]
    trained, frozen, alone = (
        predict_peak(T5Config.parse(BASE_T5), run, TrainingMode(format="bf16", compute="bf16", micro_batch=4), ranks),
        predict_peak(
            T5Config.parse(BASE_T5),
            run,
            TrainingMode(format="bf16", compute="bf16", micro_batch=4, frozen_encoder=True),
            ranks,
        ),
        predict("decoder"),
    )

    assert frozen.base_bytes == trained.base_bytes == alone.base_bytes
    assert frozen.frozen_adapter_bytes == trained.frozen_adapter_bytes > alone.frozen_adapter_bytes
    assert frozen.sketch_bytes == alone.sketch_bytes < trained.sketch_bytes
    assert frozen.activations_bytes < 0.3 * trained.activations_bytes


def test_the_adapter_counts_where_texts_are_short() -> None:
    """Before the first step and after the last there are no activations, but the adapter in fp32 as it was read."""
    run = run_of(BASE_T5, {"scope": "all", "max_source_tokens": 32, "max_target_tokens": 8})
    short = predict_peak(
        T5Config.parse(BASE_T5), run, TrainingMode(format="nf4", compute="bf16", micro_batch=1), [32] * len(run.weights)
    )

    adapter = sum(16 * (weight.rows + weight.columns) + 32 * weight.columns for weight in run.weights)
    gradients = sum(32 * weight.rows for weight in run.weights)
    assert short.activations_bytes + short.working_bytes > 4 * (adapter - gradients), "which are not there yet"
    assert predict("all", "nf4", 8, 32).working_bytes < short.working_bytes, "activations are more than that"


def test_strands_come_in_place_of_frozen_factors_where_boards_begin_at_the_adapter() -> None:
    """What a trained weight takes is counted once, whichever of the two is more; its A has a gradient and moments."""
    sizes = {"scope": "all", "max_source_tokens": 64, "max_target_tokens": 16}
    beside, instead = (
        run_of(BASE_T5, {**sizes, "trains_a": True, "own_basis": own_basis}) for own_basis in (True, False)
    )
    n_sides = sum(weight.rows + weight.columns for weight in beside.weights)

    def parts(run: RunInfo, rank: int) -> Breakdown:
        return predict_peak(
            T5Config.parse(BASE_T5),
            run,
            TrainingMode(format="nf4", compute="bf16", micro_batch=1),
            [rank] * len(run.weights),
        )

    for rank in (0, 1, 2, 8):
        assert parts(beside, rank).frozen_adapter_bytes == 2 * 16 * n_sides
        assert parts(instead, rank).frozen_adapter_bytes == max(0, 2 * 16 - 16 * rank) * n_sides
        assert parts(instead, rank).strands_bytes == parts(beside, rank).strands_bytes
        assert parts(beside, rank).strands_bytes - parts(beside, 0).strands_bytes == 16 * rank * n_sides


@pytest.mark.parametrize("name", RULES)
def test_boards_begin_at_the_adapter_where_the_rule_says_so(name: str) -> None:
    """A board concludes it from the run's settings: the rule's own word must be the same."""
    said = RULES[name].TRAITS
    run = run_of(BASE_T5, {"trains_a": said.trains_a, "own_basis": said.own_basis})

    assert begins_at_adapter(run) == said.has_start


def test_a_gpu_adds_its_context() -> None:
    """And no more: a Jetson's GPU shares the board's memory."""
    grown = predict(device="cuda").kernels_bytes - predict().kernels_bytes

    assert grown == CUDA_CONTEXT_BYTES


def test_flan_t5_xl_fits_the_boards_it_is_meant_for() -> None:
    """DESIGN's promise for small boards: xl's decoder trains in 3 GiB, from its config alone."""
    xl = {**BASE_T5, "d_model": 2048, "d_ff": 5120, "num_heads": 32, "num_layers": 24, "num_decoder_layers": 24}
    run = run_of(xl, {"scope": "decoder", "max_source_tokens": 512, "max_target_tokens": 64})
    ranks = [8 if weight.name.endswith((".q", ".v")) else 0 for weight in run.weights]

    predicted = predict_peak(
        T5Config.parse(xl),
        run,
        TrainingMode(format="nf4", compute="bf16", micro_batch=1, checkpointing=True, cache="int8"),
        ranks,
    )

    assert predicted.total_bytes < 3 << 30
