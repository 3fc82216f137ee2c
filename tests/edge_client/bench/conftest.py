"""A small T5, non-square everywhere, as a config and as a base on disk; and a measurement that was never made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braid_common.base.t5_config import T5Config
from edge_client.bench.report import Report, Terms, make_report
from edge_client.bench.request import Measured, Request
from edge_client.bench.round_time import Link
from edge_client.bench.setting import Setting, plan_setting
from edge_client.host.board import Board
from tests.fakes.models.uneven_base import write_uneven_base
from tests.fakes.runs import UNEVEN_T5


@pytest.fixture
def config() -> dict[str, Any]:
    return dict(UNEVEN_T5)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UNEVEN_T5 with random weights; there is no tokenizer, for nothing here reads text."""
    folder = tmp_path_factory.mktemp("base")
    write_uneven_base(folder)
    return folder


@pytest.fixture
def make(config: dict[str, Any]) -> Callable[..., Report]:
    """A report on numbers that are easy to reckon with; keyword arguments change what was asked or measured."""

    def make_one(
        *, local_steps: int = 20, mbps: tuple[float, ...] = (1.0, 10.0, 100.0), scope: str = "decoder", **changes: Any
    ) -> Report:
        base = T5Config.parse(config)
        setting = Setting("int8", scope, micro_batch=4, source_tokens=32, target_tokens=8, rank=8)  # type: ignore[arg-type]
        board = Board(memory_bytes=1 << 30, memory_source="given", cpu_count=2, machine="aarch64", bf16_fast=False)
        request = Request("base", setting.run(base), plan_setting(setting, board, base, "a T5"), steps=5)
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
        links = [Link(one, 20.0) for one in mbps]
        terms = Terms("a T5", "a board", "2 cores", epochs=3, local_steps=local_steps, links=links)
        return make_report(terms, board, request, base, Measured(**(fields | changes)))

    return make_one
