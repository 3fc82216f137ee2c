"""Boards laid out as files, as the kernel shows them below /sys, /etc and /var.

Layouts are from public descriptions: Raspberry Pi OS (raspberrypi.com/documentation/computers/os.html; get_throttled is
of the firmware driver of github.com/raspberrypi/linux), NVIDIA's Jetson Linux Developer Guide ("Platform Power and
Performance": nvpmodel, thermal zones and cooling devices, over-current counters), github.com/rbonghi/jetson_stats for
names of zones on each module, and docs.kernel.org for power supplies.
"""

from __future__ import annotations

from pathlib import Path


def lay_out(root: Path, files: dict[str, str]) -> Path:
    """Write a board's files below `root`; text ends with a line feed, as the kernel's does."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def zone(number: int, name: str, millidegrees: int) -> dict[str, str]:
    """A thermal zone."""
    folder = f"sys/class/thermal/thermal_zone{number}"
    return {f"{folder}/type": name, f"{folder}/temp": str(millidegrees)}


def cooler(number: int, name: str, state: int) -> dict[str, str]:
    """A cooling device."""
    folder = f"sys/class/thermal/cooling_device{number}"
    return {f"{folder}/type": name, f"{folder}/cur_state": str(state), f"{folder}/max_state": "3"}


def supply(name: str, **files: str) -> dict[str, str]:
    """A power supply."""
    return {f"sys/class/power_supply/{name}/{file}": text for file, text in files.items()}


def policy(first: int, last: int, now_khz: int, allowed_khz: int, most_khz: int) -> dict[str, str]:
    """The clock of a group of cores."""
    folder = f"sys/devices/system/cpu/cpufreq/policy{first}"
    cores = " ".join(map(str, range(first, last + 1)))
    files = {"related_cpus": cores, "scaling_cur_freq": str(now_khz), "scaling_max_freq": str(allowed_khz)}
    return {f"{folder}/{file}": text for file, text in (files | {"cpuinfo_max_freq": str(most_khz)}).items()}


PI_BITS = "sys/devices/platform/soc/soc:firmware/get_throttled"
"""Where a Raspberry Pi's kernel shows the firmware's bits."""

RASPBERRY_PI_4 = {
    **zone(0, "cpu-thermal", 52_582),
    **cooler(0, "cpufreq-cpu0", 0),
    **policy(0, 3, 1_500_000, 1_800_000, 1_800_000),
    PI_BITS: "0",
}

ORIN_NANO = {
    **zone(0, "cpu-thermal", 50_187),
    **zone(1, "gpu-thermal", 49_500),
    **zone(5, "soc0-thermal", 48_656),
    **zone(8, "tj-thermal", 50_187),
    **cooler(0, "pwm-fan", 2),
    **cooler(1, "cpu-throttle-alert", 0),
    **cooler(2, "gpu-throttle-alert", 0),
    **policy(0, 3, 1_344_000, 1_344_000, 1_728_000),
    **policy(4, 5, 729_600, 1_344_000, 1_728_000),
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000",
    "sys/class/devfreq/17000000.gpu/max_freq": "918000000",
    "sys/class/hwmon/hwmon2/name": "soctherm_oc",
    "sys/class/hwmon/hwmon2/oc1_event_cnt": "0",
    "sys/class/hwmon/hwmon2/oc2_event_cnt": "0",
    "sys/class/hwmon/hwmon2/oc3_event_cnt": "3",
    "etc/nvpmodel.conf": (
        "# FORMAT:\n# < POWER_MODEL ID=9 NAME=COMMENT >\n< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n"
        "< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >"
    ),
    "var/lib/nvpmodel/status": "pmode:0002",
}
ORIN_NANO |= supply("ucsi-source-psy-1-00081", type="USB", online="0", scope="System")

NANO = {
    **zone(0, "AO-therm", 44_000),
    **zone(1, "CPU-therm", 38_500),
    **zone(2, "GPU-therm", 37_000),
    **zone(3, "PLL-therm", 37_500),
    **zone(4, "PMIC-Die", 100_000),
    **zone(5, "thermal-fan-est", 37_750),
    "sys/class/devfreq/57000000.gpu/cur_freq": "76800000",
    "sys/class/devfreq/57000000.gpu/max_freq": "921600000",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=5W >\n< PM_CONFIG DEFAULT=0 >",
}

LAPTOP = supply("AC", type="Mains", online="0") | supply("BAT0", type="Battery", status="Discharging", present="1")
LAPTOP |= supply("hidpp_battery_0", type="Battery", status="Discharging", scope="Device")
