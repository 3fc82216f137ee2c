"""The tables of docs/results/arm.md, and the words around them, which stay a person's."""

from __future__ import annotations

from arm64.fast_tests import outcome
from arm64.page import cores_table, fast_tests_table, memory_table
from arm64.proof import Row

ROW = Row(
    core="cortex-a72",
    boards="Raspberry Pi 4",
    torch="2.9.1",
    products=(4, 4),
    doctor_s=61.0,
    killed="round 2, step 4 of 12",
    resumed_step=3,
    updates=(2, 2),
    same_answers=4,
    n_answers=4,
    seconds=181.5,
    made_of="braid-edge-client_1_arm64.deb",
)


def test_a_core_is_a_line() -> None:
    """With what was seen of it."""
    assert cores_table([ROW]).splitlines()[2] == (
        "| cortex-a72 | Raspberry Pi 4 | 2.9.1 | 4 of 4 | 1 min 1 s | round 2, step 4 of 12 | step 3 | 2, 2 | 4 of 4 "
        "| 3 min 2 s |"
    )


def test_memory_names_what_is_qemus() -> None:
    """Only where there was a QEMU."""
    sizes = {name: size << 20 for name, size in (("imports_bytes", 200), ("peak_bytes", 300), ("predicted_bytes", 330))}
    common = {"torch": "2.9.1", "setting": "fp32", "emulator_bytes": 90 << 20, **sizes}
    found = [{"where": "x86-64", "emulated": False, **common}, {"where": "aarch64", "emulated": True, **common}]

    lines = memory_table(found).splitlines()[2:]

    assert lines[0] == "| aarch64 | 2.9.1 | fp32 | 200 | 300 | 330 | 1.10 | 90 |"
    assert lines[1].endswith("| 1.10 | – |")


def test_failures_are_named() -> None:
    """As pytest names them."""
    text = "...\nFAILED tests/wire/test_a.py::test_b - AssertionError\nERROR tests/wire/test_d.py - ImportError\n"
    text += "1 failed, 2000 passed, 3 skipped, 1 error in 9s\n"

    found = outcome(text)

    assert (found["passed"], found["failed"], found["skipped"]) == (2000, 2, 3)
    table = fast_tests_table(found | {"core": "max", "seconds": 600.0}, {"tests/wire/test_c.py": "no ptrace"})
    assert "| max | 2000 | 2 | 3 | 10 min 0 s |" in table
    assert "Failed: `tests/wire/test_a.py::test_b`" in table
    assert "Failed: `tests/wire/test_d.py`" in table
    assert "| `tests/wire/test_c.py` | no ptrace |" in table
