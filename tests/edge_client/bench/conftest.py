"""A small T5, non-square everywhere, as a config and as a base on disk; and a measurement that was never made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_client.bench.report import Report, Terms, make_report
from edge_client.bench.request import Measured, Request
from edge_client.bench.round_time import Link
from edge_client.host.board import Board
from tests.fakes.runs import UNEVEN_T5


@pytest.fixture
def config() -> dict[str, Any]:
    return dict(UNEVEN_T5)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UNEVEN_T5 with random weights; there is no tokenizer, for nothing here reads text."""
    import torch
    from safetensors.torch import save_file

    from quantize.layout import tensor_shapes

    folder = tmp_path_factory.mktemp("base")
    (folder / "config.json").write_text(json.dumps(dict(UNEVEN_T5)))
    generator = torch.Generator().manual_seed(3)
    tensors = {
        name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * shape[1] ** -0.5
        for name, shape in tensor_shapes(dict(UNEVEN_T5)).items()
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def make(config: dict[str, Any]) -> Callable[..., Report]:
    """A report on numbers that are easy to reckon with; keyword arguments change what was asked or measured."""

    def make_one(
        *, local_steps: int = 20, mbps: tuple[float, ...] = (1.0, 10.0, 100.0), scope: str = "decoder", **changes: Any
    ) -> Report:
        request = Request(
            base_folder="base",
            format="int8",
            compute="fp32",
            device="cpu",
            scope=scope,  # type: ignore[arg-type]
            micro_batch=4,
            source_tokens=32,
            target_tokens=8,
            rank=8,
            steps=5,
        )
        fields: dict[str, Any] = {
            "load_s": 0.5,
            "encode_s": 0.1 if scope == "decoder" else 0.0,
            "forward_s": 0.02,
            "backward_s": 0.015,
            "optimiser_s": 0.005,
            "step_s": 0.04,
            "loss": 4.5,
            "imports_bytes": 200 << 20,
            "peak_bytes": 300 << 20,
            "base_bytes": 20 << 20,
            "device_peak_bytes": 0,
            "peak_gflops": 10.0,
            "threads": 2,
            "sensor": "",
            "no_sensor": "not measurable here (no INA3221 or RAPL readable)",
            "watts": 0.0,
            "n_samples": 0,
        }
        board = Board(memory_bytes=1 << 30, memory_source="given", cpu_count=2, machine="aarch64", bf16_fast=False)
        terms = Terms("a T5", "a board", epochs=3, local_steps=local_steps, links=[Link(one, 20.0) for one in mbps])
        return make_report(terms, board, request, config, Measured(**(fields | changes)))

    return make_one
