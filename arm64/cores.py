"""The cores that QEMU is told to be, and how Linux would describe each in /proc/cpuinfo. Pure.

Under user emulation that file is the host's own. Who chooses a build of torch by the core's features has to see the
core's, so it is written anew from the features that QEMU gives to programs (AT_HWCAP).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FEATURES = """
fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4
asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg
"""
"""Linux' names of the bits of AT_HWCAP, from the lowest (arch/arm64/kernel/cpuinfo.c)."""

MORE_FEATURES = """
dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm bf16 dgh
rng bti mte ecv afp rpres mte3 sme smei16i64 smef64f64 smei8i32 smef16f32 smeb16f32 smef32f32 smefa64
"""
"""The same of AT_HWCAP2."""


@dataclass(frozen=True, slots=True)
class Core:
    """A processor core.

    Attributes:
        name: QEMU's, for QEMU_CPU.
        implementer, part: numbers by which it tells what it is.
        boards: that have it.
    """

    name: str
    implementer: str
    part: str
    boards: str


CORES = (
    Core("cortex-a53", "0x41", "0xd03", "Raspberry Pi 3, Zero 2 W"),
    Core("cortex-a57", "0x41", "0xd07", "Jetson Nano, TX2"),
    Core("cortex-a72", "0x41", "0xd08", "Raspberry Pi 4"),
    Core("cortex-a76", "0x41", "0xd0b", "Raspberry Pi 5, Orange Pi 5"),
    Core("max", "0x00", "0x051", "none: all that QEMU can, such as bf16 and SVE"),
)


def cores_named(names: str) -> tuple[Core, ...]:
    """The cores of a list of names, all for "". Raises ValueError for a name that is none."""
    known = {core.name: core for core in CORES}
    wanted = names.replace(",", " ").split() or list(known)
    if strange := [name for name in wanted if name not in known]:
        raise ValueError(f"there is no core {strange[0]!r}; the cores are {', '.join(known)}")
    return tuple(known[name] for name in wanted)


def features(auxiliary_vector: str) -> tuple[str, ...]:
    """Names of the features that the dynamic linker shows with LD_SHOW_AUXV=1. Raises ValueError where it shows
    none."""
    found = dict(re.findall(r"^AT_(HWCAP2?):\s*(?:0x)?([0-9a-f]+)", auxiliary_vector, re.MULTILINE))
    if "HWCAP" not in found:
        raise ValueError(f"no AT_HWCAP in {auxiliary_vector!r}")
    return tuple(_set(found["HWCAP"], FEATURES) + _set(found.get("HWCAP2", "0"), MORE_FEATURES))


def cpuinfo(core: Core, names: tuple[str, ...], n_processors: int) -> str:
    """/proc/cpuinfo as Linux would write it."""
    block = (
        "processor\t: {number}\n"
        f"Features\t: {' '.join(names)}\n"
        f"CPU implementer\t: {core.implementer}\n"
        "CPU architecture: 8\n"
        f"CPU part\t: {core.part}\n\n"
    )
    return "".join(block.format(number=number) for number in range(n_processors))


def _set(hexadecimal: str, names: str) -> list[str]:
    """The names of the bits that are set."""
    return [name for bit, name in enumerate(names.split()) if int(hexadecimal, 16) >> bit & 1]
