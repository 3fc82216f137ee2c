"""A look at the clock on the wall, the temperature and the supply, as far as a board's rules ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edge_client.agent.manners.leave_to_train import Facts, Rules
from edge_client.host.condition.power_supply import read_supply
from edge_client.host.condition.thermometer import find_thermometer


class Look:
    """Reads the facts that the rules ask for, and nothing else, at each call."""

    def __init__(self, rules: Rules, now_unix_s: Callable[[], float] = time.time, root: Path = Path("/")) -> None:
        self._now_unix_s, self._root = now_unix_s, root
        self._asks_supply = rules.only_on_mains
        self._thermometer = find_thermometer(root) if rules.below_c is not None else None

    def __call__(self) -> Facts:
        now = time.localtime(self._now_unix_s())
        hottest = self._thermometer.read() if self._thermometer is not None else None
        return Facts(
            second=3600 * now.tm_hour + 60 * now.tm_min + min(now.tm_sec, 59),
            temperature_c=hottest[0] if hottest is not None else None,
            on_battery=self._asks_supply and read_supply(self._root) == "battery",
        )
