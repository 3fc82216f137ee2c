"""`edge-client doctor`: what this board has, and what is missing for training. Nothing heavy is imported."""

from __future__ import annotations

import json
import platform
from importlib.util import find_spec
from typing import Any

import click

from edge_client.board import probe_board, show_size
from edge_client.cli_options import debug_option
from edge_client.packages import require_packages, versions


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@debug_option
def doctor(as_json: bool, debug: bool) -> None:
    """Check this board: memory, processors, arithmetic, and installed packages. Status 3 if something is missing."""
    del debug
    found = examine()
    click.echo(json.dumps(found) if as_json else "\n".join(_lines(found)))
    require_packages()


def examine() -> dict[str, Any]:
    """The findings, as plain values. `packages` maps a name to its version, or None where it is not installed."""
    board = probe_board()
    return {
        "board": board.model or platform.node(),
        "machine": board.machine,
        "python": platform.python_version(),
        "memory_bytes": board.memory_bytes,
        "memory_source": board.memory_source,
        "cpu_count": board.cpu_count,
        "bf16": "fast" if board.bf16_fast else "emulated",
        "nf4": "plain torch" if find_spec("torch") else "needs torch",
        "packages": versions(),
        "builtin_base": find_spec("builtin_base") is not None,
    }


def _lines(found: dict[str, Any]) -> list[str]:
    bf16 = "in hardware" if found["bf16"] == "fast" else "emulated, so fp32 is used"
    lines = [
        f"board       {found['board']} ({found['machine']}), Python {found['python']}",
        f"memory      {show_size(found['memory_bytes'])} ({found['memory_source']})",
        f"processors  {found['cpu_count']}; bf16 {bf16}",
        f"4-bit base  {'ready' if find_spec('torch') else 'needs torch'}",
        f"base        builtin is {'here' if found['builtin_base'] else 'not installed'}",
    ]
    lines += [f"{name:<16}{number or 'not installed'}" for name, number in found["packages"].items()]
    return lines
