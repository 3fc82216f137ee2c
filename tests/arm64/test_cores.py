"""The cores as QEMU and Linux name them, and what the choice of torch makes of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from arm64.cores import CORES, Core, cores_named, cpuinfo, features
from edge_client.host.processor_name import processor
from edge_client.host.torch_build.choose import choose
from edge_client.host.torch_build.facts import read_facts

SHOWN = {
    "cortex-a53": "AT_HWCAP:             8fb\nAT_HWCAP2:            0x0\nAT_PLATFORM:          aarch64\n",
    "cortex-a57": "AT_HWCAP:             8fb\nAT_HWCAP2:            0x0\n",
    "cortex-a72": "AT_HWCAP:             8fb\nAT_HWCAP2:            0x0\n",
    "cortex-a76": "AT_HWCAP:             119ffb\nAT_HWCAP2:            0x0\n",
    "max": "AT_HWCAP:             ecfffffb\nAT_HWCAP2:            0x7f877fff\n",
}
"""What the dynamic linker shows under QEMU 7.2."""


def test_features_have_linux_names() -> None:
    """As a Raspberry Pi's /proc/cpuinfo has them, and no atomics on cores of ARMv8.0."""
    newer = "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"

    assert " ".join(features(SHOWN["cortex-a72"])) == "fp asimd aes pmull sha1 sha2 crc32 cpuid"
    assert " ".join(features(SHOWN["cortex-a76"])) == newer
    assert {"sve", "sve2", "bf16", "i8mm", "sme"} <= set(features(SHOWN["max"]))


def test_a_linker_that_shows_nothing_is_an_error() -> None:
    """Every core would look like one of ARMv8.0."""
    with pytest.raises(ValueError, match="no AT_HWCAP"):
        features("")


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_the_table_chooses_for_a_core_as_for_a_board(core: Core, tmp_path: Path) -> None:
    """From the file that is written for it."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo(core, features(SHOWN[core.name]), 2))

    build = choose(read_facts(tmp_path, machine="aarch64", python=(3, 11), glibc=(2, 36)))

    assert build.name == ("armv8.0" if core.name in ("cortex-a53", "cortex-a57", "cortex-a72") else "aarch64")
    assert core.name == "max" or processor(tmp_path) == f"ARM {core.name.title()}"


def test_cores_are_chosen_by_name() -> None:
    """All by default; a name that is none is said, with those that are."""
    assert cores_named("") == CORES
    assert [core.name for core in cores_named("max, cortex-a53")] == ["max", "cortex-a53"]
    with pytest.raises(ValueError, match="no core 'cortex-a99'; the cores are cortex-a53, "):
        cores_named("cortex-a99")
