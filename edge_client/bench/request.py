"""A request to the measuring process, and its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from edge_client.jobs.messages import Plan, TrainingMode
from edge_client.plan.adapter_memory import begins_at_adapter
from wire.checks import basis_rank
from wire.run import RunInfo, TrainSettings

Tell = Callable[[str, int, int], None]
"""Hears a phase, the steps of it that are done, and the steps in all."""

WARM_UP_STEPS = 2
"""Before what counts: the first steps choose and compile kernels, and let the heap grow."""


@dataclass(frozen=True, slots=True)
class Request:
    """A plan to measure.

    Attributes:
        base_folder: of the base model.
        run: the run that the plan is for; its texts are all as long as it allows.
        plan: how training is done, and the memory that was planned for it.
        steps: how many are measured.
        threads: 0 leaves the choice to torch.
        root: where /sys and /proc are.
    """

    base_folder: str
    run: RunInfo
    plan: Plan
    steps: int
    threads: int = 0
    root: str = "/"

    @property
    def mode(self) -> TrainingMode:
        """How training is done."""
        return self.plan.mode

    @property
    def settings(self) -> TrainSettings:
        """Settings of the run."""
        return self.run.settings

    @property
    def n_tokens(self) -> int:
        """Source and target tokens of a step."""
        return self.mode.micro_batch * (self.settings.max_source_tokens + self.settings.max_target_tokens)

    def frozen_ranks(self) -> dict[str, int]:
        """Strands of the global adapter, at its full rank, that lie frozen beside those that are trained, by weight:
        all of them, or where boards train the adapter itself the rest."""
        pairs = zip(self.run.weights, self.plan.ranks, strict=True)
        begun = begins_at_adapter(self.run)
        return {weight.name: max(0, basis_rank(weight, self.run.server_rank) - rank * begun) for weight, rank in pairs}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a measurement. Seconds are medians over the measured steps, of one micro-batch each.

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
