"""Fixtures of the client's tests: a server, a board, a base, and a measurement that is not made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from edge_client.host.matmul_speed import MatmulSpeed, matmul_key
from tests.fakes.board import FakeBoard
from tests.fakes.models.bases import write_base
from tests.fakes.server import CONFIG, FakeServer

TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"<pad>": 0, "</s>": 1, "<unk>": 2}, "unk_token": "<unk>"},
}
"""A tokenizer.json as the tokenizers library writes it: every word is one unknown token."""


@pytest.fixture(autouse=True)
def fake_matmul_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run inside the test process find a measurement: no fork, no torch. Real processes measure."""

    def measure(threads: int = 0) -> MatmulSpeed:
        return MatmulSpeed(
            key=matmul_key(threads) or "no torch",
            device="cpu",
            device_name="a processor",
            device_memory_bytes=0,
            bf16_gflops=5.0,
            fp32_gflops=20.0,
            threads=threads,
            torch="0.0",
        )

    monkeypatch.setattr("edge_client.state.matmul_speed_file.measure_matmul_speed", measure)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model's files; the values of its weights matter to nobody here."""
    folder = tmp_path_factory.mktemp("base")
    write_base(folder, CONFIG, dtype="F64")  # 660 kB: some downloads are cut behind 500 kB
    return folder


@pytest.fixture
async def server(base_folder: Path) -> AsyncIterator[FakeServer]:
    """A running FakeServer."""
    fake = FakeServer(base_folder)
    async with TestServer(fake.app()) as running:
        fake.url = str(running.make_url("")).rstrip("/")
        yield fake


@pytest.fixture
def board(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    """A board with an empty state folder; its worker finds this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return FakeBoard(server, tmp_path / "state")
