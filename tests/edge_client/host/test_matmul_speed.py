"""Measured arithmetic, what it depends on, and what follows from it: no torch, no measuring."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.host.board import Board
from edge_client.host.matmul_speed import BF16_GAIN, matmul_key, with_matmul_speed
from edge_client.host.processor_name import processor
from tests.fakes.matmul_speed import matmul_speed

SPEED = st.floats(0.01, 1e6)
BOARD = Board(memory_bytes=1 << 30, memory_source="as the test says", cpu_count=2, machine="aarch64", bf16_fast=False)


@pytest.fixture
def torch_version(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The version of torch that is found to be installed: set its one entry to change it."""
    found = ["2.0"]
    monkeypatch.setattr("edge_client.host.matmul_speed.version", lambda name: found[0])
    return found


@given(SPEED, SPEED)
def test_bf16_is_computed_in_only_where_it_is_clearly_faster(bf16: float, fp32: float) -> None:
    """The choice is a function of the two speeds, and slower bf16 is never chosen."""
    found = matmul_speed("key", bf16=bf16, fp32=fp32)

    assert found.compute == ("bf16" if bf16 > BF16_GAIN * fp32 else "fp32")
    assert found.compute == "fp32" or bf16 > fp32


def test_the_key_names_processor_board_gpu_and_torch(
    tmp_path: Path, torch_version: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them changes the key; none needs torch to be imported."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\n",
        "proc/device-tree/model": "Some Board\0",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t Some GPU\nIRQ: 1\n",
    }
    keys = {matmul_key(1, tmp_path)}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        keys.add(matmul_key(1, tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    keys |= {matmul_key(1, tmp_path), matmul_key(2, tmp_path)}
    torch_version[0] = "3.0"
    keys.add(matmul_key(1, tmp_path))

    assert len(keys) == 7
    assert all(part in str(matmul_key(1, tmp_path)) for part in ("Some CPU", "Some Board", "Some GPU", "3.0"))


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (["0x41 0xd42"], "ARM Cortex-A78AE"),
        (["0x41 0xd05", "0x41 0xd05", "0x41 0xd0b"], "ARM Cortex-A55 + ARM Cortex-A76"),
        (["0x4e 0x004"], "NVIDIA Carmel"),
        (["0x61 0x022"], "core 0x61 0x022"),
    ],
)
def test_arm_processors_are_named_by_their_parts(cpuinfo: list[str], name: str, tmp_path: Path) -> None:
    """arm64 kernels give numbers in place of a model's name: known ones are shown in words, each kind of core once."""
    (tmp_path / "proc").mkdir()
    cores = ["CPU implementer\t: {}\nCPU part\t: {}\n".format(*core.split()) for core in cpuinfo]
    (tmp_path / "proc/cpuinfo").write_text("\n".join(cores))

    assert processor(tmp_path).endswith(name)


def test_what_was_measured_replaces_the_guess() -> None:
    """A board whose flags promise nothing gets bf16 if that was faster; without a measurement it stays as it is."""
    assert with_matmul_speed(BOARD, matmul_speed("key", bf16=40.0, fp32=20.0)).bf16_fast
    assert not with_matmul_speed(BOARD, matmul_speed("key", bf16=2.0, fp32=20.0)).bf16_fast
    assert with_matmul_speed(BOARD, None) == BOARD


@pytest.mark.parametrize(("gpu_bytes", "budget_bytes"), [(1 << 29, 1 << 29), (1 << 33, 1 << 30)])
def test_on_a_gpu_the_smaller_memory_counts(gpu_bytes: int, budget_bytes: int) -> None:
    """A small card limits the plan; a Jetson's GPU shares the board's memory."""
    found = msgspec.structs.replace(matmul_speed("key"), device="cuda", device_memory_bytes=gpu_bytes)

    board = with_matmul_speed(BOARD, found)

    assert board.device == "cuda"
    assert board.memory_bytes == budget_bytes
