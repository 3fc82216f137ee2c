"""The rules of `--window`, `--below` and `--only-on-mains`, as people type them, and whether this machine can tell what
they ask for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from edge_client.agent.manners.leave_to_train import HYSTERESIS_K, Rules, Window
from edge_client.errors import ConfigError
from edge_client.host.condition.power_supply import read_supply
from edge_client.host.condition.thermometer import find_thermometer

COOLEST_LIMIT_C, HOTTEST_LIMIT_C = 30.0, 110.0
"""Limits that make sense: below, a board in a warm room would never train; above, it switches itself off before."""

MAX_WINDOWS = 24
"""Windows of a day; more of them are no plan but a mistake."""

_WINDOW = re.compile(r"(\d{1,2}):(\d{2})\s*[-–]\s*(\d{1,2}):(\d{2})")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*°?\s*C?", re.IGNORECASE)


def parse_rules(window: str, below: str, only_on_mains: bool) -> Rules:
    """The rules of three settings, "" for none. Raises ConfigError for what is no window and no temperature."""
    return Rules(
        windows=_windows(window) if window.strip() else (),
        below_c=_below_c(below) if below.strip() else None,
        only_on_mains=only_on_mains,
    )


def require_sensors(rules: Rules, notice: Callable[[str], None], root: Path = Path("/")) -> None:
    """Raise ConfigError where this machine tells no temperature and a rule needs one; `notice` hears what a rule will
    not do here."""
    if rules.below_c is not None and find_thermometer(root) is None:
        raise ConfigError(
            "--below is given, and this machine tells no temperature (/sys/class/thermal has no zone that can be read)",
            "leave --below out; a container needs /sys of its host",
        )
    if rules.only_on_mains and read_supply(root) == "not told":
        notice("--only-on-mains changes nothing here: this machine tells of no battery, and counts as on mains")


def _windows(text: str) -> tuple[Window, ...]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_WINDOWS:
        raise ConfigError(f"--window names {len(parts)} windows, at most {MAX_WINDOWS} are allowed", "join some")
    return tuple(map(_window, parts))


def _window(text: str) -> Window:
    match = _WINDOW.fullmatch(text)
    hint = "write it as 22:00-06:00, several with commas: 12:00-13:00,22:00-06:00"
    if match is None:
        raise ConfigError(f"--window {text!r} is no time of a day", hint)
    hours, minutes, end_hours, end_minutes = map(int, match.groups())
    if max(hours, end_hours) > 23 or max(minutes, end_minutes) > 59:
        raise ConfigError(f"--window {text!r} names a time that no clock shows: hours go from 00:00 to 23:59", hint)
    start_s, end_s = 3600 * hours + 60 * minutes, 3600 * end_hours + 60 * end_minutes
    if start_s == end_s:
        raise ConfigError(f"--window {text!r} ends when it starts: all day, or never?", "leave it out for all day")
    return Window(start_s, end_s)


def _below_c(text: str) -> float:
    match = _DEGREES.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"--below {text!r} is no temperature", "write it in degrees Celsius, as 70C")
    limit_c = float(match[1])
    if not COOLEST_LIMIT_C <= limit_c <= HOTTEST_LIMIT_C:
        raise ConfigError(
            f"--below {text!r} is not between {COOLEST_LIMIT_C:g} and {HOTTEST_LIMIT_C:g} °C",
            f"70C is common; training goes on {HYSTERESIS_K:g} K below it",
        )
    return limit_c
