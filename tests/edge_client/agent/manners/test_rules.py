"""Rules as people type them, and machines that cannot tell what a rule asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client.agent.manners.leave_to_train import ALWAYS, Rules, Window
from edge_client.agent.manners.rules import MAX_WINDOWS, parse_rules, require_sensors
from edge_client.errors import ConfigError
from tests.fakes.sysfs import LAPTOP, RASPBERRY_PI_4, lay_out


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("22:00-06:00", [(22 * 3600, 6 * 3600)]),
        (" 9:30 - 17:05 ", [(34200, 61500)]),
        ("22:00–06:00, 12:00-13:00", [(22 * 3600, 6 * 3600), (12 * 3600, 13 * 3600)]),
        ("00:00-23:59", [(0, 86340)]),
        ("", []),
    ],
)
def test_windows_are_hours_and_minutes(window: str, expected: list[tuple[int, int]]) -> None:
    assert parse_rules(window, "", False).windows == tuple(Window(*pair) for pair in expected)


@pytest.mark.parametrize("below", ["70C", "70", "70 °C", "70.0c", " 70°C "])
def test_a_limit_is_in_degrees_celsius(below: str) -> None:
    assert parse_rules("", below, False) == Rules(below_c=70.0)


def test_nothing_typed_is_no_rule() -> None:
    assert parse_rules(" ", "", False) == ALWAYS


@pytest.mark.parametrize(
    ("window", "below", "message"),
    [
        ("25:00-6", "", "'25:00-6' is no time of a day"),
        ("25:00-06:00", "", "names a time that no clock shows"),
        ("22:00-06:60", "", "names a time that no clock shows"),
        ("22:00-24:00", "", "names a time that no clock shows"),
        ("06:00-06:00", "", "ends when it starts"),
        ("22:00", "", "is no time of a day"),
        ("22:00-06:00,", "", "'' is no time of a day"),
        (",".join(["01:00-02:00"] * (MAX_WINDOWS + 1)), "", "at most"),
        ("", "700", "is not between 30 and 110 °C"),
        ("", "7", "is not between"),
        ("", "-70", "is no temperature"),
        ("", "160F", "is no temperature"),
        ("", "nan", "is no temperature"),
        ("", "hot", "is no temperature"),
    ],
)
def test_what_cannot_be_right_is_one_error(window: str, below: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_rules(window, below, False)

    assert caught.value.hint


def test_a_limit_needs_a_thermometer(tmp_path: Path) -> None:
    """Where the machine tells no temperature, the start fails with a word, rather than a rule that never holds."""
    limit = Rules(below_c=70.0)

    with pytest.raises(ConfigError, match="tells no temperature") as caught:
        require_sensors(limit, pytest.fail, tmp_path)
    assert "leave --below out" in caught.value.hint
    require_sensors(limit, pytest.fail, lay_out(tmp_path, RASPBERRY_PI_4))


def test_a_machine_without_a_battery_counts_as_on_mains(tmp_path: Path) -> None:
    """It says so once; a laptop has nothing to say."""
    told: list[str] = []

    require_sensors(Rules(only_on_mains=True), told.append, tmp_path)
    require_sensors(Rules(only_on_mains=True), told.append, lay_out(tmp_path, LAPTOP))

    assert len(told) == 1 and "counts as on mains" in told[0]


def test_without_rules_nothing_is_asked(tmp_path: Path) -> None:
    require_sensors(ALWAYS, pytest.fail, tmp_path)
