"""The tables of docs/results/arm.md, put between their marks; the words around them are a person's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arm64.proof import Row
from braid_common.units import MIB, show_seconds
from scripts.generated_page import table


def cores_table(rows: Sequence[Row]) -> str:
    """A line for each core."""
    header = ["core", "boards that have it", "torch", "products that work", "`doctor`", "killed in"]
    header += ["goes on with", "updates a round", "answers equal to x86-64's", "federation"]
    lines = [
        (
            row.core,
            row.boards,
            row.torch,
            f"{row.products[0]} of {row.products[1]}",
            show_seconds(row.doctor_s),
            row.killed,
            f"step {row.resumed_step}",
            ", ".join(map(str, row.updates)),
            f"{row.same_answers} of {row.n_answers}",
            show_seconds(row.seconds),
        )
        for row in rows
    ]
    return table(header, lines)


def memory_table(found: Sequence[Mapping[str, Any]]) -> str:
    """A line for each setting and kind of processor; sizes in MiB."""
    header = (
        "processor",
        "torch",
        "training",
        "imports",
        "peak",
        "predicted",
        "predicted / peak",
        "QEMU's own besides",
    )
    lines = []
    for each in sorted(found, key=lambda each: (str(each["setting"]), str(each["where"]))):
        sizes = [f"{each[name] / MIB:.0f}" for name in ("imports_bytes", "peak_bytes", "predicted_bytes")]
        ratio = f"{each['predicted_bytes'] / each['peak_bytes']:.2f}"
        emulator = f"{each['emulator_bytes'] / MIB:.0f}" if each["emulated"] else "–"
        lines.append((str(each["where"]), str(each["torch"]), str(each["setting"]), *sizes, ratio, emulator))
    return table(header, lines)


def fast_tests_table(found: Mapping[str, Any], left_out: Mapping[str, str]) -> str:
    """How many tests passed, which did not, and which were left out and why."""
    words = ("passed", "failed", "skipped")
    line = (str(found["core"]), *(str(found[word]) for word in words), show_seconds(found["seconds"]))
    text = table(("core", *words, "time"), [line])
    text += "".join(f"\n\nFailed: `{name}`." for name in found["failures"])
    reasons = table(("left out", "because"), [(f"`{name}`", why) for name, why in left_out.items()])
    return f"{text}\n\n{reasons}" if left_out else text
