"""A host of a worker that is asked to stop in the middle of a round, and a clock by which every step is saved."""

from __future__ import annotations

from edge_client.engines.contract import Host
from edge_client.jobs.messages import Progress


class StepClock:
    """Seconds that pass by `step_s` at every look, so that tests decide when a save is due."""

    def __init__(self, step_s: float = 10.0) -> None:
        self.now_s, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self._step_s
        return self.now_s


def stop_after(n_steps: int) -> Host:
    """A host that asks for a stop once `n_steps` training steps are done."""
    seen: list[Progress] = []
    return Host(seen.append, StepClock(), lambda: any(p.phase == "train" and p.step >= n_steps for p in seen))
