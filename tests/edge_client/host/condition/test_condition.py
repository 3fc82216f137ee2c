"""What boards of each kind tell about power, heat and clocks, on boards laid out as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client.host.condition.condition import Condition, condition_words, read_condition
from tests.fakes.sysfs import LAPTOP, NANO, ORIN_NANO, PI_BITS, RASPBERRY_PI_4, cooler, lay_out, supply, zone


def words(root: Path, files: dict[str, str]) -> dict[str, str]:
    return condition_words(read_condition(lay_out(root, files)))


def test_a_jetson_tells_mode_heat_and_clocks(tmp_path: Path) -> None:
    """The mode by the name that `nvpmodel -q` shows; clocks that the mode caps say what they could."""
    found = words(tmp_path, ORIN_NANO)

    assert found["power mode"] == "MAXN_SUPER (mode 2)"
    assert found["heat"].startswith("50.2 °C (")
    assert found["clocks"].startswith("CPU 0-3 1344 of 1344 MHz (it can 1728), CPU 4-5 729 of 1344 MHz")
    assert found["clocks"].endswith("GPU 306 of 918 MHz")
    assert found["slowed"] == "not now; since it was switched on: 3 × instantaneous over-current"
    assert "supply" not in found, "a USB-C port that is not plugged says nothing about the board's own socket"


def test_a_mode_that_was_never_set_is_the_default(tmp_path: Path) -> None:
    """nvpmodel writes its status when a mode is set; before, the file of modes says which one a start takes."""
    assert read_condition(lay_out(tmp_path, NANO)).power_mode == "MAXN (mode 0)"


@pytest.mark.parametrize(
    ("status", "mode"), [("pmode:0001 fmode:0000", "25W (mode 1)"), ("pmode:0007", "mode 7"), ("?", "25W (mode 1)")]
)
def test_modes_are_named_where_they_have_a_name(tmp_path: Path, status: str, mode: str) -> None:
    """A commented line defines none, and a status that cannot be read is no mode 0."""
    files = ORIN_NANO | {"var/lib/nvpmodel/status": status}

    assert read_condition(lay_out(tmp_path, files)).power_mode == mode


def test_the_hottest_of_what_computes_counts(tmp_path: Path) -> None:
    """A Nano's PMIC-Die says 100 °C for ever, and its AO zone is not the processor."""
    found = read_condition(lay_out(tmp_path, NANO))

    assert (found.temperature_c, found.sensor) == (38.5, "CPU-therm")


def test_zones_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    """As those of units that are switched off on an Orin; a nonsense number is no temperature either."""
    lay_out(tmp_path, ORIN_NANO | zone(2, "cpu2-thermal", 0) | zone(3, "gpu2-thermal", -256_000))
    (tmp_path / "sys/class/thermal/thermal_zone2/temp").write_text("")

    assert read_condition(tmp_path).temperature_c == 50.187


def test_a_pc_without_zones_has_a_chip(tmp_path: Path) -> None:
    """k10temp shows an AMD processor's temperature in hwmon alone."""
    files = {"sys/class/hwmon/hwmon1/name": "k10temp", "sys/class/hwmon/hwmon1/temp1_input": "61500"}

    assert read_condition(lay_out(tmp_path, files)).temperature_c == 61.5


@pytest.mark.parametrize(
    ("bits", "slowed"),
    [
        ("0", None),
        ("50005", "now by under-voltage, throttled"),
        ("0x80008", "now by soft temperature limit"),
        ("e0002", "now by clock capped"),
        ("50000", None),  # only in the past
        ("", None),
    ],
)
def test_a_raspberry_pis_bits_are_told(tmp_path: Path, bits: str, slowed: str | None) -> None:
    """The lowest four are about now."""
    assert words(tmp_path, RASPBERRY_PI_4 | {PI_BITS: bits}).get("slowed") == slowed


def test_a_raspberry_pi_without_that_file_has_an_alarm(tmp_path: Path) -> None:
    """Kernels from 4.20 on show under-voltage as a hwmon chip."""
    files = {name: text for name, text in RASPBERRY_PI_4.items() if name != PI_BITS}
    files |= {"sys/class/hwmon/hwmon0/name": "rpi_volt", "sys/class/hwmon/hwmon0/in0_lcrit_alarm": "1"}

    assert words(tmp_path, files)["slowed"] == "now by under-voltage"


@pytest.mark.parametrize("board", [RASPBERRY_PI_4, ORIN_NANO], ids=["Raspberry Pi", "Jetson"])
def test_heat_that_holds_a_clock_down_is_told(tmp_path: Path, board: dict[str, str]) -> None:
    """By the cooling device of a clock; a fan that turns slows nothing down."""
    name = "cpufreq-cpu0" if board is RASPBERRY_PI_4 else "cpu-throttle-alert"
    number = 0 if board is RASPBERRY_PI_4 else 1

    assert words(tmp_path, board | cooler(number, name, 1))["slowed"].startswith(f"now by heat ({name})")


BATTERY = supply("BAT0", type="Battery", status="Discharging", present="1")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "not told"),
        (LAPTOP, "battery"),
        (LAPTOP | supply("AC", type="Mains", online="1"), "mains"),
        (LAPTOP | supply("usb", type="USB", online="1"), "mains"),
        (LAPTOP | supply("BAT0", status="Charging"), "mains"),
        (BATTERY, "battery"),
        (supply("ups", type="UPS", status="Discharging"), "battery"),
        (supply("BAT0", type="Battery", status="Discharging", present="0"), "not told"),
        (supply("mouse", type="Battery", status="Discharging", scope="Device"), "not told"),
    ],
    ids=["desktop", "laptop", "plugged", "USB-C", "charging", "HAT", "UPS", "empty bay", "mouse"],
)
def test_a_battery_that_discharges_with_nothing_plugged_is_one(
    tmp_path: Path, files: dict[str, str], told: str
) -> None:
    """systemd's rule; without a battery there is nothing to tell."""
    assert read_condition(lay_out(tmp_path, files)).supply == told


def test_a_machine_that_tells_nothing_has_nothing_to_say(tmp_path: Path) -> None:
    """As a virtual machine or a container."""
    assert read_condition(tmp_path) == Condition()
    assert condition_words(Condition()) == {}
