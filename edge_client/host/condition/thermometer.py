"""The temperature of a board's processor and GPU, read from sysfs below `root`, so that tests can lay out a board.

Boards show it in thermal zones (docs.kernel.org/driver-api/thermal/sysfs-api.html): `type` names one, `temp` is in
thousandths of a degree. A Raspberry Pi has `cpu-thermal`; an Orin `cpu-thermal`, `gpu-thermal`, `soc0-thermal` … and
`tj-thermal`, the hottest of them; a Nano and a Xavier `CPU-therm`, `GPU-therm` … beside `PMIC-Die`, which always says
100 °C. Zones of units that are switched off cannot be read. PCs without such a zone have a hwmon chip.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_client.host.system_files import read_number, read_text

_PROCESSORS = re.compile(r"cpu|gpu|soc|^tj|core|cluster|package|x86_pkg", re.IGNORECASE)
"""Zones of what computes, by their types, on Jetsons, Raspberry Pis, Rockchip boards and PCs."""

_NO_SENSORS = re.compile(r"^PMIC|^INT3400|^iwlwifi|^nvme|^BAT", re.IGNORECASE)
"""Zones that are never asked: a constant, a policy, and what does not compute."""

_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
"""hwmon drivers of processors."""

COLDEST_C, HOTTEST_C = -40.0, 150.0
"""Silicon outside of this does not run: a number outside of it is no temperature but a sensor that is off."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """One file with a temperature. `name` says to people what is measured."""

    name: str
    path: Path

    def read(self) -> float | None:
        """Degrees Celsius; None where it cannot be read just now."""
        thousandths = read_number(self.path)
        if thousandths is None or not COLDEST_C < thousandths / 1000 < HOTTEST_C:
            return None
        return thousandths / 1000


@dataclass(frozen=True, slots=True)
class Thermometer:
    """The sensors of what computes."""

    sensors: tuple[Sensor, ...]

    def read(self) -> tuple[float, str] | None:
        """The hottest sensor's degrees Celsius and name; None where none can be read just now."""
        read = [(degrees_c, sensor.name) for sensor in self.sensors if (degrees_c := sensor.read()) is not None]
        return max(read) if read else None


def find_thermometer(root: Path = Path("/")) -> Thermometer | None:
    """The board's thermometer; None where it tells no temperature."""
    zones = [zone for zone in _zones(root) if zone.read() is not None]
    chips = [] if zones else [chip for chip in _chips(root) if chip.read() is not None]
    computing = [zone for zone in zones if _PROCESSORS.search(zone.name)]
    sensors = tuple(computing or zones or chips)
    return Thermometer(sensors) if sensors else None


def _zones(root: Path) -> Iterator[Sensor]:
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name = read_text(folder / "type").strip()
        if not _NO_SENSORS.search(name):
            yield Sensor(name or folder.name, folder / "temp")


def _chips(root: Path) -> Iterator[Sensor]:
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = read_text(folder / "name").strip()
        if name in _CHIPS:
            yield from (Sensor(name, path) for path in sorted(folder.glob("temp*_input")))
