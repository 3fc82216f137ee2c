"""How fast this board multiplies matrices, and on which device: measured, for flags and names do not say it.

A processor may have bf16 instructions that torch's build does not use, and a GPU may be there whose kernels the build
lacks. So the products of a training step are run, in both dtypes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from edge_client.host.matmul_speed import MatmulSpeed
from edge_client.host.processor_name import processor

CPU_SHAPES = ((64, 256, 256), (256, 512, 256), (512, 1024, 512))
"""Tokens, rows and columns of products, ascending: the largest one that takes no longer than SAMPLE_S is measured. The
last is a feed-forward product of FLAN-T5-small on 512 tokens."""

CUDA_SHAPES = ((512, 1024, 512), (2048, 2048, 2048), (4096, 4096, 4096))
"""A GPU reaches its speed with larger ones only. The last takes 200 MiB in fp32."""

SAMPLE_S = 0.02
"""One sample takes about this long at most."""

SAMPLING_S = 0.3
"""For so long samples are taken of every dtype in turn, and MIN_SAMPLES of each at least. The best counts: whatever
else runs on the board makes a product slower, never faster. With the median of seven, one of three boards that started
at once on two cores took bf16, four times as fast there, for the slower one."""

MIN_SAMPLES = 5

MIN_CAPABILITY = (8, 0)
"""CUDA devices that multiply bf16 in hardware (Ampere and newer, Jetson Orin's 8.7 included). Older ones emulate it."""


BOTH = (torch.bfloat16, torch.float32)


def probe(key: str, threads: int = 0) -> MatmulSpeed:
    """Measure the GPU where there is one that can be used, else the processor.

    Args:
        key: what the result holds for, as `edge_client.host.matmul_speed.matmul_key` makes it.
        threads: for the products, 0 for torch's choice.
    """
    with _threads(threads):
        device = choose_device()
        try:
            bf16_gflops, fp32_gflops = _best(BOTH, device)
        except RuntimeError:
            if device.type == "cpu":
                raise
            # The build has no kernels for this GPU, or its memory is taken.
            device = torch.device("cpu")
            bf16_gflops, fp32_gflops = _best(BOTH, device)
    name, memory_bytes = _describe(device)
    return MatmulSpeed(
        key=key,
        device="cuda" if device.type == "cuda" else "cpu",
        device_name=name,
        device_memory_bytes=memory_bytes,
        bf16_gflops=bf16_gflops,
        fp32_gflops=fp32_gflops,
        threads=threads,
        torch=str(torch.__version__),  # msgspec refuses its subclass of str
    )


def choose_device() -> torch.device:
    """CUDA where torch reaches a GPU that multiplies bf16 in hardware, else the processor."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() >= MIN_CAPABILITY:
        return torch.device("cuda")
    return torch.device("cpu")


def measure_peak_gflops(dtype: torch.dtype, device: torch.device, threads: int = 0) -> float:
    """10⁹ floating-point operations per second of matrix products in `dtype`, the best of many short samples.

    A product of (T, n) and (n, m) counts 2·T·n·m operations. `threads` 0 leaves the choice to torch. Raises
    RuntimeError where the device cannot.
    """
    with _threads(threads):
        return _best([dtype], device)[0]


@torch.no_grad()
def _best(dtypes: Sequence[torch.dtype], device: torch.device) -> list[float]:
    """GFLOP/s of each dtype."""
    products = [_Products(dtype, device) for dtype in dtypes]
    best = [0.0] * len(products)
    start_s, n_samples = time.perf_counter(), 0
    while n_samples < MIN_SAMPLES or time.perf_counter() - start_s < SAMPLING_S:
        best = [max(speed, product.sample()) for speed, product in zip(best, products, strict=True)]
        n_samples += 1
    return best


class _Products:
    """A forward and a backward product, x·Wᵀ and g·W, of the largest shape that is quick enough."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._generator = torch.Generator(device).manual_seed(0)
        shapes = CUDA_SHAPES if device.type == "cuda" else CPU_SHAPES
        for shape, larger in zip(shapes, (*shapes[1:], None), strict=True):
            self._prepare(*shape)
            self._seconds(1)  # kernels are chosen and compiled
            seconds = min(self._seconds(1) for _ in range(3))
            if larger is None or seconds * _operations(*larger) > SAMPLE_S * _operations(*shape):
                break
        self._operations = _operations(*shape)
        self._repeats = max(1, int(SAMPLE_S / 4 / seconds)) if device.type == "cuda" else 1

    def sample(self) -> float:
        """GFLOP/s of one sample."""
        return self._repeats * self._operations / self._seconds(self._repeats) / 1e9

    def _prepare(self, tokens: int, rows: int, columns: int) -> None:
        self._x, self._grad = self._random(tokens, columns), self._random(tokens, rows)
        self._weight = self._random(rows, columns)

    def _random(self, *shape: int) -> torch.Tensor:
        # Not zeros: a GPU draws less power on them and clocks higher than it will in training.
        return torch.randn(shape, generator=self._generator, device=self._device).to(self._dtype)

    def _seconds(self, repeats: int) -> float:
        """Seconds of `repeats` forward and backward products."""
        self._wait()
        start_s = time.perf_counter()
        for _ in range(repeats):
            torch.mm(self._x, self._weight.t())
            torch.mm(self._grad, self._weight)
        self._wait()
        return max(time.perf_counter() - start_s, 1e-9)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def _operations(tokens: int, rows: int, columns: int) -> int:
    """Operations of a forward and a backward product."""
    return 2 * 2 * tokens * rows * columns


def _describe(device: torch.device) -> tuple[str, int]:
    """Name, and memory of its own (0 for the processor)."""
    if device.type == "cpu":
        return processor(), 0
    properties = torch.cuda.get_device_properties(device)
    return str(properties.name), int(properties.total_memory)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
