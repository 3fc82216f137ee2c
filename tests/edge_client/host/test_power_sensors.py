"""Which power is read on which board, on boards laid out as files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_client.host.power_sensors import EnergySensor, PowerSensor, find_sensor, why_none


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def hwmon(number: int, rails: dict[str, tuple[int, int]], name: str = "ina3221") -> dict[str, str]:
    """An INA3221 as JetPack 5 shows it: rail → (mV, mA)."""
    files = {"name": f"{name}\n"}
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files |= {f"in{channel}_label": f"{label}\n", f"in{channel}_input": f"{millivolts}\n"}
        files |= {f"curr{channel}_input": f"{milliamperes}\n", f"in{channel + 3}_input": "11\n"}
    files |= {"in7_label": "sum of shunt voltages\n", "in7_input": "33\n", "curr4_input": "4000\n"}
    return {f"sys/class/hwmon/hwmon{number}/{file}": text for file, text in files.items()}


def rapl(zone: str, name: str, microjoules: int, range_uj: int = 262_143_328_850) -> dict[str, str]:
    folder = f"sys/class/powercap/intel-rapl:{zone}"
    values = {"name": name, "energy_uj": str(microjoules), "max_energy_range_uj": str(range_uj)}
    return {f"{folder}/{file}": f"{text}\n" for file, text in values.items()}


ORIN_NANO = hwmon(3, {"VDD_IN": (5000, 1500), "VDD_CPU_GPU_CV": (5000, 600), "VDD_SOC": (5000, 400)})
AGX_ORIN = hwmon(1, {"VDD_GPU_SOC": (20000, 200), "VDD_CPU_CV": (20000, 50), "VIN_SYS_5V0": (5000, 600)})
AGX_ORIN |= hwmon(2, {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5000, 100)})
AGX_XAVIER = hwmon(1, {"GPU": (1000, 100), "CPU": (1000, 200), "SOC": (1000, 300)})
AGX_XAVIER |= hwmon(2, {"CV": (1000, 10), "VDDRQ": (1000, 20), "SYS5V": (1000, 30)})


@pytest.mark.parametrize(
    ("files", "name", "watts"),
    [
        (ORIN_NANO, "INA3221 VDD_IN", 7.5),
        (AGX_ORIN, "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", 8.0),
        (AGX_XAVIER, "INA3221 GPU + CPU + SOC + CV + VDDRQ + SYS5V", 0.66),
    ],
    ids=["Orin Nano", "AGX Orin", "AGX Xavier"],
)
def test_a_jetsons_total_is_read_and_no_part_is_counted_twice(
    files: dict[str, str], name: str, watts: float, tmp_path: Path
) -> None:
    """The rail that feeds the module, or the parallel ones that together do."""
    sensor = find_sensor(lay_out(tmp_path, files))

    assert isinstance(sensor, PowerSensor)
    assert sensor.name == name
    assert sensor.watts() == pytest.approx(watts)


def test_a_driver_that_multiplies_itself_is_believed(tmp_path: Path) -> None:
    """power1_input is in µW, as everywhere in hwmon."""
    files = hwmon(0, {"VDD_IN": (5000, 1000)}) | {"sys/class/hwmon/hwmon0/power1_input": "6250000\n"}

    sensor = find_sensor(lay_out(tmp_path, files))

    assert isinstance(sensor, PowerSensor)
    assert sensor.watts() == 6.25


def test_other_chips_are_not_a_boards_power(tmp_path: Path) -> None:
    """A graphics card's or a battery's monitor has channels as well."""
    root = lay_out(tmp_path, hwmon(0, {"VDD_IN": (12000, 1000)}, name="amdgpu"))

    assert find_sensor(root) is None


def test_rails_without_a_total_are_not_summed(tmp_path: Path) -> None:
    """Of rails that nobody has described, some may feed others; the sentence names them."""
    root = lay_out(tmp_path, hwmon(0, {"VDD_A": (5000, 1000), "VDD_B": (5000, 1000)}))

    assert find_sensor(root) is None
    assert "VDD_A, VDD_B" in why_none(root)


def test_a_reading_that_fails_is_none(tmp_path: Path) -> None:
    """The bus may be busy just now."""
    sensor = find_sensor(lay_out(tmp_path, ORIN_NANO))
    (tmp_path / "sys/class/hwmon/hwmon3/curr1_input").write_text("")

    assert isinstance(sensor, PowerSensor)
    assert sensor.watts() is None


def test_packages_are_added_with_their_memory_but_not_with_their_cores(tmp_path: Path) -> None:
    """A package contains its cores and not its memory."""
    files = rapl("0", "package-0", 1_000_000) | rapl("0:0", "core", 600_000) | rapl("0:1", "dram", 200_000, 65_000_000)
    files |= rapl("1", "package-1", 5_000_000)

    sensor = find_sensor(lay_out(tmp_path, files))

    assert isinstance(sensor, EnergySensor)
    assert sensor.read() == (1_000_000, 200_000, 5_000_000)


def test_the_platforms_counter_is_taken_alone(tmp_path: Path) -> None:
    """psys contains the packages."""
    files = rapl("0", "package-0", 1_000_000) | rapl("1", "psys", 9_000_000)

    sensor = find_sensor(lay_out(tmp_path, files))

    assert isinstance(sensor, EnergySensor)
    assert sensor.read() == (9_000_000,)


def test_a_platform_counter_that_stands_still_is_not_believed(tmp_path: Path) -> None:
    """Boards whose maker left psys unconnected show 0 for ever."""
    sensor = find_sensor(lay_out(tmp_path, rapl("0", "package-0", 1_000_000) | rapl("1", "psys", 0)))

    assert isinstance(sensor, EnergySensor)
    assert sensor.read() == (1_000_000,)


def test_counters_start_again_from_zero(tmp_path: Path) -> None:
    """After max_energy_range_uj; each counter on its own."""
    files = rapl("0", "package-0", 0, range_uj=10_000_000) | rapl("0:0", "dram", 0, range_uj=4_000_000)
    sensor = find_sensor(lay_out(tmp_path, files))

    assert isinstance(sensor, EnergySensor)
    assert sensor.joules((9_000_000, 1_000_000), (2_000_000, 1_500_000)) == pytest.approx(3.0 + 0.5)


def test_a_jetsons_rail_goes_before_counters(tmp_path: Path) -> None:
    """The rail has the whole module."""
    assert isinstance(find_sensor(lay_out(tmp_path, ORIN_NANO | rapl("0", "package-0", 1))), PowerSensor)


def test_no_sensor_is_said(tmp_path: Path) -> None:
    """A Raspberry Pi, most virtual machines."""
    assert find_sensor(tmp_path) is None
    assert why_none(tmp_path) == "not measurable here (no INA3221 or RAPL readable)"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_counters_for_root_only_are_said(tmp_path: Path) -> None:
    """Since 2020 Linux shows them to root alone."""
    root = lay_out(tmp_path, rapl("0", "package-0", 1))
    (root / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)

    assert find_sensor(root) is None
    assert "root" in why_none(root)
