"""Which format is measured, and whether it fits, by the planner's prediction, at a given micro-batch and rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braid_common.t5_config import T5Config
from edge_client.bench.request import Request, ranks_of
from edge_client.bench.round_time import SERVER_RANK
from edge_client.errors import BaseModelError, NoPlanError
from edge_client.host.board import Board, show_size
from edge_client.jobs.messages import Compute, Format
from edge_client.plan.choose import CLIENT_BYTES, FORMATS, compute_for
from edge_client.plan.peak_memory import predict_peak
from wire.errors import WireError
from wire.limits import PROTOCOL_VERSION
from wire.manifest import manifest_digest, t5_weights
from wire.messages import Base, RunInfo, Scope, TrainSettings


@dataclass(frozen=True, slots=True)
class Setting:
    """What the command line fixes. `format` None leaves it to `choose_way`."""

    format: Format | None
    scope: Scope
    micro_batch: int
    source_tokens: int
    target_tokens: int
    rank: int


@dataclass(frozen=True, slots=True)
class Way:
    """What is left to choose, and the memory that it is predicted to take."""

    format: Format
    compute: Compute
    checkpointing: bool
    predicted_peak_bytes: int


def choose_way(setting: Setting, board: Board, config: Mapping[str, Any], model: str) -> Way:
    """The first that fits the board: 8 bits or more, the highest precision first; the same with checkpointing; 4 bits.
    With strands and micro-batch given, that is also the planner's order (edge_client/plan/choose.py), but for close
    calls.

    Args: config, the base's config.json; model, its name for people. Raises NoPlanError where none fits, BaseModelError
    where the config is no gated T5's.
    """
    try:
        run = _run(setting, config)
    except WireError as error:
        raise BaseModelError(str(error), "name another base with --model") from error
    ways = [_way(setting, board, config, run, *pair) for pair in _pairs(setting, board)]
    budget_bytes = board.memory_bytes - CLIENT_BYTES
    for way in ways:
        if way.predicted_peak_bytes <= budget_bytes:
            return way
    least = min(ways, key=lambda way: way.predicted_peak_bytes)
    raise NoPlanError(
        f"{model} does not fit: measuring it in {least.format} needs about "
        f"{show_size(least.predicted_peak_bytes + CLIENT_BYTES)}, this board has {show_size(board.memory_bytes)} "
        f"({board.memory_source})",
        "take a smaller --shape, --micro-batch or --format, shorter texts, or give more --memory",
    )


def make_request(folder: Path, setting: Setting, way: Way, board: Board, *, steps: int, threads: int) -> Request:
    """What the measuring process is asked for."""
    return Request(
        base_folder=str(folder),
        format=way.format,
        compute=way.compute,
        device=board.device,
        scope=setting.scope,
        micro_batch=setting.micro_batch,
        source_tokens=setting.source_tokens,
        target_tokens=setting.target_tokens,
        rank=setting.rank,
        steps=steps,
        threads=threads,
        checkpointing=way.checkpointing,
        predicted_peak_bytes=way.predicted_peak_bytes,
        budget_bytes=board.memory_bytes - CLIENT_BYTES,
    )


def _pairs(setting: Setting, board: Board) -> list[tuple[Format, bool]]:
    """(format, checkpointing), the most wanted first."""
    if setting.format is not None:
        return [(setting.format, False), (setting.format, True)]
    large = [format for format in FORMATS if format != "nf4" and not (format == "fp32" and board.bf16_fast)]
    return [(format, recomputes) for recomputes in (False, True) for format in large] + [("nf4", False), ("nf4", True)]


def _way(
    setting: Setting, board: Board, config: Mapping[str, Any], run: RunInfo, format: Format, checkpointing: bool
) -> Way:
    compute = compute_for(format, board)
    memory = predict_peak(
        config,
        run,
        format,
        compute,
        setting.micro_batch,
        ranks_of(run.weights, setting.rank),
        checkpointing=checkpointing,
        cache="bf16" if setting.scope == "decoder" else "none",
        device=board.device,
    )
    return Way(format, compute, checkpointing, memory.total_bytes)


def _run(setting: Setting, config: Mapping[str, Any]) -> RunInfo:
    """The run that the prediction needs: one of the rule that `aggregator init` writes, without a sketch."""
    weights = t5_weights(T5Config.parse(config), setting.scope)
    return RunInfo(
        protocol=PROTOCOL_VERSION,
        run_id="bench",
        state="training",
        base=Base(model="bench", digest="0" * 64),
        weights=weights,
        manifest=manifest_digest(weights),
        settings=TrainSettings(
            scope=setting.scope,
            learning_rate=1e-4,
            batch=setting.micro_batch,
            micro_batch=setting.micro_batch,
            local_steps=1,
            max_source_tokens=setting.source_tokens,
            max_target_tokens=setting.target_tokens,
            sketch_batches=1,
            trains_a=True,
        ),
        max_rank=setting.rank,
        server_rank=SERVER_RANK,
        rounds=1,
        round=1,
        version=1,
    )
