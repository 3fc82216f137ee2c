"""The line that names a machine beside a number."""

from __future__ import annotations

from pathlib import Path

from edge_client.host.machine import describe_machine


def test_processor_memory_and_versions_are_named(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name : Toy 3000\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 3145728 kB\nMemAvailable: 1 kB\n")

    line = describe_machine("click", "no-such-package", root=tmp_path)

    assert line.startswith("Toy 3000, ")
    assert ", 3.00 GiB, Linux " in line
    assert line.endswith(", no-such-package not installed")


def test_a_machine_that_hides_its_memory_is_no_error(tmp_path: Path) -> None:
    assert ", unknown memory, " in describe_machine(root=tmp_path)
