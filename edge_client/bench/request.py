"""What is measured, and what the measuring process answers. Both cross the pipe between two processes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge_client.jobs.messages import Compute, Device, Format
from wire.checks import basis_rank
from wire.messages import Scope, Weight

WARM_UP_STEPS = 2
"""Before what counts: the first steps choose and compile kernels, and let the heap grow."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A setting to measure. `threads` 0 leaves the choice to torch; `predicted_peak_bytes` was planned under
    `budget_bytes`; `root` is where /sys and /proc are."""

    base_folder: str
    format: Format
    compute: Compute
    device: Device
    scope: Scope
    micro_batch: int
    source_tokens: int
    target_tokens: int
    rank: int
    steps: int
    threads: int = 0
    checkpointing: bool = False
    predicted_peak_bytes: int = 0
    budget_bytes: int = 0
    root: str = "/"

    @property
    def n_tokens(self) -> int:
        """Source and target tokens of a step."""
        return self.micro_batch * (self.source_tokens + self.target_tokens)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What came out. Seconds are medians over the measured steps, of one micro-batch each.

    Attributes:
        load_s: reading the base, or in decoder scope its decoder part, into its format.
        encode_s: the encoder's pass over one micro-batch; 0 in "all" scope, where it is a part of forward.
        forward_s, backward_s: the loss, with the head's gradient; the rest of the gradients.
        optimiser_s: Adam's step, and giving free memory back to the system where the planned peak is near.
        step_s: median of whole steps, which is not exactly the sum of the medians.
        loss: nats per target token in the last step, on random tokens.
        imports_bytes: resident memory once torch was loaded; peak_bytes: the most that was ever resident (VmHWM).
        base_bytes: the frozen weights that training holds.
        device_peak_bytes: the most that torch held on the GPU, 0 without one.
        peak_gflops: 10⁹ operations per second of plain matrix products in the compute dtype, measured after the steps.
        threads: that torch used.
        sensor: what measured the energy, "" where nothing did; `no_sensor` then says why.
        watts: mean power over the measured steps, 0 without a sensor.
        n_samples: readings behind it.
    """

    load_s: float
    encode_s: float
    forward_s: float
    backward_s: float
    optimiser_s: float
    step_s: float
    loss: float
    imports_bytes: int
    peak_bytes: int
    base_bytes: int
    device_peak_bytes: int
    peak_gflops: float
    threads: int
    sensor: str
    no_sensor: str
    watts: float
    n_samples: int


def ranks_of(weights: Sequence[Weight], rank: int) -> tuple[int, ...]:
    """`rank` strands for every weight, fewer where a weight has a shorter side."""
    return tuple(basis_rank(weight, rank) for weight in weights)
