"""Energy of a stretch of work, from both kinds of sensors."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.host.energy import LONGEST_COUNTED_S, EnergyRecorder, integrate, round_energy
from edge_client.host.power_sensors import EnergySensor, PowerSensor, Rail, Zone
from tests.fakes.sysfs import lay_out


class Clock:
    """Moves when told."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def counter(tmp_path: Path, microjoules: int) -> tuple[EnergySensor, Path]:
    path = tmp_path / "energy_uj"
    path.write_text(str(microjoules))
    return EnergySensor("a counter", (Zone(path, 10_000_000),)), path


def rail(tmp_path: Path, milliwatts: int) -> tuple[PowerSensor, Path]:
    path = tmp_path / "in_power0_input"
    path.write_text(str(milliwatts))
    return PowerSensor("a rail", (Rail((path,), 1e3),)), path


def test_a_counters_difference_is_the_energy(tmp_path: Path) -> None:
    """Also across the end of its range."""
    sensor, path = counter(tmp_path, 8_000_000)
    clock = Clock()

    with EnergyRecorder(sensor, clock) as recorder:
        path.write_text("3_000_000".replace("_", ""))
        clock.now_s += 2.0

    assert recorder.energy is not None
    assert (recorder.energy.joules, recorder.energy.seconds, recorder.energy.watts) == (5.0, 2.0, 2.5)


def test_steady_power_is_energy_over_time(tmp_path: Path) -> None:
    """At least the first and the last moment are sampled."""
    sensor, _ = rail(tmp_path, 7_500)
    clock = Clock()

    with EnergyRecorder(sensor, clock) as recorder:
        clock.now_s += 4.0

    assert recorder.energy is not None
    assert recorder.energy.watts == pytest.approx(7.5)
    assert recorder.energy.n_samples >= 2


def test_the_sampling_thread_ends_with_the_work(tmp_path: Path) -> None:
    """Whatever the work did."""
    sensor, _ = rail(tmp_path, 1_000)
    before = threading.active_count()

    with pytest.raises(ValueError, match="the work's own"), EnergyRecorder(sensor):
        raise ValueError("the work's own")

    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["counter", "rail"])
def test_a_sensor_that_falls_silent_gives_no_energy(kind: str, tmp_path: Path) -> None:
    """None, never a number made of half a measurement."""
    sensor, path = counter(tmp_path, 1) if kind == "counter" else rail(tmp_path, 1)
    clock = Clock()

    with EnergyRecorder(sensor, clock) as recorder:
        path.unlink()
        clock.now_s += 1.0

    assert recorder.energy is None


@given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(0, 50)), min_size=2, max_size=30))
def test_the_mean_lies_between_the_samples(steps: list[tuple[float, float]]) -> None:
    """However unevenly the samples come."""
    samples, now_s = [], 0.0
    for pause_s, watts in steps:
        now_s += pause_s
        samples.append((now_s, watts))

    energy = integrate(samples)

    assert energy is not None
    powers = [watts for _, watts in samples]
    assert min(powers) - 1e-9 <= energy.watts <= max(powers) + 1e-9


@pytest.mark.parametrize(("seconds", "joules"), [(60.0, {"joules": 5.0}), (LONGEST_COUNTED_S + 1, {})])
def test_a_round_has_its_energy_while_a_counter_can_be_trusted(
    tmp_path: Path, seconds: float, joules: dict[str, float]
) -> None:
    """Longer, it may have gone round unseen."""
    zone = "sys/class/powercap/intel-rapl:0"
    files = {"name": "package-0", "max_energy_range_uj": "262143328850", "energy_uj": "1000000"}
    root, clock = lay_out(tmp_path, {f"{zone}/{name}": text for name, text in files.items()}), Clock()

    with round_energy(root, clock) as numbers:
        lay_out(tmp_path, {f"{zone}/energy_uj": "6000000"})
        clock.now_s += seconds
        assert numbers == {}

    assert numbers == joules


def test_a_round_on_a_board_without_a_sensor_has_no_energy(tmp_path: Path) -> None:
    with round_energy(tmp_path) as numbers:
        pass

    assert numbers == {}
