"""Energy of a stretch of work: a counter's difference, or power sampled meanwhile and integrated over time."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edge_client.host.power_sensors import EnergySensor, PowerSensor, Sensor, find_sensor

SAMPLE_EVERY_S = 0.1
"""Between two samples of a power sensor. An INA3221 of a Jetson has a new average every few milliseconds; reading it
takes a bus transfer, so more often would only cost the work its processor."""

ROUND_SAMPLE_EVERY_S = 1.0
"""The same in a round, which lasts for minutes: what wakes a board ten times a second would be a cost of its own."""

LONGEST_COUNTED_S = 1800.0
"""A counter may have gone round more than once in a longer time: at 145 W RAPL's does after 30 minutes."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of a stretch of work. `n_samples` is 2 for an energy counter."""

    joules: float
    seconds: float
    n_samples: int

    @property
    def watts(self) -> float:
        return self.joules / self.seconds


class EnergyRecorder:
    """Use as a context around the work; `energy` is there afterwards, None where the sensor could not be read."""

    def __init__(
        self, sensor: Sensor, clock: Callable[[], float] = time.monotonic, *, every_s: float = SAMPLE_EVERY_S
    ) -> None:
        self._recording: _Counter | _Sampler
        if isinstance(sensor, EnergySensor):
            self._recording = _Counter(sensor, clock)
        else:
            self._recording = _Sampler(sensor, clock, every_s)
        self.energy: Energy | None = None

    def __enter__(self) -> EnergyRecorder:
        self._recording.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.energy = self._recording.stop()


class _Counter:
    def __init__(self, sensor: EnergySensor, clock: Callable[[], float]) -> None:
        self._sensor, self._clock = sensor, clock
        self._before: tuple[int, ...] | None = None
        self._start_s = 0.0

    def start(self) -> None:
        self._before, self._start_s = self._sensor.read(), self._clock()

    def stop(self) -> Energy | None:
        after, seconds = self._sensor.read(), self._clock() - self._start_s
        if self._before is None or after is None or seconds <= 0:
            return None
        return Energy(self._sensor.joules(self._before, after), seconds, 2)


class _Sampler:
    """A thread that sleeps between samples; torch's products do not hold it up, for they release the interpreter."""

    def __init__(self, sensor: PowerSensor, clock: Callable[[], float], every_s: float) -> None:
        self._sensor, self._clock, self._every_s = sensor, clock, every_s
        self._samples: list[tuple[float, float]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power samples", daemon=True)

    def start(self) -> None:
        self._sample()
        self._thread.start()

    def stop(self) -> Energy | None:
        self._stopped.set()
        self._thread.join()
        self._sample()
        return integrate(self._samples)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._sample()

    def _sample(self) -> None:
        watts = self._sensor.watts()
        if watts is not None:
            self._samples.append((self._clock(), watts))


@contextmanager
def round_energy(root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> Iterator[dict[str, float]]:
    """The energy of what is done meanwhile, as a number `joules` in what is yielded, once that is over; it stays empty
    on a board whose power cannot be read, and where a counter may have gone round."""
    numbers: dict[str, float] = {}
    sensor = find_sensor(root)
    if sensor is None:
        yield numbers
        return
    with EnergyRecorder(sensor, clock, every_s=ROUND_SAMPLE_EVERY_S) as recorder:
        yield numbers
    energy = recorder.energy
    if energy is not None and (isinstance(sensor, PowerSensor) or energy.seconds <= LONGEST_COUNTED_S):
        numbers["joules"] = energy.joules


def integrate(samples: Sequence[tuple[float, float]]) -> Energy | None:
    """Energy under (seconds, watts) samples by the trapezoidal rule; None for fewer than two."""
    if len(samples) < 2 or samples[-1][0] <= samples[0][0]:
        return None
    pairs = itertools.pairwise(samples)
    joules = sum((late_s - early_s) * (before + after) / 2 for (early_s, before), (late_s, after) in pairs)
    return Energy(joules, samples[-1][0] - samples[0][0], len(samples))
