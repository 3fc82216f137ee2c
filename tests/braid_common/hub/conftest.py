"""A hub on loopback with FLAN-T5's repositories, and a listener to downloads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub, loopback_hub
from tests.fakes.models.flan_t5 import SMALL, XL, small_repo, use_hub, xl_repo


@dataclass
class Heard:
    """What a download told."""

    lines: list[str] = field(default_factory=list)
    bytes_done: list[int] = field(default_factory=list)
    total_bytes: int = 0

    def say(self, text: str) -> None:
        self.lines.append(text)

    def moved(self, done_bytes: int, total_bytes: int) -> None:
        self.bytes_done.append(done_bytes)
        self.total_bytes = total_bytes


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with loopback_hub({SMALL: small_repo(), XL: xl_repo()}) as running:
        yield running


@pytest.fixture
def cache(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, with this process asking the loopback hub; breaks cost no time, and come in small chunks."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("braid_common.hub.transfer.PAUSES_S", (0.0, 0.0))
    return use_hub(monkeypatch, hub, tmp_path / "home")


@pytest.fixture
def heard() -> Heard:
    return Heard()
