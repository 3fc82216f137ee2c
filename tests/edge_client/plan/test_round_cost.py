"""What a round costs in bytes and operations, and the limits that people type."""

from __future__ import annotations

from typing import Any

import pytest

from braid_common.base.t5_config import T5Config
from edge_client.jobs.messages import TrainingMode
from edge_client.plan.cache_budget import NO_CACHE, CacheBudget
from edge_client.plan.round_cost import PASS_OPERATIONS, RoundWork, fixed_traffic, strand_traffic
from edge_client.plan.strand_selection import basis_rows
from edge_client.plan.training_mode import KEPT_LEARNING
from tests.fakes.runs import SMALL_T5, run_of
from wire.checks import basis_rank
from wire.codec import encode
from wire.dtypes import sketch_dtype
from wire.fields import Dtype
from wire.messages import Adapter, AdapterPart, Tensor, Update, UpdatePart, tensor_bytes
from wire.run import RunInfo

CONFIG = {**SMALL_T5, "num_layers": 3, "num_decoder_layers": 2}
BASE = T5Config.parse(CONFIG)


def zeros(dtype: Dtype, rows: int, columns: int) -> Tensor:
    data_bytes, scale_bytes = tensor_bytes(dtype, rows * columns)
    return Tensor(dtype=dtype, shape=(rows, columns), data=bytes(data_bytes), scales=bytes(scale_bytes))


def message_bytes(run: RunInfo, ranks: list[int], *, frozen_encoder: bool) -> int:
    """Of the adapter and the update that a round with these ranks exchanges, sketches included."""
    settings, up = run.settings, run.settings.upload
    down: Dtype = "fp32" if up == "fp32" else "bf16"
    adapter, update = [], []
    for weight, rank in zip(run.weights, ranks, strict=True):
        m, n, s = weight.rows, weight.columns, basis_rank(weight, run.server_rank)
        adapter.append(
            AdapterPart(
                name=weight.name,
                frozen_b=zeros(down, m, s),
                frozen_a=zeros(down, s, n),
                basis=zeros(down, 0 if settings.own_basis else rank, n),
            )
        )
        if not (frozen_encoder and weight.is_encoder):
            sketch = zeros(sketch_dtype(run.settings.upload), basis_rank(weight, run.max_rank), n)
            a = zeros(up, rank, n) if settings.trains_a else None
            update.append(UpdatePart(name=weight.name, b=zeros(up, m, rank), a=a, sketch=sketch))
    sent: dict[str, Any] = {"protocol": 1, "run_id": run.run_id, "version": 1, "manifest": run.manifest}
    messages = (
        Adapter(**sent, parts=tuple(adapter)),
        Update(**sent, round=1, n_examples=1, parts=tuple(update)),
    )
    return sum(len(encode(message)) for message in messages)


# --- bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upload", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("frozen_encoder", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("trains_a", "own_basis"), [(False, False), (False, True), (True, True)])
def test_traffic_is_that_of_the_messages(
    upload: Dtype, frozen_encoder: bool, share: float, trains_a: bool, own_basis: bool
) -> None:
    """What is reckoned is what the encoded messages of the round take, and at most 2 % more."""
    run = run_of(CONFIG, {"upload": upload, "trains_a": trains_a, "own_basis": own_basis})
    ranks = [int(share * rows) for rows in basis_rows(run)]
    if frozen_encoder:
        ranks = [0 if w.is_encoder else r for w, r in zip(run.weights, ranks, strict=True)]

    per_strand = sum(rank * cost for rank, cost in zip(ranks, strand_traffic(run), strict=True))
    reckoned_bytes = fixed_traffic(run, frozen_encoder=frozen_encoder) + per_strand

    sent_bytes = message_bytes(run, ranks, frozen_encoder=frozen_encoder)
    assert sent_bytes <= reckoned_bytes <= 1.02 * sent_bytes


@pytest.mark.parametrize(("max_rank", "server_rank"), [(8, 32), (32, 32), (32, 8)])
@pytest.mark.parametrize("upload", ["fp32", "bf16", "int4"])
@pytest.mark.parametrize("beside_rest", [False, True])
def test_traffic_of_boards_that_train_the_global_adapter_itself(
    upload: Dtype, beside_rest: bool, max_rank: int, server_rank: int
) -> None:
    """Strands come in place of frozen factors, or of a part of them: no round moves more than is reckoned, whichever
    weights are trained at which ranks, and evaluating moves no more than training nothing. With all strands or none it
    is as good as exact."""
    run = run_of(CONFIG, {"upload": upload, "trains_a": True}, max_rank=max_rank, server_rank=server_rank)
    rows = basis_rows(run)
    some = [rank if i % 3 else 0 for i, rank in enumerate(rows)]
    for ranks in ([0] * len(rows), [1] * len(rows), some, list(rows)):
        per_strand = sum(rank * cost for rank, cost in zip(ranks, strand_traffic(run), strict=True))
        reckoned_bytes = fixed_traffic(run, frozen_encoder=False) + per_strand

        sent_bytes = begun_bytes(run, ranks, beside_rest=beside_rest)
        assert sent_bytes <= reckoned_bytes
        if not any(ranks) or (ranks == list(rows) and max_rank >= server_rank):
            assert reckoned_bytes <= 1.03 * sent_bytes


def begun_bytes(run: RunInfo, ranks: list[int], *, beside_rest: bool) -> int:
    """Of a round in which B and A are trained from where the server says, beside the rest of the adapter or nothing."""
    up = run.settings.upload
    down: Dtype = "fp32" if up == "fp32" else "bf16"
    frozen: Dtype = "fp32" if up == "fp32" else "int8"
    adapter, update = [], []
    for weight, rank in zip(run.weights, ranks, strict=True):
        m, n, s = weight.rows, weight.columns, basis_rank(weight, run.server_rank)
        rest = max(0, s - rank) if beside_rest or not rank else 0
        context = {"frozen_b": zeros(frozen, m, rest), "frozen_a": zeros(frozen, rest, n)}
        start = zeros(down, m, rank) if rank else None
        adapter.append(AdapterPart(name=weight.name, **context, basis=zeros(down, rank, n), start_b=start))
        sketch = zeros(sketch_dtype(run.settings.upload), basis_rank(weight, run.max_rank), n)
        a = zeros(up, rank, n) if rank else None
        update.append(UpdatePart(name=weight.name, b=zeros(up, m, rank), a=a, sketch=sketch))
    sent: dict[str, Any] = {"protocol": 1, "run_id": run.run_id, "version": 1, "manifest": run.manifest}
    messages = (Adapter(**sent, parts=tuple(adapter)), Update(**sent, round=1, n_examples=1, parts=tuple(update)))
    return sum(len(encode(message)) for message in messages)


# --- operations ----------------------------------------------------------------------------------------------------


def operations(scope: str = "all", **changes: Any) -> float:
    """Of a round trained in bf16, eight examples at a time, but for `changes` of the mode."""
    run = run_of(CONFIG, {"scope": scope, "batch": 16, "local_steps": 4})
    fields: dict[str, Any] = {"format": "bf16", "compute": "bf16", "micro_batch": 8, **changes}
    return RoundWork(BASE, run, NO_CACHE).operations(TrainingMode(**fields))


def test_what_saves_memory_costs_operations() -> None:
    """Checkpointing, a smaller micro-batch, fewer bits, no cache: each is slower; a frozen encoder is quicker."""
    assert operations() < operations(checkpointing=True) < 2 * operations()
    assert operations() < operations(micro_batch=4) < operations(micro_batch=1)
    assert operations() < operations(format="int8") < operations(format="nf4")
    assert operations("decoder", cache="bf16") < operations("decoder") < operations()
    assert operations("decoder") < operations(frozen_encoder=True) < operations()  # the encoder has a context there


def test_the_first_round_fills_the_cache() -> None:
    """Its encoding is counted once per distinct example, evaluated ones included, and is nothing without a cache."""
    run = run_of(CONFIG, {"scope": "decoder", "batch": 16, "local_steps": 4})
    few, many = (RoundWork(BASE, run, CacheBudget(1 << 30, n, 10)) for n in (30, 500))
    cached, uncached = (
        TrainingMode(format="bf16", compute="bf16", micro_batch=8, cache=cache) for cache in ("int8", "none")
    )

    assert few.encoding(cached) / (30 + 10) == pytest.approx(many.encoding(cached) / (64 + 10))
    assert many.encoding(uncached) == 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_strand_costs_what_leaving_it_out_saves(checkpointing: bool) -> None:
    """Strands' operations add up to no more than the round's, and read tokens count: a cross-attention key, which reads
    the source, costs more than a query of the same shape."""
    run = run_of(CONFIG, {"scope": "decoder", "batch": 16, "local_steps": 4})
    work, mode = (
        RoundWork(BASE, run, NO_CACHE),
        TrainingMode(format="bf16", compute="bf16", micro_batch=8, checkpointing=checkpointing),
    )

    costs = dict(zip((weight.name for weight in run.weights), work.strand_operations(mode), strict=True))

    assert all(cost > 0 for cost in costs.values())
    in_all = sum(rank * cost for rank, cost in zip(basis_rows(run), costs.values(), strict=True))
    assert in_all < work.operations(mode)
    assert costs["decoder.block.1.layer.1.EncDecAttention.k"] > 2 * costs["decoder.block.1.layer.1.EncDecAttention.q"]


def test_every_format_that_an_arithmetic_may_have_is_known() -> None:
    """fp32 bases compute in fp32 alone; every format says what it keeps of the learning."""
    assert set(PASS_OPERATIONS["bf16"]) == set(KEPT_LEARNING) - {"fp32"}
    assert set(PASS_OPERATIONS["fp32"]) == set(KEPT_LEARNING)
