"""Calibration of predicted memory: the factor by which one measured step on this board exceeded its prediction.

A prediction (edge_client/plan/peak_memory.py) knows shapes, not this board's allocator, kernels and libraries. So each
mode of training is tried on dummy text before work is at stake (edge_client/engines/lean/probe.py), and what it really
took corrects the later predictions for that mode: in proportion, and only what lies above the imported libraries, which
are the same for every plan. What these take is measured too: a build of torch for CUDA takes three times what one for
processors does."""

from __future__ import annotations

import math
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
"""A reading above this is not of the step alone, and in proportion it would refuse boards that can train. What lies
above it is counted as it was measured: the same for every plan of the mode."""

REACH = (0.75, 1.05)
"""Least and most of a probe's own peak that a plan of the same mode may expect for the probe to count for it. A probe's
ratio is that of its ranks and micro-batch: far from these the prediction's parts weigh differently, and the mode is
probed again."""


class Probe(msgspec.Struct, frozen=True):
    """One measured step.

    Attributes:
        ratio: measured over predicted bytes of what lies above the imports.
        expected_bytes: the peak that is expected for the plan that was probed, which is never less than what it took.
        extra_bytes: what the probe took above what HIGHEST_RATIO explains.
    """

    ratio: Annotated[float, Meta(ge=LOWEST_RATIO, le=HIGHEST_RATIO)]
    expected_bytes: int
    extra_bytes: Annotated[int, Meta(ge=0)] = 0


NO_PROBE = Probe(1.0, 0)


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The newest probe of each mode.

    Attributes:
        key: what the measurements hold for (`calibration_key`).
        probes: by the mode's name (`mode_name`).
        imports_bytes: what a worker holds before it loads any model, as the newest probe measured it, and at least what
            every prediction counts with.
    """

    key: str = ""
    probes: dict[str, Probe] = {}
    imports_bytes: Annotated[int, Meta(ge=IMPORTS_BYTES)] = IMPORTS_BYTES

    def ratio(self, mode: TrainingMode) -> float:
        """Measured over predicted bytes above the imports; 1 for a mode that was not measured."""
        return self.probes.get(mode_name(mode), NO_PROBE).ratio

    def expected_bytes(self, mode: TrainingMode, predicted_bytes: int) -> int:
        """Peak to expect where `predicted_bytes` are predicted."""
        probe = self.probes.get(mode_name(mode), NO_PROBE)
        return self._scaled(predicted_bytes, probe.ratio) + probe.extra_bytes

    def knows(self, plan: Plan) -> bool:
        """Whether a probe counts for `plan`."""
        probe = self.probes.get(mode_name(plan.mode))
        least, most = REACH
        if probe is None:
            return False
        return least * probe.expected_bytes <= plan.expected_peak_bytes <= most * probe.expected_bytes

    def with_measured(
        self, plan: Plan, peak_bytes: int, imports_bytes: int = IMPORTS_BYTES, *, untried_bytes: int = 0
    ) -> Calibration:
        """The calibration with a probe's peak for `plan`, and what its worker held before it loaded the base.
        `untried_bytes`: what is predicted for things that a probe does not do; it tells nothing about them, so that
        they count as if they were off as much as the rest."""
        imports_bytes = max(IMPORTS_BYTES, imports_bytes)
        new = Calibration(key=self.key, imports_bytes=imports_bytes)
        ratio = (peak_bytes - imports_bytes) / max(1, plan.predicted_bytes - IMPORTS_BYTES - untried_bytes)
        ratio = min(HIGHEST_RATIO, max(LOWEST_RATIO, ratio))
        scaled_bytes = new._scaled(plan.predicted_bytes, ratio)
        is_cut = ratio in (LOWEST_RATIO, HIGHEST_RATIO)
        extra_bytes = max(0, peak_bytes + untried_bytes - scaled_bytes) if is_cut else 0
        probe = Probe(ratio, scaled_bytes + extra_bytes, extra_bytes)
        return msgspec.structs.replace(new, probes={**self.probes, mode_name(plan.mode): probe})

    def _scaled(self, size_bytes: int, ratio: float) -> int:
        """A predicted size with this board's imports, and what lies above them times `ratio`, rounded up to bytes."""
        above_bytes = max(0, size_bytes - IMPORTS_BYTES)
        return size_bytes + self.imports_bytes - IMPORTS_BYTES + math.ceil((ratio - 1.0) * above_bytes)


NO_CALIBRATION = Calibration()


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
