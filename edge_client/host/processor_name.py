"""The processor's model in words. ARM's cores tell numbers only; their names are ARM's and NVIDIA's own."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from edge_client.host.system_files import read_text

_CORES = {
    "0x41": {
        "0xd03": "Cortex-A53",
        "0xd04": "Cortex-A35",
        "0xd05": "Cortex-A55",
        "0xd07": "Cortex-A57",
        "0xd08": "Cortex-A72",
        "0xd09": "Cortex-A73",
        "0xd0a": "Cortex-A75",
        "0xd0b": "Cortex-A76",
        "0xd0c": "Neoverse-N1",
        "0xd0d": "Cortex-A77",
        "0xd0e": "Cortex-A76AE",
        "0xd40": "Neoverse-V1",
        "0xd41": "Cortex-A78",
        "0xd42": "Cortex-A78AE",
        "0xd44": "Cortex-X1",
        "0xd46": "Cortex-A510",
        "0xd47": "Cortex-A710",
        "0xd49": "Neoverse-N2",
        "0xd4b": "Cortex-A78C",
        "0xd4d": "Cortex-A715",
        "0xd4f": "Neoverse-V2",
        "0xd80": "Cortex-A520",
        "0xd81": "Cortex-A720",
        "0xd83": "Neoverse-V3AE",
    },
    "0x4e": {"0x003": "Denver 2", "0x004": "Carmel"},
}
"""Parts by implementer (0x41 is ARM, 0x4e NVIDIA), of boards that one meets; the numbers are those of Linux'
arch/arm64/include/asm/cputype.h."""

_MAKERS = {"0x41": "ARM", "0x4e": "NVIDIA"}


def processor(root: Path = Path("/")) -> str:
    """The processor's model: the name that /proc/cpuinfo gives, on ARM the name of each kind of core, else the
    architecture with the numbers that it tells."""
    cores = list(_cores(root))
    name = next((core["model name"] for core in cores if core.get("model name")), "")
    if name:
        return name
    kinds = dict.fromkeys(filter(None, map(_kind, cores)))  # each once, in order
    if kinds:
        return " + ".join(kinds)
    told = next((core["hardware"] for core in cores if core.get("hardware")), "")
    return f"{platform.machine()} {told}".rstrip()


def _cores(root: Path) -> Iterator[dict[str, str]]:
    """The fields of each core."""
    for block in read_text(root / "proc/cpuinfo").split("\n\n"):
        fields = (line.partition(":") for line in block.splitlines())
        yield {name.strip().lower(): value.strip() for name, _, value in fields}


def _kind(core: dict[str, str]) -> str:
    implementer, part = core.get("cpu implementer", ""), core.get("cpu part", "")
    if not part:
        return core.get("cpu model", "")
    known = _CORES.get(implementer, {}).get(part)
    return f"{_MAKERS[implementer]} {known}" if known else f"{platform.machine()} core {implementer} {part}"
