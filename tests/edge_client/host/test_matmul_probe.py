"""Measuring matrix products: the device, the numbers' form, and that nothing is left behind."""

from __future__ import annotations

import math

import pytest
import torch

from edge_client.host import matmul_probe
from edge_client.host.matmul_measure import measure_matmul_speed
from edge_client.host.matmul_probe import choose_device, measure_peak_gflops, probe
from edge_client.host.matmul_speed import MatmulSpeed
from edge_client.host.processor_name import processor

pytestmark = pytest.mark.slow


def test_a_probe_measures_both_dtypes_and_keeps_its_key() -> None:
    """Positive, finite speeds; the processor's name where there is no GPU; torch's threads are as before."""
    before = torch.get_num_threads()

    found = probe("the key", threads=1)

    assert (found.key, found.threads) == ("the key", 1)
    assert all(math.isfinite(speed) and speed > 0 for speed in (found.bf16_gflops, found.fp32_gflops))
    assert torch.get_num_threads() == before
    if found.device == "cpu":
        assert (found.device_name, found.device_memory_bytes) == (processor(), 0)


def test_a_gpu_whose_kernels_are_missing_leaves_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build without code for the GPU raises RuntimeError at the first product; the board then trains on its CPU."""
    monkeypatch.setattr("edge_client.host.matmul_probe.choose_device", lambda: torch.device("cuda"))
    real = matmul_probe._best

    def best(dtypes: list[torch.dtype], device: torch.device) -> list[float]:
        if device.type == "cuda":
            raise RuntimeError("no kernel image is available for execution on the device")
        return real(dtypes, device)

    monkeypatch.setattr(matmul_probe, "_best", best)

    assert probe("the key").device == "cpu"


@pytest.mark.parametrize("capability", [(7, 2), (8, 7)])
def test_only_gpus_with_bf16_in_hardware_are_used(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A Xavier (7.2) trains on its processor, an Orin (8.7) on its GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    assert choose_device().type == ("cuda" if capability >= (8, 0) else "cpu")


def test_a_measurement_in_a_child_comes_back_whole() -> None:
    """The network side gets an MatmulSpeed without importing torch itself."""
    found = measure_matmul_speed(threads=1)

    assert isinstance(found, MatmulSpeed)
    assert found.torch == str(torch.__version__)


def test_the_peak_is_that_of_the_dtype() -> None:
    """One dtype alone can be measured, as the benchmark does for its MFU."""
    assert measure_peak_gflops(torch.float32, torch.device("cpu"), threads=1) > 0
