"""Slow-downs of a board by heat and by its power supply, as the kernel tells them below `root`.

- Cooling devices (docs.kernel.org/driver-api/thermal/sysfs-api.html) whose state is above 0 hold a clock down:
  `thermal-cpufreq-0` and `cpufreq-…` on Raspberry Pis and Rockchip boards, `cpu-throttle-alert` and
  `gpu-throttle-alert` on Jetsons. Fans are cooling devices too and slow nothing.
- A Raspberry Pi's firmware tells bits in hexadecimal (raspberrypi.com/documentation/computers/os.html, get_throttled);
  kernels without that file have a hwmon chip `rpi_volt` with an alarm.
- A Jetson counts what its input voltage and current made it do, in a hwmon chip `soctherm_oc` (Jetson Linux Developer
  Guide, "Platform Power and Performance", over-current events): OC1 under-voltage, OC2 average and OC3 instantaneous
  over-current. Counts say nothing about now, but that they grow does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_client.host.system_files import read_number, read_text

_CLOCK_COOLERS = re.compile(r"cpufreq|devfreq|throttle|^Processor$", re.IGNORECASE)

PI_THROTTLED = Path("sys/devices/platform/soc/soc:firmware/get_throttled")
"""The firmware's bits on a Raspberry Pi, where its kernel has the file."""

_PI_BITS = ((0, "under-voltage"), (1, "clock capped"), (2, "throttled"), (3, "soft temperature limit"))
"""Bits about now; the same ones 16 higher are about the time since the start."""

_OVER_CURRENT = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}


@dataclass(frozen=True, slots=True)
class SlowDowns:
    """The files of one board that tell of being slowed down, found once.

    Attributes:
        coolers: state files by name.
        bits: what a Raspberry Pi's firmware tells.
        alarm: 1 where its voltage is too low.
        counters: counts of over-current by what is counted.
    """

    coolers: Mapping[Path, str]
    bits: Path | None
    alarm: Path | None
    counters: Mapping[Path, str]

    def __bool__(self) -> bool:
        return bool(self.coolers or self.bits or self.alarm or self.counters)

    def now(self) -> tuple[str, ...]:
        """The reasons why the board is slowed down now, in words; none where it is not."""
        hot = [name for path, name in self.coolers.items() if (read_number(path) or 0) > 0]
        reasons = [f"heat ({', '.join(dict.fromkeys(hot))})"] if hot else []
        bits = (self.bits and read_number(self.bits, 16)) or 0
        reasons += [word for bit, word in _PI_BITS if bits >> bit & 1]
        if self.alarm and read_number(self.alarm) and "under-voltage" not in reasons:
            reasons.append("under-voltage")
        return tuple(reasons)

    def counts(self) -> dict[str, int]:
        """How often the supply has slowed the board down since it was switched on, by reason."""
        return {name: read_number(path) or 0 for path, name in self.counters.items()}


def find_slow_downs(root: Path = Path("/")) -> SlowDowns:
    """The files that this board has."""
    coolers = {
        folder / "cur_state": name
        for folder in sorted((root / "sys/class/thermal").glob("cooling_device*"))
        if _CLOCK_COOLERS.search(name := read_text(folder / "type").strip())
    }
    chips = {folder: read_text(folder / "name").strip() for folder in sorted((root / "sys/class/hwmon").glob("hwmon*"))}
    alarms = [folder / "in0_lcrit_alarm" for folder, name in chips.items() if name == "rpi_volt"]
    counters = {
        folder / f"{event}_event_cnt": word
        for folder, name in chips.items()
        if name == "soctherm_oc"
        for event, word in _OVER_CURRENT.items()
    }
    bits = root / PI_THROTTLED
    return SlowDowns(coolers, bits if bits.exists() else None, alarms[0] if alarms else None, counters)
