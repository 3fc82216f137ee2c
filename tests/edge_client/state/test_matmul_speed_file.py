"""What is kept of the board's measured arithmetic: no torch, no measuring."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client.errors import ConfigError
from edge_client.host.matmul_measure import measure_matmul_speed
from edge_client.host.matmul_speed import MatmulSpeed
from edge_client.state.folder import StateFolder
from edge_client.state.matmul_speed_file import FILE, ensure_matmul_speed, look_up_matmul_speed, read_matmul_speed
from tests.fakes.matmul_speed import matmul_speed


@pytest.fixture
def torch_version(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The version of torch that is found to be installed: set its one entry to change it."""
    found = ["2.0"]
    monkeypatch.setattr("edge_client.host.matmul_speed.version", lambda name: found[0])
    return found


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    state = StateFolder(tmp_path / "state")
    state.lock()
    return state


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Threads of each measurement that was asked for; none is made."""
    asked: list[int] = []

    def measure(threads: int = 0) -> MatmulSpeed:
        asked.append(threads)
        return matmul_speed(threads=threads)

    monkeypatch.setattr("edge_client.state.matmul_speed_file.measure_matmul_speed", measure)
    return asked


def test_a_board_is_measured_once(folder: StateFolder, measured: list[int], torch_version: list[str]) -> None:
    """The second start reads what the first one kept, and says nothing."""
    said: list[str] = []

    first = ensure_matmul_speed(folder, 2, said.append)
    second = ensure_matmul_speed(folder, 2, said.append)

    assert first == second == read_matmul_speed(folder.path)
    assert measured == [2]
    assert len(said) == 1


@pytest.mark.parametrize("change", ["torch", "threads", "damage"])
def test_a_measurement_of_something_else_is_made_again(
    change: str, folder: StateFolder, measured: list[int], torch_version: list[str]
) -> None:
    """Another torch, another number of threads, a damaged file: each is measured anew."""
    ensure_matmul_speed(folder, 1, lambda text: None)
    if change == "torch":
        torch_version[0] = "3.0"
    if change == "damage":
        (folder.path / FILE).write_bytes(b"{")

    ensure_matmul_speed(folder, 3 if change == "threads" else 1, lambda text: None)

    assert len(measured) == 2


def test_whoever_only_looks_gets_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that cannot be loaded leaves `plan` and `doctor` with the processor's flags."""

    def fail(threads: int = 0) -> MatmulSpeed:
        raise ConfigError("torch is installed but cannot be loaded", "install it anew")

    monkeypatch.setattr("edge_client.state.matmul_speed_file.measure_matmul_speed", fail)

    assert look_up_matmul_speed(tmp_path) is None


def test_a_busy_board_is_not_judged(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement that other programs starved is neither believed nor kept."""
    starved = matmul_speed(bf16=0.4, fp32=0.1)
    monkeypatch.setattr("edge_client.host.matmul_measure.run_forked", lambda *_, **__: starved)
    monkeypatch.setattr("edge_client.state.matmul_speed_file.measure_matmul_speed", measure_matmul_speed)
    told: list[str] = []
    assert ensure_matmul_speed(folder, 0, told.append) is None
    assert "too busy" in told[-1]
    assert not (folder.path / FILE).exists()
