"""The board's own power sensors, read from sysfs below `root`, so that tests can lay out a board of their own.

Jetsons carry INA3221 monitors of three channels each. JetPack 5 and later show them through the kernel's hwmon driver
(docs.kernel.org/hwmon/ina3221.html): `in1_label` names a channel's rail, `in1_input` is in mV, `curr1_input` in mA. x86
counts energy in RAPL's zones (docs.kernel.org/power/powercap/powercap.html): `energy_uj` in µJ, which starts again from
0 after `max_energy_range_uj`.

A rail that feeds others is never added to them. Which rails do is from NVIDIA's developer guides, as collected by the
energymon project (jetson/JetsonPowerRails.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_client.host.system_files import read_number, read_text

TOTAL_RAIL = "VDD_IN"
"""The rail that feeds the whole module: Orin Nano and NX, Xavier NX."""

PARALLEL_RAILS = (
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin; VDDQ_VDD2_1V8AO is fed by VIN_SYS_5V0
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)
"""Rails that together feed a module without TOTAL_RAIL."""

_N_CHANNELS = 3  # of one INA3221; in7 and curr4 of hwmon are sums, not rails


@dataclass(frozen=True, slots=True)
class Rail:
    """One channel of a monitor. `watts` divides the product (or the one value) of `files` by `per_watt`."""

    files: tuple[Path, ...]
    per_watt: float

    def watts(self) -> float | None:
        """None where a file cannot be read just now."""
        product = 1.0
        for path in self.files:
            value = read_number(path)
            if value is None:
                return None
            product *= value
        return product / self.per_watt


@dataclass(frozen=True, slots=True)
class PowerSensor:
    """Power now, to be sampled. `name` says to people what is measured."""

    name: str
    rails: tuple[Rail, ...]

    def watts(self) -> float | None:
        """Power of all rails together; None where one of them cannot be read just now."""
        values = [rail.watts() for rail in self.rails]
        readable = [value for value in values if value is not None]
        return sum(readable) if len(readable) == len(values) else None


@dataclass(frozen=True, slots=True)
class Zone:
    """One energy counter of RAPL, in µJ, which counts modulo `range_uj`."""

    counter: Path
    range_uj: int


@dataclass(frozen=True, slots=True)
class EnergySensor:
    """Energy since some time, to be read twice. `name` says to people what is measured."""

    name: str
    zones: tuple[Zone, ...]

    def read(self) -> tuple[int, ...] | None:
        """The counters in µJ; None where one of them cannot be read."""
        values = [read_number(zone.counter) for zone in self.zones]
        readable = [int(value) for value in values if value is not None]
        return tuple(readable) if len(readable) == len(values) else None

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Energy between two readings less than one turn of a counter apart (at 100 W some 40 minutes)."""
        turns = zip(self.zones, before, after, strict=True)
        return sum((last - first) % zone.range_uj for zone, first, last in turns) / 1e6


Sensor = PowerSensor | EnergySensor


def find_sensor(root: Path = Path("/")) -> Sensor | None:
    """The sensor that measures the most of this board: the module's INA3221 rails, else RAPL; None where neither can be
    read."""
    return _ina3221(root) or _rapl(root)


def why_none(root: Path = Path("/")) -> str:
    """A sentence for people, where `find_sensor` finds nothing."""
    rails = _rails(root)
    if rails:
        return f"not measurable here (no total among the INA3221 rails {', '.join(sorted(rails))})"
    if any((root / "sys/class/powercap").glob("intel-rapl:*/energy_uj")):
        return "not measurable here (RAPL's counters are for root only: sudo chmod a+r them, or run as root)"
    return "not measurable here (no INA3221 or RAPL readable)"


def _ina3221(root: Path) -> PowerSensor | None:
    rails = _rails(root)
    for names in ((TOTAL_RAIL,), *PARALLEL_RAILS):
        if all(name in rails for name in names):
            sensor = PowerSensor(f"INA3221 {' + '.join(names)}", tuple(rails[name] for name in names))
            if sensor.watts() is not None:
                return sensor
    return None


def _rails(root: Path) -> dict[str, Rail]:
    """Every connected channel by its rail's name."""
    rails = {}
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _text(folder / "name") != "ina3221":
            continue
        for channel in range(1, _N_CHANNELS + 1):
            power = folder / f"power{channel}_input"  # µW; the mainline driver leaves the product to us
            volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"  # mV, mA
            rail = Rail((power,), 1e6) if power.is_file() else Rail((volts, amperes), 1e6)
            rails[_text(folder / f"in{channel}_label")] = rail
    return {name: rail for name, rail in rails.items() if name not in ("", "NC")}


def _rapl(root: Path) -> EnergySensor | None:
    """The platform's zone where it counts, else all packages with their memory, which a package does not contain."""
    named = {folder: _text(folder / "name") for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))}
    platform = [folder for folder, name in named.items() if name == "psys" and read_number(folder / "energy_uj")]
    processors = [folder for folder, name in named.items() if name.startswith("package") or name == "dram"]
    for name, folders in (("RAPL psys (whole platform)", platform), ("RAPL packages and memory", processors)):
        zones = [
            Zone(folder / "energy_uj", read_number(folder / "max_energy_range_uj") or 1 << 63) for folder in folders
        ]
        sensor = EnergySensor(name, tuple(zones))
        if zones and sensor.read() is not None:
            return sensor
    return None


def _text(path: Path) -> str:
    return read_text(path).strip()
