"""A board's condition as one look tells it: power mode, what feeds it, temperature, clocks, and what slows it down."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_client.host.condition.clocks import Clock, read_clocks
from edge_client.host.condition.power_mode import read_power_mode
from edge_client.host.condition.power_supply import Supply, read_supply
from edge_client.host.condition.slow_downs import find_slow_downs
from edge_client.host.condition.thermometer import find_thermometer


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """The condition of a board at one moment; what it does not tell is empty.

    Attributes:
        power_mode: a Jetson's, by name.
        supply: mains or battery.
        temperature_c: of the hottest sensor of what computes, None where there is none.
        sensor: that sensor's name.
        clocks: of processors and GPU.
        slowed_by: what slows the board down now.
        slowed_counts: how often its supply has done so since it was switched on, by reason.
    """

    power_mode: str = ""
    supply: Supply = "not told"
    temperature_c: float | None = None
    sensor: str = ""
    clocks: list[Clock] = []
    slowed_by: tuple[str, ...] = ()
    slowed_counts: dict[str, int] = {}


def read_condition(root: Path = Path("/")) -> Condition:
    """Look at the board now."""
    thermometer, slow_downs = find_thermometer(root), find_slow_downs(root)
    hottest = thermometer.read() if thermometer is not None else None
    return Condition(
        power_mode=read_power_mode(root),
        supply=read_supply(root),
        temperature_c=hottest[0] if hottest is not None else None,
        sensor=hottest[1] if hottest is not None else "",
        clocks=read_clocks(root),
        slowed_by=slow_downs.now(),
        slowed_counts=slow_downs.counts(),
    )


def condition_words(condition: Condition) -> dict[str, str]:
    """The condition for people, by its parts: those that the board tells."""
    words = {}
    if condition.power_mode:
        words["power mode"] = condition.power_mode
    if condition.supply != "not told":
        words["supply"] = condition.supply
    if condition.temperature_c is not None:
        words["heat"] = f"{condition.temperature_c:.1f} °C ({condition.sensor})"
    if condition.clocks:
        words["clocks"] = ", ".join(map(_clock_words, condition.clocks))
    counted = [f"{count} × {reason}" for reason, count in condition.slowed_counts.items() if count]
    if condition.slowed_by or counted:
        now = f"now by {', '.join(condition.slowed_by)}" if condition.slowed_by else "not now"
        since = f"; since it was switched on: {', '.join(counted)}" if counted else ""
        words["slowed"] = f"{now}{since}"
    return words


def _clock_words(clock: Clock) -> str:
    words = f"{clock.name} {clock.now_mhz} of {clock.allowed_mhz} MHz"
    return words + (f" (it can {clock.most_mhz})" if clock.allowed_mhz < clock.most_mhz else "")
