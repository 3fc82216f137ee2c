"""Leave to train: whether a board may train now, why not, and when that is worth asking again. Pure.

A board's operator may allow training at some hours alone, below a temperature, and while the board is not on its
battery. Hours are those of the clock on the wall: each question is answered by the time that it shows then, so that a
clock that is set, or put back in autumn, is followed at the next question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

HYSTERESIS_K = 5.0
"""A board that got too hot trains again this much below its limit. Chips cool by as much in the first seconds without
load: with less, it would stop and start every few steps."""

LOOK_EVERY_S = 5.0
"""Between two looks at temperature and supply: a heat sink warms by a degree or two meanwhile, and reading both takes
less than a millisecond."""

ASK_AGAIN_S = 300.0
"""Longest time until the clock on the wall is asked again: so late may a board begin after its clock was set."""

DAY_S = 86400

Kind = Literal["hours", "battery", "heat"]


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of a day at which training is allowed, in seconds since midnight, `start_s` included and `end_s` not; over
    midnight where it ends before it starts."""

    start_s: int
    end_s: int

    def holds(self, second: int) -> bool:
        """Whether `second` of a day is in it."""
        if self.start_s < self.end_s:
            return self.start_s <= second < self.end_s
        return second >= self.start_s or second < self.end_s


@dataclass(frozen=True, slots=True)
class Rules:
    """When a board may train; as they stand here, always.

    Attributes:
        windows: hours, in any of which it may; none is all day.
        below_c: temperature from which on it may not.
        only_on_mains: not while a battery feeds it.
    """

    windows: tuple[Window, ...] = ()
    below_c: float | None = None
    only_on_mains: bool = False

    def __bool__(self) -> bool:
        return bool(self.windows) or self.below_c is not None or self.only_on_mains


ALWAYS = Rules()
"""No rule."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of a board that its rules are held against.

    Attributes:
        second: of the day, by the clock on the wall.
        temperature_c: None where it cannot be read: that is no reason to wait, for the kernel still protects the chip.
        on_battery: whether a battery feeds the board.
    """

    second: int
    temperature_c: float | None = None
    on_battery: bool = False


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a board may not train now.

    Attributes:
        kinds: of the rules that forbid it.
        why: that, for people.
        least_s: how long it will be forbidden at least.
    """

    kinds: frozenset[Kind]
    why: str
    least_s: int = 0

    @property
    def ask_again_s(self) -> float:
        """When the next question may have another answer."""
        return min(max(self.least_s, LOOK_EVERY_S), ASK_AGAIN_S)


def objection(rules: Rules, facts: Facts, before: Objection | None = None) -> Objection | None:
    """The reason not to train now, None where there is none. `before`: the answer to the last question."""
    found: list[tuple[Kind, str]] = []
    least_s = 0
    if rules.windows and not any(window.holds(facts.second) for window in rules.windows):
        start_s, least_s = next_start(rules.windows, facts.second)
        found.append(("hours", f"waits for {start_s // 3600:02}:{start_s // 60 % 60:02}"))
    if rules.only_on_mains and facts.on_battery:
        found.append(("battery", "on battery, waits for mains"))
    if hot := _heat(rules, facts, was_hot=before is not None and "heat" in before.kinds):
        found.append(("heat", hot))
    if not found:
        return None
    return Objection(frozenset(kind for kind, _ in found), "; ".join(why for _, why in found), least_s)


def next_start(windows: Sequence[Window], second: int) -> tuple[int, int]:
    """The start of the window that opens next, and how many seconds that is away by the clock on the wall."""
    return min(((window.start_s, (window.start_s - second) % DAY_S) for window in windows), key=lambda pair: pair[1])


def _heat(rules: Rules, facts: Facts, *, was_hot: bool) -> str:
    """The words about a temperature that is too high, "" where it is not."""
    if rules.below_c is None or facts.temperature_c is None:
        return ""
    cool_c = rules.below_c - HYSTERESIS_K
    if facts.temperature_c < (cool_c if was_hot else rules.below_c):
        return ""
    return f"{facts.temperature_c:.1f} °C, waits for below {cool_c:g} °C"
