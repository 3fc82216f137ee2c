"""Whether a board runs on a battery, read from the kernel's power supplies below `root`.

The rule is that of systemd's ConditionACPower= (`on_ac_power` in its sources): on a battery is who has no supply from
outside that is online, and a battery that discharges. Supplies of devices, as a mouse's, do not count. A USB-C port
that is not plugged says "offline" on boards that are fed by another socket, so that alone says nothing.

Files: docs.kernel.org/power/power_supply_class.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edge_client.host.system_files import read_text

Supply = Literal["mains", "battery", "not told"]
"""What feeds a board; "not told" where the machine tells of no battery, as a desktop or a board without one."""


def read_supply(root: Path = Path("/")) -> Supply:
    """Look whether mains or a battery feeds this board now."""
    is_online = discharges = has_battery = False
    for folder in sorted((root / "sys/class/power_supply").glob("*")):
        if _text(folder / "scope") == "Device":
            continue
        if _text(folder / "type") in ("Battery", "UPS"):
            if _text(folder / "present") != "0":
                has_battery = True
                discharges |= _text(folder / "status") == "Discharging"
        else:
            is_online |= _text(folder / "online") not in ("", "0")
    if not has_battery:
        return "not told"
    return "battery" if discharges and not is_online else "mains"


def _text(path: Path) -> str:
    return read_text(path).strip()
