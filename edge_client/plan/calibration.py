"""Calibration of predicted memory: the factor by which one measured step on this board exceeded its prediction.

A prediction (edge_client/plan/peak_memory.py) knows shapes, not this board's allocator, kernels and libraries. So each
mode of training is tried on dummy text before work is at stake (edge_client/engines/lean/probe.py), and what it really
took corrects the later predictions for that mode: in proportion, and only what lies above the imported libraries, which
are the same for every plan."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from edge_client.jobs.messages import Plan, TrainingMode
from edge_client.jobs.sizes import IMPORTS_BYTES

LOWEST_RATIO = 1.0
"""A low reading lowers nothing. Texts of many lengths leave holes in the heap that one step does not, and an evaluation
needs buffers of its own: on the builtin base, in five modes of training, rounds took 0.95 to 1.28 times what their
probe took above the imports."""

HIGHEST_RATIO = 3.0
"""A reading above this is not of the step alone, and would refuse boards that can train."""

REACH = (0.75, 1.05)
"""Least and most of a probe's own peak that a plan of the same mode may expect for the probe to count for it. A probe's
ratio is that of its ranks and micro-batch: far from these the prediction's parts weigh differently, and the mode is
probed again."""


class Probe(msgspec.Struct, frozen=True):
    """One measured step.

    Attributes:
        ratio: measured over predicted bytes of what lies above the imports.
        expected_bytes: the peak that this ratio makes of the prediction for the plan that was probed.
    """

    ratio: Annotated[float, Meta(ge=LOWEST_RATIO, le=HIGHEST_RATIO)]
    expected_bytes: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The newest probe of each mode.

    Attributes:
        key: what the measurements hold for (`calibration_key`).
        probes: by the mode's name (`mode_name`).
    """

    key: str = ""
    probes: dict[str, Probe] = {}

    def ratio(self, mode: TrainingMode) -> float:
        """Measured over predicted bytes above the imports; 1 for a mode that was not measured."""
        probe = self.probes.get(mode_name(mode))
        return 1.0 if probe is None else probe.ratio

    def expected_bytes(self, mode: TrainingMode, predicted_bytes: int) -> int:
        """Peak to expect where `predicted_bytes` are predicted."""
        return _scaled(predicted_bytes, self.ratio(mode))

    def knows(self, plan: Plan) -> bool:
        """Whether a probe counts for `plan`."""
        probe = self.probes.get(mode_name(plan.mode))
        least, most = REACH
        if probe is None:
            return False
        return least * probe.expected_bytes <= plan.expected_peak_bytes <= most * probe.expected_bytes

    def with_measured(self, plan: Plan, peak_bytes: int) -> Calibration:
        """The calibration with a probe's peak for `plan`."""
        ratio = (peak_bytes - IMPORTS_BYTES) / max(1, plan.predicted_bytes - IMPORTS_BYTES)
        ratio = min(HIGHEST_RATIO, max(LOWEST_RATIO, ratio))
        probe = Probe(ratio, _scaled(plan.predicted_bytes, ratio))
        return Calibration(key=self.key, probes={**self.probes, mode_name(plan.mode): probe})


NO_CALIBRATION = Calibration()


def _scaled(size_bytes: int, ratio: float) -> int:
    """The size with what lies above the imports times `ratio`, rounded down to whole bytes."""
    return size_bytes + int((ratio - 1.0) * max(0, size_bytes - IMPORTS_BYTES))


def mode_name(mode: TrainingMode) -> str:
    """Name of what decides how a prediction is off: "nf4 base, fp32 arithmetic, checkpointing". That is a mode
    without its micro-batch; the device is a part of `calibration_key`."""
    parts = [f"{mode.format} base", f"{mode.compute} arithmetic"]
    parts += ["checkpointing"] * mode.checkpointing + [f"{mode.cache} cache"] * (mode.cache != "none")
    return ", ".join(parts + ["frozen encoder"] * mode.frozen_encoder)


def calibration_key(base_digest: str, client_version: str, matmul_key: str) -> str:
    """Key of all that measurements hold for: the base, the version that predicts, and the processor, GPU, threads and
    torch that it runs on."""
    return f"{base_digest}; edge-client {client_version}; {matmul_key}"
