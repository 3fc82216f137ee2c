"""What one measured step on this board makes of predicted peaks, kept in the state folder.

A prediction (edge_client/plan/peak_memory.py) knows shapes, not this board's allocator, kernels and libraries. So each
way of training is tried on dummy text before work is at stake (edge_client/engines/lean/probe.py), and what it really
took corrects the later predictions of that way: in proportion, and only what lies above the imported libraries, which
are the same for every plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from braid_common.json_file import read_small
from edge_client.jobs.messages import CacheDtype, Compute, Format, Plan
from edge_client.plan.peak_memory import IMPORTS_BYTES

if TYPE_CHECKING:
    from edge_client.state.folder import StateFolder

FILE = "calibration.json"

LOWEST_RATIO = 1.0
"""A low reading lowers nothing. Texts of many lengths leave holes in the heap that one step does not, and an evaluation
needs buffers of its own: on the builtin base, in five ways of training, rounds took 0.95 to 1.28 times what their probe
took above the imports."""

HIGHEST_RATIO = 3.0
"""A reading above this is not of the step alone, and would refuse boards that can train."""

REACH = (0.75, 1.05)
"""A probe speaks for plans of its kind whose peak is from so much to so much of its own. Its ratio is that of its ranks
and micro-batch: far from these the prediction's parts weigh differently, and the way is probed again."""


class Probe(msgspec.Struct, frozen=True):
    """Measured over predicted bytes of what lies above the imports, and the peak that this makes of the prediction for
    the plan that was probed."""

    ratio: Annotated[float, Meta(ge=LOWEST_RATIO, le=HIGHEST_RATIO)]
    expected_bytes: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The newest probe of each way of training.

    Attributes:
        key: what the measurements hold for (`calibration_key`).
        probes: by the way's name (`way_name`).
    """

    key: str = ""
    probes: dict[str, Probe] = {}

    def peak_bytes(
        self,
        format: Format,
        compute: Compute,
        checkpointing: bool,
        cache: CacheDtype,
        frozen_encoder: bool,
        predicted_bytes: int,
    ) -> int:
        """What to expect where `predicted_bytes` are predicted; the same where this way was not measured."""
        probe = self.probes.get(way_name(format, compute, checkpointing, cache, frozen_encoder))
        return predicted_bytes if probe is None else _scaled(predicted_bytes, probe.ratio)

    def knows(self, plan: Plan) -> bool:
        """Whether a probe speaks for `plan`, whose predicted peak is after calibration."""
        probe = self.probes.get(plan_way(plan))
        least, most = REACH
        if probe is None:
            return False
        return least * probe.expected_bytes <= plan.predicted_peak_bytes <= most * probe.expected_bytes

    def with_measured(self, plan: Plan, peak_bytes: int) -> Calibration:
        """With a probe's peak for `plan`, whose predicted peak is after these calibration."""
        before = self.probes.get(plan_way(plan))
        predicted_bytes = _scaled(plan.predicted_peak_bytes, 1.0 if before is None else 1.0 / before.ratio)
        ratio = (peak_bytes - IMPORTS_BYTES) / max(1, predicted_bytes - IMPORTS_BYTES)
        ratio = min(HIGHEST_RATIO, max(LOWEST_RATIO, ratio))
        probe = Probe(ratio, _scaled(predicted_bytes, ratio))
        return Calibration(key=self.key, probes={**self.probes, plan_way(plan): probe})


NO_CALIBRATION = Calibration()


def _scaled(size_bytes: int, ratio: float) -> int:
    """With what lies above the imports times `ratio`."""
    return size_bytes + int((ratio - 1.0) * max(0, size_bytes - IMPORTS_BYTES))


def way_name(format: Format, compute: Compute, checkpointing: bool, cache: CacheDtype, frozen_encoder: bool) -> str:
    """All that decides how a prediction is off, in words: "nf4 base, fp32 arithmetic, checkpointing"."""
    parts = [f"{format} base", f"{compute} arithmetic"]
    parts += ["checkpointing"] * checkpointing + [f"{cache} cache"] * (cache != "none")
    return ", ".join(parts + ["frozen encoder"] * frozen_encoder)


def plan_way(plan: Plan) -> str:
    """`way_name` of a plan."""
    return way_name(plan.format, plan.compute, plan.checkpointing, plan.cache, plan.frozen_encoder)


def calibration_key(base_digest: str, client_version: str, matmul_key: str) -> str:
    """What measurements hold for: the base, the version that predicts, and the processor, GPU, threads and torch that
    it runs on."""
    return f"{base_digest}; edge-client {client_version}; {matmul_key}"


def read_calibration(folder: StateFolder, key: str) -> Calibration:
    """What was measured for `key`, nothing where the file is missing, damaged or of another base or board."""
    found = read_small(folder.path / FILE, Calibration)
    return found if found is not None and found.key == key else Calibration(key=key)


def write_calibration(folder: StateFolder, calibration: Calibration) -> None:
    """Keep them in `folder`, which is locked. Raises DiskError."""
    folder.write(FILE, msgspec.json.encode(calibration))
