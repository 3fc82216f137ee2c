"""A training's speed beside what the machine could do: arithmetic a token, and the peak of its matrix products."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from builtin_base.training import architecture
from builtin_base.training.batches import Batch, n_real_tokens
from builtin_base.training.state import State

_SIDES = {"cpu": 1_024, "cuda": 8_192}
"""Rows and columns of the product that measures the peak: enough to be bound by arithmetic, milliseconds of time."""

_REPEATS = 8


@dataclass(frozen=True, slots=True)
class Peak:
    """A machine's peak, and a training's need.

    Attributes:
        flop_per_s: of one bf16 product; on processors a second of one processor, on a GPU a second of the clock.
        flop_per_token: matrix products alone, forward and backward, for a token that is not padding.
        is_gpu: which kind of second counts.
    """

    flop_per_s: float
    flop_per_token: float
    is_gpu: bool

    def share(self, n_tokens: int, clock_s: float, cpu_s: float) -> float:
        """Share of the peak that a training uses, 0..1 (PaLM's MFU, arXiv 2204.02311, appendix B).

        Args:
            n_tokens: trained on without padding.
            clock_s: wall-clock seconds that took.
            cpu_s: seconds of all processors that took.
        """
        return n_tokens * self.flop_per_token / self.flop_per_s / (clock_s if self.is_gpu else cpu_s)


def measure(state: State, drawn: Mapping[str, Batch]) -> Peak:
    """Measure the peak of this machine and count the arithmetic of these batches."""
    device = next(state.working.parameters()).device
    return Peak(_product_flop_per_s(device), flop_per_token(state, drawn), device.type == "cuda")


@torch.no_grad()
def flop_per_token(state: State, drawn: Mapping[str, Batch]) -> float:
    """Count a training step's matrix products, in FLOP a token that is not padding.

    Every product of the forward pass has two in the backward pass, so they are counted once and taken three times.
    """
    device = next(state.working.parameters()).device
    with FlopCounterMode(display=False) as counter:
        for source, target in drawn.values():
            architecture.token_losses(
                state.working, torch.as_tensor(source, device=device), torch.as_tensor(target, device=device)
            )
    return 3.0 * float(counter.get_total_flops()) / n_real_tokens(drawn)


def _product_flop_per_s(device: torch.device) -> float:
    """Time a square bf16 product, the best of a few; on processors by the seconds of one thread."""
    side = _SIDES[device.type]
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times_s = []
    for _ in range(_REPEATS):
        began_s = clock()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        times_s.append(clock() - began_s)
    torch.set_num_threads(n_threads)
    return 2.0 * side**3 / min(times_s)
