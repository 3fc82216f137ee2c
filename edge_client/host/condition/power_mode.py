"""The power mode of a Jetson: which of the modes in /etc/nvpmodel.conf NVIDIA's `nvpmodel` has set.

`nvpmodel` keeps the mode's number in /var/lib/nvpmodel/status ("pmode:0002"), and the file of modes names each
("< POWER_MODEL ID=2 NAME=MAXN_SUPER >") and the one of a first start ("< PM_CONFIG DEFAULT=1 >"). Both can be read by
everybody, without running `nvpmodel -q`, which asks for root on some releases.
"""

from __future__ import annotations

import re
from pathlib import Path

from edge_client.host.system_files import read_text

_STATUS = re.compile(r"pmode:(\d+)")
_DEFAULT = re.compile(r"^<\s*PM_CONFIG\s+DEFAULT=(\d+)", re.MULTILINE)


def read_power_mode(root: Path = Path("/")) -> str:
    """The mode as `nvpmodel -q` shows it, such as "MAXN_SUPER (mode 2)"; "" where there are no modes."""
    modes = read_text(root / "etc/nvpmodel.conf")
    number = _STATUS.search(read_text(root / "var/lib/nvpmodel/status")) or _DEFAULT.search(modes)
    if number is None:
        return ""
    mode_id = int(number[1])
    name = re.search(rf"^<\s*POWER_MODEL\s+ID={mode_id}\s+NAME=([^\s>]+)", modes, re.MULTILINE)
    return f"{name[1]} (mode {mode_id})" if name else f"mode {mode_id}"
