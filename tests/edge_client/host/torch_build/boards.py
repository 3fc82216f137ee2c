"""Boards as their files tell them: release files, device tree and cpuinfo, laid out below a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

V80 = "fp asimd evtstrm crc32 cpuid"
"""Features of a core of ARMv8.0, as on a Raspberry Pi 4."""

V82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
"""Features of a Cortex-A76, as on a Raspberry Pi 5."""

ORIN = V82 + " uscat ilrcpc flagm paca pacg"
"""Features of a Cortex-A78AE, as on a Jetson Orin."""

X86 = "fpu sse2 avx2 avx512f avx512_bf16"


@dataclass(frozen=True)
class FakeBoard:
    """One board.

    Attributes:
        machine: what `uname -m` says.
        features: of its processor.
        model: its name in the device tree.
        part: the processor's number, by ARM's list.
        tegra: the first words of NVIDIA's release file, "" on any other board.
        python, glibc: versions.
    """

    machine: str
    features: str
    model: str = ""
    part: str = ""
    tegra: str = ""
    python: str = "3.11"
    glibc: str = "2.36"

    def lay_out(self, root: Path) -> Path:
        """Write the board's files below `root`, which is returned."""
        for folder in ("proc/device-tree", "etc"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        if self.machine == "x86_64":
            cpu = f"processor : 0\nmodel name : Some x86\nflags : {self.features}\n\n"
        else:
            cpu = f"processor : 0\nFeatures : {self.features}\nCPU implementer : 0x41\nCPU part : {self.part}\n\n"
        (root / "proc/cpuinfo").write_text(4 * cpu)
        if self.model:
            (root / "proc/device-tree/model").write_text(self.model + "\0")
        if self.tegra:
            (root / "etc/nv_tegra_release").write_text(f"# {self.tegra}, GCID: 1, BOARD: generic, EABI: aarch64\n")
        return root


BOARDS = {
    "Pi Zero 2 W": FakeBoard("aarch64", V80, "Raspberry Pi Zero 2 W Rev 1.0", "0xd03"),
    "Pi 3": FakeBoard("aarch64", V80, "Raspberry Pi 3 Model B Plus Rev 1.3", "0xd03", python="3.13", glibc="2.41"),
    "Pi 4": FakeBoard("aarch64", V80, "Raspberry Pi 4 Model B Rev 1.4", "0xd08"),
    "Pi 5": FakeBoard("aarch64", V82, "Raspberry Pi 5 Model B Rev 1.0", "0xd0b", python="3.13", glibc="2.41"),
    "Orin, JetPack 6.0": FakeBoard(
        "aarch64", ORIN, "NVIDIA Jetson Orin Nano", "0xd42", "R36 (release), REVISION: 3.0", "3.10", "2.35"
    ),
    "Orin, JetPack 6.2": FakeBoard(
        "aarch64", ORIN, "NVIDIA Jetson Orin Nano", "0xd42", "R36 (release), REVISION: 4.3", "3.10", "2.35"
    ),
    "Orin, JetPack 7.2": FakeBoard(
        "aarch64", ORIN, "NVIDIA Jetson Orin Nano", "0xd42", "R39 (release), REVISION: 2.0", "3.12", "2.39"
    ),
    "Thor, JetPack 7.0": FakeBoard(
        "aarch64", ORIN, "NVIDIA Jetson AGX Thor", "0xd83", "R38 (release), REVISION: 2.2", "3.12", "2.39"
    ),
    "Xavier, JetPack 5": FakeBoard(
        "aarch64", V82, "NVIDIA Jetson Xavier NX", "0x004", "R35 (release), REVISION: 4.1", "3.10", "2.31"
    ),
    "generic aarch64": FakeBoard("aarch64", V82, "Orange Pi 5", "0xd0b", python="3.12", glibc="2.39"),
    "x86-64": FakeBoard("x86_64", X86, python="3.10", glibc="2.35"),
}
"""Boards that Braid is for, by what people call them."""
