"""`edge-client doctor`: shows what this board has, and what is missing for training. Nothing heavy is imported."""

from __future__ import annotations

import json
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import msgspec

from braid_common.units import show_size
from edge_client.cli.options import debug_option, state_option
from edge_client.host.board import probe_board
from edge_client.host.matmul_speed import MatmulSpeed, with_matmul_speed
from edge_client.host.packages import require_packages, versions
from edge_client.state.matmul_speed_file import look_up_matmul_speed
from quantize.kernels import Kernel, nf4_kernel


@click.command()
@state_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@debug_option
def doctor(state: Path, as_json: bool, debug: bool) -> None:
    """Check this board: memory, processors, arithmetic, and installed packages. Status 3 if something is missing."""
    del debug
    facts = examine(state.expanduser())
    click.echo(json.dumps(facts) if as_json else "\n".join(_lines(facts)))
    require_packages()


def examine(state: Path) -> dict[str, Any]:
    """The findings, as plain values. `packages` maps a name to its version, or None where it is not installed;
    `arithmetic` is None where torch is not installed or cannot be loaded."""
    arithmetic = look_up_matmul_speed(state)
    kernel = _nf4_kernel(arithmetic)
    board = with_matmul_speed(probe_board(), arithmetic)
    return {
        "board": board.model or platform.node(),
        "machine": board.machine,
        "python": platform.python_version(),
        "memory_bytes": board.memory_bytes,
        "memory_source": board.memory_source,
        "cpu_count": board.cpu_count,
        "bf16": "fast" if board.bf16_fast else "emulated",
        "arithmetic": msgspec.to_builtins(arithmetic),
        "nf4": kernel.name,
        "nf4_reason": kernel.reason,
        "packages": versions(),
        "builtin_base": find_spec("builtin_base") is not None,
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"board       {facts['board']} ({facts['machine']}), Python {facts['python']}",
        f"memory      {show_size(facts['memory_bytes'])} ({facts['memory_source']})",
        f"processors  {facts['cpu_count']}",
        f"arithmetic  {_arithmetic(facts)}",
        f"4-bit base  {facts['nf4']} ({facts['nf4_reason']})",
        f"base        builtin is {'here' if facts['builtin_base'] else 'not installed'}",
    ]
    lines += [f"{name:<16}{number or 'not installed'}" for name, number in facts["packages"].items()]
    return lines


def _nf4_kernel(arithmetic: MatmulSpeed | None) -> Kernel:
    """The code that unpacks a 4-bit base here. torch stays out of this process: a GPU is tried in another one."""
    if find_spec("torch") is None:
        return Kernel("none", "torch is not installed")
    return nf4_kernel("cpu" if arithmetic is None else arithmetic.device)


def _arithmetic(facts: dict[str, Any]) -> str:
    """Measured speeds, or what the processor's flags say."""
    measured = facts["arithmetic"]
    if measured is None:
        guess = "bf16 in hardware" if facts["bf16"] == "fast" else "bf16 emulated, so fp32 is used"
        return f"{guess} (from the processor's flags; measuring needs torch, and a board that is not too busy)"
    speeds = f"bf16 {measured['bf16_gflops']:.0f}, fp32 {measured['fp32_gflops']:.0f} GFLOP/s measured"
    chosen = "bf16" if facts["bf16"] == "fast" else "fp32"
    return f"{speeds} on {measured['device_name']}; {chosen} is used"
